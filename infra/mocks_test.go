package infra_test

import (
	"cmp"
	"encoding/json"
	"errors"
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
	Waits        []string // the same, as "type name"
	Import       string   // the id of what it takes over
	DeleteTime   string   // that deleting it may take
}

// deployment is what the program registered. It stands in for the engine and
// the providers, and computes what they would.
type deployment struct {
	mu        sync.Mutex
	resources []registered
	outputs   map[string]any
	quota     float64 // workers that the account may have at once; 0 refuses to say
	region    string
	bucket    string // that the stack has already; "" is new
	digest    string // that Docker answers
	preview   bool   // and not up
	finished  int    // components, and the stack, that registered their outputs
}

func (d *deployment) NewResource(args pulumi.MockResourceArgs) (string, resource.PropertyMap, error) {
	rpc := args.RegisterRPC
	r := registered{Type: args.TypeToken, Name: args.Name, Custom: args.Custom, Inputs: args.Inputs.Mappable(),
		Retain: rpc.GetRetainOnDelete(), Ignores: rpc.GetIgnoreChanges(), Import: rpc.GetImportId(),
		DeleteTime: rpc.GetCustomTimeouts().GetDelete()}
	if parent := resource.URN(rpc.GetParent()); parent != "" && parent.QualifiedType() != resource.RootStackType {
		r.Parent = parent.Name()
	}
	for _, urn := range rpc.GetDependencies() {
		r.Dependencies = append(r.Dependencies, string(resource.URN(urn).Type()))
		r.Waits = append(r.Waits, string(resource.URN(urn).Type())+" "+resource.URN(urn).Name())
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
		physical = cmp.Or(d.bucket, physical)
		computed = map[string]string{"bucket": physical, "arn": "arn:aws:s3:::" + physical}
	case "aws:sqs/queue:Queue":
		computed["arn"], computed["url"] = arn("sqs", physical), "https://sqs.us-east-2.amazonaws.com/123456789012/"+physical
	case "aws:ecr/repository:Repository":
		computed["registryId"], computed["repositoryUrl"] = "123456789012", "123456789012.dkr.ecr.us-east-2.amazonaws.com/"+
			physical
		computed["arn"] = arn("ecr", "repository/"+physical)
	case "docker:index/image:Image":
		uri := args.Inputs["imageName"].StringValue()
		computed["repoDigest"] = uri[:strings.LastIndex(uri, ":")] + "@" + d.digest
	case "aws:ecs/cluster:Cluster", "aws:ecs/service:Service":
		computed["arn"] = arn("ecs", strings.ToLower(args.TypeToken[strings.LastIndex(args.TypeToken, ":")+1:])+"/"+physical)
	case "aws:ecs/taskDefinition:TaskDefinition":
		computed["arn"] = arn("ecs", "task-definition/"+args.Inputs["family"].StringValue()+":1")
	case "aws:appautoscaling/policy:Policy":
		computed["arn"] = arn("autoscaling", "scalingPolicy:"+physical)
	case "aws:cloudwatch/logGroup:LogGroup":
		computed["arn"] = arn("logs", "log-group:"+physical)
	case "aws:iam/role:Role":
		computed["arn"] = "arn:aws:iam::123456789012:role/" + physical
	case "aws:lambda/function:Function":
		computed["arn"], computed["version"] = arn("lambda", "function:"+physical), "1"
	case "aws:lambda/alias:Alias":
		computed["arn"] = arn("lambda", "function:"+args.Inputs["functionName"].StringValue()+":"+
			args.Inputs["name"].StringValue())
		delete(computed, "name")
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
		"aws:index/getRegion:getRegion":                       {"name": d.region},
		"aws:ecr/getAuthorizationToken:getAuthorizationToken": {"userName": "AWS", "password": "token"},
		"aws:servicequotas/getServiceQuota:getServiceQuota":   {"value": d.quota},
		"pulumi:pulumi:readStackOutputs":                      {"outputs": d.state()},
	}
	if args.Token == "aws:servicequotas/getServiceQuota:getServiceQuota" && d.quota == 0 {
		return nil, errors.New("not authorized to perform servicequotas:GetServiceQuota")
	}
	answer, ok := answers[args.Token]
	if !ok {
		return nil, fmt.Errorf("the program calls %s", args.Token)
	}
	return resource.NewPropertyMapFromMap(answer), nil
}

// state is the outputs that the stack has already, as the engine answers.
func (d *deployment) state() map[string]any {
	if d.bucket == "" {
		return map[string]any{}
	}
	return map[string]any{"bucketName": d.bucket}
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
	for _, name := range []string{".dockerignore", "deploy/Dockerfile.dockerignore"} {
		text, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const digest = "sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// usual is an account as most are.
func usual() *deployment { return &deployment{quota: 1000, region: "us-east-2", digest: digest} }

// try deploys a stack with a configuration, given as the CLI gives it.
func try(t *testing.T, root, stack string, config map[string]string) (*deployment, error) {
	t.Helper()
	d := usual()
	return d, d.deploy(t, root, stack, config)
}

// deploy deploys to an account. Keys without a namespace are the project's.
func (d *deployment) deploy(t *testing.T, root, stack string, config map[string]string) error {
	t.Helper()
	all := map[string]string{"aws:region": d.region}
	for key, value := range config {
		if !strings.HasPrefix(key, "aws:") {
			key = project + ":" + key
		}
		all[key] = value
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(pulumi.EnvConfig, string(text))
	return pulumi.RunErr(func(ctx *pulumi.Context) error {
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
	}, pulumi.WithMocks(project, stack, d), func(i *pulumi.RunInfo) { i.DryRun = d.preview })
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
