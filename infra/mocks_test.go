package infra_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vm-dataset/vm-dataset-pipeline/infra"
)

const project, stackName, name = "vm-dataset", "dev", "vm-dataset-dev"

// registered is one resource as the engine gets it.
type registered struct {
	Type, Name   string
	Parent       string // name; "" is the stack
	Custom       bool
	Inputs       map[string]any
	Retain       bool
	Ignores      []string
	Dependencies []string // types of the resources it waits for
}

// deployment is what the program registered. It stands in for the engine and
// the providers, and computes what they would.
type deployment struct {
	mu        sync.Mutex
	resources []registered
	outputs   map[string]any
	finished  int // components, and the stack, that registered their outputs
}

func (d *deployment) NewResource(args pulumi.MockResourceArgs) (string, resource.PropertyMap, error) {
	rpc := args.RegisterRPC
	r := registered{Type: args.TypeToken, Name: args.Name, Custom: args.Custom, Inputs: args.Inputs.Mappable(),
		Retain: rpc.GetRetainOnDelete(), Ignores: rpc.GetIgnoreChanges()}
	if parent := resource.URN(rpc.GetParent()); parent != "" && parent.QualifiedType() != resource.RootStackType {
		r.Parent = parent.Name()
	}
	for _, urn := range rpc.GetDependencies() {
		r.Dependencies = append(r.Dependencies, string(resource.URN(urn).Type()))
	}
	d.mu.Lock()
	d.resources = append(d.resources, r)
	d.mu.Unlock()

	physical := args.Name + "-0123abc" // as the providers make names
	arn := func(service, rest string) string { return "arn:aws:" + service + ":us-east-2:123456789012:" + rest }
	computed := map[string]string{"name": physical}
	switch args.TypeToken {
	case "aws:s3/bucketV2:BucketV2":
		if given, ok := args.Inputs["bucket"]; ok {
			physical = given.StringValue()
		}
		computed = map[string]string{"bucket": physical, "arn": "arn:aws:s3:::" + physical}
	case "aws:sqs/queue:Queue":
		computed["arn"], computed["url"] = arn("sqs", physical), "https://sqs.us-east-2.amazonaws.com/123456789012/"+physical
	case "aws:ecr/repository:Repository":
		computed["registryId"], computed["repositoryUrl"] = "123456789012", "123456789012.dkr.ecr.us-east-2.amazonaws.com/"+
			physical
	case "docker:index/image:Image":
		computed["repoDigest"] = strings.TrimSuffix(args.Inputs["imageName"].StringValue(), ":latest") + "@sha256:feed"
	case "aws:cloudwatch/logGroup:LogGroup":
		computed["arn"] = arn("logs", "log-group:"+physical)
	case "aws:iam/role:Role":
		computed["arn"] = "arn:aws:iam::123456789012:role/" + physical
	case "aws:lambda/function:Function":
		computed["arn"] = arn("lambda", "function:"+physical)
	case "aws:lambda/eventSourceMapping:EventSourceMapping":
		computed["uuid"] = "00000000-0000-4000-8000-000000000000"
	case "aws:sns/topic:Topic":
		computed["arn"] = arn("sns", physical)
	}
	state := args.Inputs.Copy()
	for key, value := range computed {
		state[resource.PropertyKey(key)] = resource.NewStringProperty(value)
	}
	return physical, state, nil
}

func (d *deployment) Call(args pulumi.MockCallArgs) (resource.PropertyMap, error) {
	answers := map[string]map[string]any{
		"aws:index/getCallerIdentity:getCallerIdentity":       {"accountId": "123456789012"},
		"aws:index/getRegion:getRegion":                       {"name": "us-east-2"},
		"aws:ecr/getAuthorizationToken:getAuthorizationToken": {"userName": "AWS", "password": "token"},
	}
	answer, ok := answers[args.Token]
	if !ok {
		return nil, fmt.Errorf("the program calls %s", args.Token)
	}
	return resource.NewPropertyMapFromMap(answer), nil
}

func (d *deployment) RegisterResourceOutputs() (*emptypb.Empty, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finished++
	return &emptypb.Empty{}, nil
}

// repository makes a folder with generators, in no git.
func repository(t *testing.T, generators ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, g := range generators {
		file := filepath.Join(root, "generators", g, "examples", "generate.py")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// try deploys a stack with a configuration, given as the CLI gives it.
func try(t *testing.T, root, stack string, config map[string]string) (*deployment, error) {
	t.Helper()
	all := map[string]string{"aws:region": "us-east-2"}
	for key, value := range config {
		all[project+":"+key] = value
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(pulumi.EnvConfig, string(text))
	d := &deployment{}
	return d, pulumi.RunErr(func(ctx *pulumi.Context) error {
		c, err := infra.LoadConfig(ctx)
		if err != nil {
			return err
		}
		p, err := infra.NewPipeline(ctx, c.Name, root, c)
		if err != nil {
			return err
		}
		p.Outputs.ToMapOutput().ApplyT(func(outputs map[string]any) error {
			d.outputs = outputs
			return nil
		})
		return nil
	}, pulumi.WithMocks(project, stack, d))
}

func deploy(t *testing.T, config map[string]string) *deployment {
	t.Helper()
	d, err := try(t, repository(t, "chess", "maze"), stackName, config)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// all returns the resources of a type, such as "aws:sqs/queue:Queue".
func (d *deployment) all(kind string) (list []registered) {
	for _, r := range d.resources {
		if r.Type == kind {
			list = append(list, r)
		}
	}
	return list
}

// the returns the resource of a type and name.
func (d *deployment) the(t *testing.T, kind, name string) registered {
	t.Helper()
	for _, r := range d.all(kind) {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("there is no %s called %s", kind, name)
	return registered{}
}

// at follows a path such as "rules.0.expiration.days" into the inputs.
func (r registered) at(path string) any {
	var v any = r.Inputs
	for key := range strings.SplitSeq(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[key]
		case []any:
			i := 0
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

// want compares inputs, numbers as Pulumi has them: float64.
func (r registered) want(t *testing.T, inputs map[string]any) {
	t.Helper()
	for path, want := range inputs {
		if got := r.at(path); fmt.Sprintf("%T %[1]v", got) != fmt.Sprintf("%T %[1]v", want) {
			t.Errorf("%s %s: %s is %T %[4]v, want %T %[5]v", r.Type, r.Name, path, got, want)
		}
	}
}
