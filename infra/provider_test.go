//go:build provider

// This test is of `make provider-check` alone: it takes minutes, and needs terraform with the provider, and moto.

package infra_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// terraformTypes are the resources of the real provider that Pulumi's are made of, each
// with the argument that has the name Pulumi generates, or "".
var terraformTypes = map[string][2]string{
	"aws:appautoscaling/policy:Policy":                                                           {"aws_appautoscaling_policy", "name"},
	"aws:appautoscaling/target:Target":                                                           {"aws_appautoscaling_target", ""},
	"aws:budgets/budget:Budget":                                                                  {"aws_budgets_budget", "name"},
	"aws:cloudwatch/dashboard:Dashboard":                                                         {"aws_cloudwatch_dashboard", ""},
	"aws:cloudwatch/logGroup:LogGroup":                                                           {"aws_cloudwatch_log_group", "name"},
	"aws:cloudwatch/metricAlarm:MetricAlarm":                                                     {"aws_cloudwatch_metric_alarm", "alarm_name"},
	"aws:ecr/lifecyclePolicy:LifecyclePolicy":                                                    {"aws_ecr_lifecycle_policy", ""},
	"aws:ecr/repository:Repository":                                                              {"aws_ecr_repository", "name"},
	"aws:ecr/repositoryPolicy:RepositoryPolicy":                                                  {"aws_ecr_repository_policy", ""},
	"aws:ecs/cluster:Cluster":                                                                    {"aws_ecs_cluster", "name"},
	"aws:ecs/clusterCapacityProviders:ClusterCapacityProviders":                                  {"aws_ecs_cluster_capacity_providers", ""},
	"aws:ecs/service:Service":                                                                    {"aws_ecs_service", "name"},
	"aws:ecs/taskDefinition:TaskDefinition":                                                      {"aws_ecs_task_definition", ""},
	"aws:iam/role:Role":                                                                          {"aws_iam_role", "name"},
	"aws:iam/rolePolicy:RolePolicy":                                                              {"aws_iam_role_policy", "name"},
	"aws:lambda/alias:Alias":                                                                     {"aws_lambda_alias", ""},
	"aws:lambda/eventSourceMapping:EventSourceMapping":                                           {"aws_lambda_event_source_mapping", ""},
	"aws:lambda/function:Function":                                                               {"aws_lambda_function", "function_name"},
	"aws:lambda/functionRecursionConfig:FunctionRecursionConfig":                                 {"aws_lambda_function_recursion_config", ""},
	"aws:s3/bucketLifecycleConfigurationV2:BucketLifecycleConfigurationV2":                       {"aws_s3_bucket_lifecycle_configuration", ""},
	"aws:s3/bucketOwnershipControls:BucketOwnershipControls":                                     {"aws_s3_bucket_ownership_controls", ""},
	"aws:s3/bucketPolicy:BucketPolicy":                                                           {"aws_s3_bucket_policy", ""},
	"aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock":                                     {"aws_s3_bucket_public_access_block", ""},
	"aws:s3/bucketServerSideEncryptionConfigurationV2:BucketServerSideEncryptionConfigurationV2": {"aws_s3_bucket_server_side_encryption_configuration", ""},
	"aws:s3/bucketV2:BucketV2":                                                                   {"aws_s3_bucket", "bucket"},
	"aws:sns/topic:Topic":                                                                        {"aws_sns_topic", "name"},
	"aws:sns/topicSubscription:TopicSubscription":                                                {"aws_sns_topic_subscription", ""},
	"aws:sqs/queue:Queue":                                                                        {"aws_sqs_queue", "name"},
	"aws:sqs/queuePolicy:QueuePolicy":                                                            {"aws_sqs_queue_policy", ""},
	"aws:sqs/redriveAllowPolicy:RedriveAllowPolicy":                                              {"aws_sqs_queue_redrive_allow_policy", ""},
}

// terraform runs the real provider in a folder, against an endpoint.
type terraform struct {
	t   *testing.T
	dir string
	env []string
}

func (f *terraform) run(args ...string) (string, error) {
	cmd := exec.CommandContext(f.t.Context(), "terraform", args...)
	var out, warnings bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = f.dir, f.env, &out, &warnings
	err := cmd.Run()
	if err != nil {
		out.Write(warnings.Bytes())
	}
	return out.String(), err
}

func (f *terraform) must(args ...string) string {
	f.t.Helper()
	out, err := f.run(args...)
	if err != nil {
		f.t.Fatalf("terraform %s: %v\n%s", args[0], err, out)
	}
	return out
}

// block is a part of the provider's schema.
type block struct {
	Attributes map[string]any
	BlockTypes map[string]struct{ Block block } `json:"block_types"`
}

// convert turns inputs of Pulumi into arguments of the provider, whose names it finds in
// the schema: lists of blocks have a plural in Pulumi.
func (b block) convert(inputs map[string]any) (map[string]any, error) {
	out := map[string]any{}
	for key, v := range inputs {
		name := snake(key)
		singular := strings.TrimSuffix(name, "s")
		if stem, ok := strings.CutSuffix(name, "ies"); ok {
			singular = stem + "y"
		}
		at := ""
		for _, try := range []string{name, singular} {
			_, attribute := b.Attributes[try]
			_, nested := b.BlockTypes[try]
			if at == "" && (attribute || nested) {
				at = try
			}
		}
		if at == "" {
			return nil, fmt.Errorf("the provider has no argument %s", name)
		}
		nested, ok := b.BlockTypes[at]
		if !ok {
			out[at] = v
			continue
		}
		list, isList := v.([]any)
		if !isList {
			list = []any{v}
		}
		var converted []any
		for _, item := range list {
			one, err := nested.Block.convert(item.(map[string]any))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", at, err)
			}
			converted = append(converted, one)
		}
		out[at] = converted
	}
	return out, nil
}

func snake(camel string) string {
	var b strings.Builder
	for _, r := range camel {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// TestProvider gives the inputs that the program registers to the provider that Pulumi's aws plugin is made of: it
// validates them, makes the resources in a moto server, finds nothing left to change, and deletes them. TF_PLUGIN_DIR
// names a folder with the provider, where it cannot be downloaded.
//
// The requests that it makes are the rights that a deployer needs: with UPDATE=1 the test
// writes deploy/deployer-policy.json.
func TestProvider(t *testing.T) {
	moto := os.Getenv("MOTO_ENDPOINT")
	switch _, err := exec.LookPath("terraform"); {
	case err != nil:
		t.Skip("the provider was not checked: terraform is not on the PATH")
	case moto == "":
		t.Skip("the provider was not checked: MOTO_ENDPOINT is not set, there is no moto server to apply to")
	}
	shim := startShim(t, moto)
	f := &terraform{t: t, dir: t.TempDir(), env: append(os.Environ(), "AWS_ENDPOINT_URL="+shim.url, "AWS_REGION=us-east-2",
		"AWS_ACCESS_KEY_ID=check", "AWS_SECRET_ACCESS_KEY=check-placeholder-secret", "AWS_EC2_METADATA_DISABLED=true",
		"CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1")}
	write(t, f.dir, "provider.tf.json", map[string]any{
		"terraform": map[string]any{"required_providers": map[string]any{
			"aws": map[string]any{"source": "hashicorp/aws", "version": "~> 5.100"}}},
		"provider": map[string]any{"aws": map[string]any{"s3_use_path_style": true, "max_retries": 3}},
	})
	initialise := []string{"init", "-no-color", "-input=false"}
	if dir := os.Getenv("TF_PLUGIN_DIR"); dir != "" {
		initialise = append(initialise, "-plugin-dir="+dir)
	}
	if out, err := f.run(initialise...); err != nil {
		t.Skipf("the provider was not checked: terraform does not find the provider hashicorp/aws 5.100; TF_PLUGIN_DIR names a folder that has it\n%s", out)
	}
	t.Cleanup(func() { // what a test that failed has made; t's context has ended
		cmd := exec.Command("terraform", "destroy", "-no-color", "-auto-approve", "-input=false")
		cmd.Dir, cmd.Env = f.dir, f.env
		_ = cmd.Run()
	})
	var schemas struct {
		Providers map[string]struct {
			Resources map[string]struct{ Block block } `json:"resource_schemas"`
		} `json:"provider_schemas"`
	}
	if err := json.Unmarshal([]byte(f.must("providers", "schema", "-json")), &schemas); err != nil {
		t.Fatal(err)
	}
	resources := schemas.Providers["registry.terraform.io/hashicorp/aws"].Resources
	for _, variant := range slices.Sorted(maps.Keys(variants)) {
		config := maps.Clone(variants[variant])
		if variant == "fleet" { // ECS asks whether the subnets are there
			config["fleetSubnets"] = fmt.Sprintf("[%q]", motoSubnet(t, moto))
		}
		all := map[string]map[string]any{}
		count := 0
		// Each has names of its own: moto keeps the tags of what was deleted.
		d, err := try(t, repository(t, "chess", "maze"), variant, config)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range d.resources {
			tf, ok := terraformTypes[r.Type]
			switch {
			case !r.Custom || strings.HasPrefix(r.Type, "docker:") || strings.HasPrefix(r.Type, "pulumi:"):
				continue
			case !ok:
				t.Errorf("the provider's name of %s is not known here", r.Type)
				continue
			}
			arguments, err := resources[tf[0]].Block.convert(renamed(tf[0], r.Inputs))
			if err != nil {
				t.Errorf("%s %s: %v", tf[0], r.Name, err)
				continue
			}
			if tf[1] != "" && arguments[tf[1]] == nil {
				arguments[tf[1]] = r.Name + "-0123abc"
			}
			var waits []string
			for _, w := range r.Waits {
				kind, name, _ := strings.Cut(w, " ")
				if tf, ok := terraformTypes[kind]; ok {
					waits = append(waits, tf[0]+"."+name)
				}
			}
			if len(waits) > 0 {
				arguments["depends_on"] = slices.Compact(slices.Sorted(slices.Values(waits)))
			}
			if all[tf[0]] == nil {
				all[tf[0]] = map[string]any{}
			}
			all[tf[0]][r.Name] = arguments
			count++
		}
		write(t, f.dir, "stack.tf.json", map[string]any{"resource": all})
		f.must("validate", "-no-color")
		f.must("apply", "-no-color", "-auto-approve", "-input=false")
		changed := ""
		if out, err := f.run("plan", "-no-color", "-detailed-exitcode", "-input=false"); err != nil {
			changed = "NOT "
			t.Errorf("%s: a second plan is not empty: %v\n%s", variant, err, out)
		}
		out := f.must("destroy", "-no-color", "-auto-approve", "-input=false")
		if want := fmt.Sprintf("%d destroyed", count); !strings.Contains(out, want) {
			t.Errorf("%s: not %s: %s", variant, want, out)
		}
		t.Logf("%s: %d resources validated, applied, %splanned without changes, and destroyed", variant, count, changed)
	}
	shim.checkPolicy(t)
}

// motoSubnet is a subnet of moto's default VPC.
func motoSubnet(t *testing.T, moto string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, moto,
		strings.NewReader("Action=DescribeSubnets&Version=2016-11-15"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=check/20260101/us-east-2/ec2/aws4_request, SignedHeaders=host, Signature=0")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	_, after, _ := strings.Cut(string(text), "<subnetId>")
	id, _, found := strings.Cut(after, "</subnetId>")
	if err != nil || !found {
		t.Fatalf("moto has no subnet: %v: %s", err, text)
	}
	return id
}

// renamed has the arguments that Pulumi calls otherwise than the provider.
func renamed(kind string, inputs map[string]any) map[string]any {
	out := map[string]any{}
	for key, v := range inputs {
		if kind == "aws_lambda_function" && key == "name" {
			key = "functionName"
		}
		if kind == "aws_sns_topic_subscription" && key == "topic" {
			key = "topicArn"
		}
		out[key] = v
	}
	return out
}

func write(t *testing.T, dir, name string, v any) {
	t.Helper()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}
