package infra

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

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
