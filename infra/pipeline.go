package infra

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/iam"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/rights"
	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Program is the Pulumi program, run in the repository's folder.
func Program(ctx *pulumi.Context) error {
	c, err := LoadConfig(ctx)
	if err != nil {
		return err
	}
	if err := checkDocker(ctx.Context(), dockerHost(ctx)); err != nil {
		return err
	}
	p, err := NewPipeline(ctx, c.Name, ".", c)
	if err != nil {
		return err
	}
	for name, value := range p.Outputs {
		ctx.Export(name, value)
	}
	return nil
}

// Pipeline is a complete stack.
type Pipeline struct {
	pulumi.ResourceState

	Outputs pulumi.Map // the stack outputs, by the names of infra/stack
}

// NewPipeline registers everything a stack has. Root is the repository's folder, relative to the program's: an absolute
// path would make two machines disagree about the image. It fails before it registers anything when there are no
// generators below root, when the image cannot be built from them, and when the account does not take the settings.
func NewPipeline(ctx *pulumi.Context, name, root string, c *Config,
	opts ...pulumi.ResourceOption) (_ *Pipeline, err error) {
	defer caught(&err)
	commits, locks, err := generatorsIn(ctx, filepath.Join(root, "generators"))
	if err != nil {
		return nil, err
	}
	for _, file := range ignoreFiles {
		if err := checkSources(root, file, ctx.DryRun()); err != nil {
			return nil, err
		}
	}
	a := must(askAccount(ctx, c))
	p := &Pipeline{}
	child := register(ctx, "Pipeline", name, p, opts)
	storage := must(NewStorage(ctx, name+"-data", c, child))
	queue := must(NewQueue(ctx, name+"-tasks", c, child))
	image := must(NewImage(ctx, name+"-image", root, commits, a, c, child))
	function := must(NewFunction(ctx, name+"-worker", storage, queue, image, a, c, child))
	watch := must(NewObservability(ctx, name+"-watch", queue, function, a, c, child))
	p.Outputs = pulumi.Map{
		stack.OutQueueURL:             queue.Tasks.Url,
		stack.OutDLQURL:               queue.DLQ.Url,
		stack.OutQueueARN:             queue.Tasks.Arn,
		stack.OutDLQARN:               queue.DLQ.Arn,
		stack.OutBucketName:           storage.BucketName,
		stack.OutFunctionName:         function.Name,
		stack.OutFunctionARN:          function.ARN,
		stack.OutImageURI:             image.URI,
		stack.OutRepositoryURL:        image.RepositoryURL,
		stack.OutLogGroupName:         function.LogGroup,
		stack.OutEventSourceMappingID: function.MappingID,
		stack.OutDashboardURL:         watch.DashboardURL,
		stack.OutRegion:               pulumi.String(a.region),
		stack.OutAccountID:            pulumi.String(a.id),
		stack.OutArchitecture:         pulumi.String(c.Architecture),
		stack.OutMemoryMB:             pulumi.Int(c.MemoryMB),
		stack.OutDataPrefix:           pulumi.String(task.DefaultDataset.Prefix(task.DataKind)),
		stack.OutGenerators:           pulumi.ToStringMap(commits),
		stack.OutLocks:                pulumi.ToStringMap(locks),
		stack.OutRequiredFiles:        pulumi.ToStringArray(c.RequiredFiles),
		stack.OutFleetWorkers:         pulumi.Int(c.FleetMaxWorkers),
		stack.OutRetainData:           pulumi.Bool(c.RetainData),
	}
	if c.FleetMaxWorkers > 0 {
		must(NewFleet(ctx, name+"-fleet", root, storage, queue, image, function, p.Outputs, a, c, child))
	}
	return p, ctx.RegisterResourceOutputs(p, p.Outputs)
}

// generatorsIn returns the commit of every generator in a folder, and the hash of the lock of those that have one. The
// commits are baked into the image, whose build sees no git.
func generatorsIn(ctx *pulumi.Context, folder string) (commits, locks map[string]string, err error) {
	found, err := generator.Discover(folder)
	if err != nil {
		return nil, nil, err
	}
	commits, locks = map[string]string{}, map[string]string{}
	for _, g := range found {
		if g.Problem != "" {
			if err := ctx.Log.Warn(fmt.Sprintf("generator %s will not work: %s", g.Name, g.Problem), nil); err != nil {
				return nil, nil, err
			}
		}
		if task.CheckName(g.Name) != nil || g.Network { // it is in no image
			continue
		}
		commits[g.Name] = g.Commit
		lock, err := environment.Locked(folder, &g)
		if err != nil {
			return nil, nil, err
		}
		if lock != "" {
			locks[g.Name] = lock
		}
	}
	if len(commits) == 0 {
		return nil, nil, errors.New("there is no generator in " + folder + ": each is a folder with examples/generate.py")
	}
	return commits, locks, nil
}

type failure struct{ error }

// must returns what was made, or ends the constructor that calls it with the error.
func must[T any](made T, err error) T {
	if err != nil {
		panic(failure{err})
	}
	return made
}

// caught makes the error that ended a constructor its result: each defers it.
func caught(err *error) {
	switch p := recover().(type) {
	case nil:
	case failure:
		*err = p.error
	default:
		panic(p)
	}
}

// register registers a component of a kind and returns the option that its resources have.
func register(ctx *pulumi.Context, kind, name string, c pulumi.ComponentResource,
	opts []pulumi.ResourceOption) pulumi.ResourceOrInvokeOption {
	if err := ctx.RegisterComponentResource("vm-dataset:infra:"+kind, name, c, opts...); err != nil {
		panic(failure{err})
	}
	return pulumi.Parent(c)
}

// newRole registers a role that a service of AWS takes, and its policy.
func newRole(ctx *pulumi.Context, name, sid, service, description string, c *Config, child pulumi.ResourceOption,
	may func(arns []string) []rights.Statement, arns ...pulumi.StringInput) (*iam.Role, *iam.RolePolicy) {
	args := &iam.RoleArgs{Description: pulumi.String(description), Tags: pulumi.ToStringMap(c.Tags),
		AssumeRolePolicy: pulumi.String(marshal(rights.Document(rights.Statement{Sid: sid, Effect: rights.Allow,
			Principal: map[string]string{"Service": service}, Action: []string{"sts:AssumeRole"}})))}
	if c.PermissionsBoundary != "" {
		args.PermissionsBoundary = pulumi.String(c.PermissionsBoundary)
	}
	role := must(iam.NewRole(ctx, name, args, child))
	return role, must(iam.NewRolePolicy(ctx, name,
		&iam.RolePolicyArgs{Role: role.Name, Policy: policy(may, arns...)}, child))
}

// work is what a worker may do, with the ARNs of its bucket, queue, DLQ and log group.
func work(arns []string) []rights.Statement { return rights.Worker(arns[0], arns[1], arns[2], arns[3]) }

// policy makes a document of ARNs that are known when their resources exist.
func policy(statements func(arns []string) []rights.Statement, arns ...pulumi.StringInput) pulumi.StringOutput {
	return pulumi.StringArray(arns).ToStringArrayOutput().ApplyT(func(known []string) string {
		return marshal(rights.Document(statements(known)...))
	}).(pulumi.StringOutput)
}

// tlsOnly is the policy of a bucket or queue that refuses everybody who does not
// come through TLS, and grants nothing. Below names what is in the resource.
func tlsOnly(service, below string, arn pulumi.StringInput) pulumi.StringOutput {
	return policy(func(arns []string) []rights.Statement {
		resources := arns
		if below != "" {
			resources = append(resources, arns[0]+below)
		}
		return []rights.Statement{{
			Sid: "TLSOnly", Effect: rights.Deny, Principal: map[string]string{"AWS": "*"}, Action: []string{service + ":*"},
			Resource:  resources,
			Condition: map[string]map[string][]string{"Bool": {"aws:SecureTransport": {"false"}}},
		}}
	}, arn)
}

// marshal writes a document that AWS takes as JSON.
func marshal(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return string(text)
}
