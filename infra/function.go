package infra

import (
	"strings"

	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/cloudwatch"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/lambda"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
)

// Function is the worker in Lambda, fed from the task queue.
type Function struct {
	pulumi.ResourceState

	Name      pulumi.StringOutput
	ARN       pulumi.StringOutput // of the alias that the workers are started by
	LogGroup  pulumi.StringOutput // name
	MappingID pulumi.StringOutput // "" if it takes no tasks

	logGroupARN pulumi.StringOutput
}

// NewFunction registers the function with its role, its log group, and the mapping that gives it the queue's messages.
func NewFunction(ctx *pulumi.Context, name string, s *Storage, q *Queue, image *Image, a account, c *Config,
	opts ...pulumi.ResourceOption) (_ *Function, err error) {
	defer caught(&err)
	f := &Function{}
	child := register(ctx, "Function", name, f, opts)
	tags := pulumi.ToStringMap(c.Tags)
	// Lambda would make a log group of its own, which keeps everything for ever.
	logs := must(cloudwatch.NewLogGroup(ctx, name,
		&cloudwatch.LogGroupArgs{RetentionInDays: pulumi.Int(c.LogRetentionDays), Tags: tags}, child))
	role, allowed := newRole(ctx, name, "Lambda", "lambda.amazonaws.com", "What the worker of "+c.Name+" may do", c, child,
		work, s.BucketARN, q.Tasks.Arn, q.DLQ.Arn, logs.Arn)
	environment := pulumi.StringMap{
		stack.EnvBucket: s.BucketName, stack.EnvQueueURL: q.Tasks.Url, stack.EnvDLQURL: q.DLQ.Url, stack.EnvImage: image.URI,
	}
	if len(c.RequiredFiles) > 0 {
		environment[stack.EnvRequiredFiles] = pulumi.String(strings.Join(c.RequiredFiles, ","))
	}
	functionArgs := &lambda.FunctionArgs{
		PackageType: pulumi.String("Image"), ImageUri: image.URI, Role: role.Arn,
		Architectures:    pulumi.StringArray{pulumi.String(c.Architecture)},
		MemorySize:       pulumi.Int(c.MemoryMB),
		Timeout:          pulumi.Int(c.TimeoutSeconds),
		EphemeralStorage: &lambda.FunctionEphemeralStorageArgs{Size: pulumi.Int(c.EphemeralStorageMB)},
		Environment:      &lambda.FunctionEnvironmentArgs{Variables: environment},
		// The worker writes JSON lines, metrics among them: they must arrive as they are.
		LoggingConfig: &lambda.FunctionLoggingConfigArgs{LogFormat: pulumi.String("Text"), LogGroup: logs.Name},
		Tags:          tags,
		// An update changes the configuration first and the image after, or not at all if
		// that fails. A version is published when both are done, and never changes.
		Publish: pulumi.Bool(true),
	}
	if c.Lambda && c.ReservedConcurrency > 0 {
		functionArgs.ReservedConcurrentExecutions = pulumi.Int(c.ReservedConcurrency)
	}
	function := must(lambda.NewFunction(ctx, name, functionArgs, child,
		pulumi.DependsOn([]pulumi.Resource{allowed, image.pull})))
	// Workers run the version that the alias names, so the image that receipts record is the one that ran.
	alias := must(lambda.NewAlias(ctx, name, &lambda.AliasArgs{
		Name: pulumi.String(stack.Alias), FunctionName: function.Name, FunctionVersion: function.Version,
		Description: pulumi.String("The version that works on the queue"),
	}, child))
	first := []pulumi.Resource{allowed}
	if a.partition == partitionAWS { // the others know no loops
		// A continuation goes back to the function's own queue. Lambda takes that for a loop after 16 rounds and stops it;
		// ours end, for each has fewer chunks to make than the one before.
		recursion := must(lambda.NewFunctionRecursionConfig(ctx, name, &lambda.FunctionRecursionConfigArgs{
			FunctionName: function.Name, RecursiveLoop: pulumi.String("Allow"),
		}, child))
		first = append(first, recursion)
	}
	f.Name, f.ARN, f.LogGroup, f.logGroupARN = function.Name, alias.Arn, logs.Name, logs.Arn
	f.MappingID = pulumi.String("").ToStringOutput()
	if c.Lambda {
		f.MappingID = must(lambda.NewEventSourceMapping(ctx, name, &lambda.EventSourceMappingArgs{
			EventSourceArn: q.Tasks.Arn, FunctionName: alias.Arn,
			BatchSize:             pulumi.Int(1),
			FunctionResponseTypes: pulumi.StringArray{pulumi.String("ReportBatchItemFailures")},
			ScalingConfig:         &lambda.EventSourceMappingScalingConfigArgs{MaximumConcurrency: pulumi.Int(c.MaxConcurrency)},
			Enabled:               pulumi.Bool(true),
			Tags:                  tags,
		}, child, pulumi.DependsOn(first),
			pulumi.IgnoreChanges([]string{"enabled"}))).Uuid // a queue that was paused stays paused
	}
	return f, ctx.RegisterResourceOutputs(f, pulumi.Map{"name": f.Name, "arn": f.ARN, "logGroup": f.LogGroup,
		"mappingId": f.MappingID})
}
