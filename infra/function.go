package infra

import (
	"strings"

	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/cloudwatch"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/iam"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/lambda"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/rights"
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
	opts ...pulumi.ResourceOption) (*Function, error) {
	f := &Function{}
	if err := ctx.RegisterComponentResource("vm-dataset:infra:Function", name, f, opts...); err != nil {
		return nil, err
	}
	child := pulumi.Parent(f)
	tags := pulumi.ToStringMap(c.Tags)
	// Lambda would make a log group of its own, which keeps everything for ever.
	logs, err := cloudwatch.NewLogGroup(ctx, name,
		&cloudwatch.LogGroupArgs{RetentionInDays: pulumi.Int(c.LogRetentionDays), Tags: tags}, child)
	if err != nil {
		return nil, err
	}
	trust, err := marshal(rights.Document(rights.Statement{
		Sid: "Lambda", Effect: rights.Allow, Principal: map[string]string{"Service": "lambda.amazonaws.com"},
		Action: []string{"sts:AssumeRole"},
	}))
	if err != nil {
		return nil, err
	}
	roleArgs := &iam.RoleArgs{
		Description: pulumi.String("What the worker of " + c.Name + " may do"), AssumeRolePolicy: pulumi.String(trust),
		Tags: tags,
	}
	if c.PermissionsBoundary != "" {
		roleArgs.PermissionsBoundary = pulumi.String(c.PermissionsBoundary)
	}
	role, err := iam.NewRole(ctx, name, roleArgs, child)
	if err != nil {
		return nil, err
	}
	allowed, err := iam.NewRolePolicy(ctx, name, &iam.RolePolicyArgs{
		Role: role.Name, Policy: policy(func(arns []string) []rights.Statement {
			return rights.Worker(arns[0], arns[1], arns[2], arns[3])
		}, s.BucketARN, q.Tasks.Arn, q.DLQ.Arn, logs.Arn),
	}, child)
	if err != nil {
		return nil, err
	}
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
	function, err := lambda.NewFunction(ctx, name, functionArgs, child,
		pulumi.DependsOn([]pulumi.Resource{allowed, image.pull}))
	if err != nil {
		return nil, err
	}
	// Workers run the version that the alias names, so the image that receipts record is the one that ran.
	alias, err := lambda.NewAlias(ctx, name, &lambda.AliasArgs{
		Name: pulumi.String(stack.Alias), FunctionName: function.Name, FunctionVersion: function.Version,
		Description: pulumi.String("The version that works on the queue"),
	}, child)
	if err != nil {
		return nil, err
	}
	first := []pulumi.Resource{allowed}
	if a.partition == partitionAWS { // the others know no loops
		// A continuation goes back to the function's own queue. Lambda takes that for a loop after 16 rounds and stops it;
		// ours end, for each has fewer chunks to make than the one before.
		recursion, err := lambda.NewFunctionRecursionConfig(ctx, name, &lambda.FunctionRecursionConfigArgs{
			FunctionName: function.Name, RecursiveLoop: pulumi.String("Allow"),
		}, child)
		if err != nil {
			return nil, err
		}
		first = append(first, recursion)
	}
	f.Name, f.ARN, f.LogGroup, f.logGroupARN = function.Name, alias.Arn, logs.Name, logs.Arn
	if !c.Lambda {
		f.MappingID = pulumi.String("").ToStringOutput()
		return f, f.complete(ctx)
	}
	mapping, err := lambda.NewEventSourceMapping(ctx, name, &lambda.EventSourceMappingArgs{
		EventSourceArn: q.Tasks.Arn, FunctionName: alias.Arn,
		BatchSize:             pulumi.Int(1),
		FunctionResponseTypes: pulumi.StringArray{pulumi.String("ReportBatchItemFailures")},
		ScalingConfig:         &lambda.EventSourceMappingScalingConfigArgs{MaximumConcurrency: pulumi.Int(c.MaxConcurrency)},
		Enabled:               pulumi.Bool(true),
		Tags:                  tags,
	}, child,
		pulumi.DependsOn(first), pulumi.IgnoreChanges([]string{"enabled"})) // a queue that was paused stays paused
	if err != nil {
		return nil, err
	}
	f.MappingID = mapping.Uuid
	return f, f.complete(ctx)
}

func (f *Function) complete(ctx *pulumi.Context) error {
	return ctx.RegisterResourceOutputs(f, pulumi.Map{"name": f.Name, "arn": f.ARN, "logGroup": f.LogGroup,
		"mappingId": f.MappingID})
}
