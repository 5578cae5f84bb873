package infra_test

import (
	"encoding/json"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/rights"
	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// policyDocument is a policy as AWS reads it.
type policyDocument struct {
	Statement []struct {
		Sid, Effect      string
		Principal        any
		Action, Resource []string
		Condition        map[string]map[string][]string
	}
}

// policies returns every policy document that a resource of the stack has.
func (d *deployment) policies(t *testing.T) map[string]policyDocument {
	t.Helper()
	found := map[string]policyDocument{}
	for _, r := range d.resources {
		for key, value := range r.Inputs {
			text, ok := value.(string)
			if !ok || !strings.Contains(text, `"Statement"`) {
				continue
			}
			var p policyDocument
			if err := json.Unmarshal([]byte(text), &p); err != nil {
				t.Fatalf("%s %s: %v", r.Type, r.Name, err)
			}
			found[r.Name+" "+key+" "+r.Type[strings.LastIndex(r.Type, ":")+1:]] = p
		}
	}
	return found
}

// Nothing is granted on more than this stack's own resources, and no action by a
// wildcard; everything that a policy of a resource says is that TLS is needed.
func TestPolicies(t *testing.T) {
	for variant, config := range variants {
		d := deploy(t, config)
		name := map[bool]string{true: "my-samples", false: bucket + "-0123abc"}[variant == "all"]
		own := []string{
			"arn:aws:s3:::" + name, "arn:aws:sqs:us-east-2:123456789012:" + tasks + "-0123abc",
			"arn:aws:sqs:us-east-2:123456789012:" + dlq + "-0123abc",
			"arn:aws:logs:us-east-2:123456789012:log-group:" + worker + "-0123abc",
			"arn:aws:ecr:us-east-2:123456789012:repository/" + project + "-" + stackName + "-image-0123abc",
		}
		isOwn := func(resource string) bool {
			return slices.ContainsFunc(own, func(arn string) bool {
				rest, ok := strings.CutPrefix(resource, arn)
				return ok && (rest == "" || rest[0] == '/' || rest[0] == ':') && !strings.HasPrefix(rest, "/*")
			})
		}
		policies := d.policies(t)
		if want := map[bool]int{false: 6, true: 10}[variant == "fleet"]; len(policies) != want {
			t.Errorf("%d policies: %v", len(policies), slices.Collect(maps.Keys(policies)))
		}
		tls := map[string]bool{}
		for where, p := range policies {
			for _, s := range p.Statement {
				switch {
				case s.Effect == "Deny":
					if !reflect.DeepEqual(s.Principal, map[string]any{"AWS": "*"}) ||
						!reflect.DeepEqual(s.Condition, map[string]map[string][]string{"Bool": {"aws:SecureTransport": {"false"}}}) ||
						len(s.Action) != 1 || !strings.HasSuffix(s.Action[0], ":*") {
						t.Errorf("%s: %+v", where, s)
					}
					for _, r := range s.Resource {
						tls[r] = true
					}
				case strings.HasSuffix(where, "assumeRolePolicy Role"):
					service := map[bool]string{false: "lambda.amazonaws.com", true: "ecs-tasks.amazonaws.com"}[strings.Contains(where, "-fleet-")]
					if !reflect.DeepEqual(s.Principal, map[string]any{"Service": service}) ||
						!slices.Equal(s.Action, []string{"sts:AssumeRole"}) {
						t.Errorf("%s: %+v", where, s)
					}
				case strings.HasSuffix(where, "RepositoryPolicy"): // the image, to Lambda in this account
					if !reflect.DeepEqual(s.Principal, map[string]any{"Service": "lambda.amazonaws.com"}) ||
						!slices.Equal(s.Action, []string{"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}) ||
						!slices.Equal(s.Condition["StringLike"]["aws:sourceArn"],
							[]string{"arn:aws:lambda:us-east-2:123456789012:function:*"}) {
						t.Errorf("%s: %+v", where, s)
					}
				default:
					if s.Principal != nil || len(s.Action) == 0 || len(s.Resource) == 0 {
						t.Errorf("%s: %+v", where, s)
					}
					for _, a := range s.Action {
						if strings.Contains(a, "*") {
							t.Errorf("%s: %s grants %s", where, s.Sid, a)
						}
					}
					for _, r := range s.Resource {
						// ECR's token is for every repository that lets the role in.
						if !isOwn(r) && (r != "*" || !slices.Equal(s.Action, []string{"ecr:GetAuthorizationToken"})) {
							t.Errorf("%s: %s grants %v on %s", where, s.Sid, s.Action, r)
						}
					}
				}
			}
		}
		for _, arn := range []string{own[0], own[0] + "/*", own[1], own[2]} {
			if !tls[arn] {
				t.Errorf("%s is reached without TLS", arn)
			}
		}
	}
}

// The worker may do what it does, and nothing else.
func TestWorkerRights(t *testing.T) {
	d := deploy(t, nil)
	p := d.policies(t)[worker+" policy RolePolicy"]
	matches := func(pattern, s string) bool {
		prefix, open := strings.CutSuffix(pattern, "*")
		return pattern == s || open && strings.HasPrefix(s, prefix)
	}
	allowed := func(action, resource, listed string) bool {
		for _, s := range p.Statement {
			if slices.Contains(s.Action, action) &&
				slices.ContainsFunc(s.Resource, func(r string) bool { return matches(r, resource) }) &&
				(s.Condition == nil || slices.ContainsFunc(s.Condition["StringLike"]["s3:prefix"],
					func(r string) bool { return matches(r, listed) })) {
				return true
			}
		}
		return false
	}
	chunk := task.Chunk{Cell: task.Range{Start: 0, End: 20}, Keep: task.Range{Start: 0, End: 20}}
	data, shard := task.DefaultDataset.FileKey("maze", "maze_00000000", "prompt.txt"),
		task.DefaultDataset.ShardKey("maze", chunk, 1)
	cell := task.DefaultDataset.CellKey("maze", chunk.Cell)
	failure, invalid, run := task.DefaultDataset.FailureKey("maze", chunk.Name(), "m", 1),
		task.DefaultDataset.FailureKey("", "", "m", 1), task.DefaultDataset.RunKey("r")
	other, manifest := task.Dataset("v2").FileKey("maze", "maze_00000000", "prompt.txt"), task.DefaultDataset.ManifestKey()
	objects := "arn:aws:s3:::" + bucket + "-0123abc"
	for _, test := range []struct {
		action string
		yes    []string
		no     []string
	}{
		{"s3:PutObject", []string{data, shard, other, cell, failure, invalid, manifest},
			[]string{run, "x", "data", "manifests/v1.json"}},
		{"s3:GetObject", []string{cell, manifest}, []string{data, run}},
		{"s3:DeleteObject", []string{data, shard, other}, []string{cell, failure, run, manifest}},
		{"s3:AbortMultipartUpload", []string{shard}, []string{cell, run}},
		{"s3:DeleteBucket", nil, []string{""}}, {"s3:PutBucketPolicy", nil, []string{""}},
	} {
		for _, key := range test.yes {
			if !allowed(test.action, objects+"/"+key, "") {
				t.Errorf("%s %s is refused", test.action, key)
			}
		}
		for _, key := range test.no {
			if allowed(test.action, path.Join(objects, key), "") || allowed(test.action, "arn:aws:s3:::other/"+key, "") {
				t.Errorf("%s %s is allowed", test.action, key)
			}
		}
	}
	for prefix, want := range map[string]bool{
		task.DefaultDataset.CellsPrefix("maze"): false, task.DefaultDataset.Prefix(task.DataKind) + "maze/maze_": true,
		manifest: true, task.DefaultDataset.Prefix(task.RunKind): false, "": false,
	} {
		if allowed("s3:ListBucket", objects, prefix) != want {
			t.Errorf("listing %q: allowed is %v", prefix, !want)
		}
	}
	queue, dead := "arn:aws:sqs:us-east-2:123456789012:"+tasks+"-0123abc", "arn:aws:sqs:us-east-2:123456789012:"+dlq+
		"-0123abc"
	logs := "arn:aws:logs:us-east-2:123456789012:log-group:" + worker + "-0123abc"
	for _, test := range []struct {
		action, resource string
		want             bool
	}{
		{"sqs:ReceiveMessage", queue, true}, {"sqs:DeleteMessage", queue, true}, {"sqs:ChangeMessageVisibility", queue, true},
		{"sqs:GetQueueAttributes", queue, true}, {"sqs:SendMessage", queue, true}, {"sqs:PurgeQueue", queue, false},
		{"sqs:SetQueueAttributes", queue, false},
		{"sqs:SendMessage", dead, true}, {"sqs:ReceiveMessage", dead, false}, {"sqs:DeleteMessage", dead, false},
		{"sqs:SendMessage", queue + "-other", false},
		{"logs:PutLogEvents", logs + ":log-stream:x", true}, {"logs:CreateLogStream", logs + ":log-stream:x", true},
		{"logs:DeleteLogGroup", logs, false}, {"logs:PutLogEvents", logs + "-other:log-stream:x", false},
	} {
		if allowed(test.action, test.resource, "") != test.want {
			t.Errorf("%s %s: allowed is %v", test.action, test.resource, !test.want)
		}
	}
}

// What ops prints for workers elsewhere is what the function's role has.
func TestRightsElsewhere(t *testing.T) {
	d := deploy(t, nil)
	text, err := json.Marshal(d.outputs)
	if err != nil {
		t.Fatal(err)
	}
	o, err := stack.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = json.Marshal(rights.OfStack(o)); err != nil {
		t.Fatal(err)
	}
	var printed policyDocument
	if err := json.Unmarshal(text, &printed); err != nil {
		t.Fatal(err)
	}
	if role := d.policies(t)[worker+" policy RolePolicy"]; !reflect.DeepEqual(printed, role) {
		t.Errorf("printed is %+v\nthe role has %+v", printed, role)
	}
}
