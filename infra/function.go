package infra

import (
	"strings"

	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/cloudwatch"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/iam"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/lambda"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Function is the worker in Lambda, fed from the task queue.
type Function struct {
	pulumi.ResourceState

	Name      pulumi.StringOutput
	ARN       pulumi.StringOutput
	LogGroup  pulumi.StringOutput // name
	MappingID pulumi.StringOutput
}

// NewFunction registers the function with its role, its log group, and the
// mapping that gives it the queue's messages.
func NewFunction(ctx *pulumi.Context, name string, s *Storage, q *Queue, image *Image, c *Config,
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
	trust, err := marshal(document{"2012-10-17", []statement{{
		Sid: "Lambda", Effect: allow, Principal: map[string]string{"Service": "lambda.amazonaws.com"},
		Action: []string{"sts:AssumeRole"},
	}}})
	if err != nil {
		return nil, err
	}
	role, err := iam.NewRole(ctx, name, &iam.RoleArgs{
		Description: pulumi.String("What the worker of " + c.Name + " may do"), AssumeRolePolicy: pulumi.String(trust),
		Tags: tags,
	}, child)
	if err != nil {
		return nil, err
	}
	rights, err := iam.NewRolePolicy(ctx, name, &iam.RolePolicyArgs{
		Role: role.Name, Policy: policy(workerRights, s.BucketARN, q.Tasks.Arn, q.DLQ.Arn, logs.Arn),
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
	function, err := lambda.NewFunction(ctx, name, &lambda.FunctionArgs{
		PackageType: pulumi.String("Image"), ImageUri: image.URI, Role: role.Arn,
		Architectures:    pulumi.StringArray{pulumi.String(c.Architecture)},
		MemorySize:       pulumi.Int(c.MemoryMB),
		Timeout:          pulumi.Int(c.TimeoutSeconds),
		EphemeralStorage: &lambda.FunctionEphemeralStorageArgs{Size: pulumi.Int(c.EphemeralStorageMB)},
		Environment:      &lambda.FunctionEnvironmentArgs{Variables: environment},
		// The worker writes JSON lines, metrics among them: they must arrive as they are.
		LoggingConfig: &lambda.FunctionLoggingConfigArgs{LogFormat: pulumi.String("Text"), LogGroup: logs.Name},
		Tags:          tags,
	}, child, pulumi.DependsOn([]pulumi.Resource{rights}))
	if err != nil {
		return nil, err
	}
	// A continuation goes back to the function's own queue. Lambda takes that for
	// a loop after 16 rounds and stops it; ours end, for each has fewer chunks to
	// make than the one before.
	recursion, err := lambda.NewFunctionRecursionConfig(ctx, name, &lambda.FunctionRecursionConfigArgs{
		FunctionName: function.Name, RecursiveLoop: pulumi.String("Allow"),
	}, child)
	if err != nil {
		return nil, err
	}
	mapping, err := lambda.NewEventSourceMapping(ctx, name, &lambda.EventSourceMappingArgs{
		EventSourceArn: q.Tasks.Arn, FunctionName: function.Arn,
		BatchSize:             pulumi.Int(1),
		FunctionResponseTypes: pulumi.StringArray{pulumi.String("ReportBatchItemFailures")},
		ScalingConfig:         &lambda.EventSourceMappingScalingConfigArgs{MaximumConcurrency: pulumi.Int(c.MaxConcurrency)},
		Enabled:               pulumi.Bool(true),
		Tags:                  tags,
	}, child,
		pulumi.DependsOn([]pulumi.Resource{rights, recursion}),
		pulumi.IgnoreChanges([]string{"enabled"})) // a queue that was paused stays paused
	if err != nil {
		return nil, err
	}
	f.Name, f.ARN, f.LogGroup, f.MappingID = function.Name, function.Arn, logs.Name, mapping.Uuid
	return f, ctx.RegisterResourceOutputs(f, pulumi.Map{"name": f.Name, "arn": f.ARN, "logGroup": f.LogGroup,
		"mappingId": f.MappingID})
}

// workerRights is what the worker may do with its bucket, its queue, its DLQ
// and its log group, whose ARNs come in this order: what worker/store and
// worker/messages.go call, and what Lambda does in the worker's name.
func workerRights(arns []string) []statement {
	bucket, queue, dlq, logs := arns[0], arns[1], arns[2], arns[3]
	below := func(base string, prefixes ...string) (all []string) {
		for _, p := range prefixes {
			all = append(all, base+p+"*")
		}
		return all
	}
	objects := bucket + "/"
	return []statement{
		{Sid: "Write", Effect: allow, Action: []string{"s3:PutObject"},
			Resource: below(objects, task.DataKind, task.ReceiptKind, task.FailureKind, task.ManifestKind)},
		// The worker reads no samples, and deletes nothing else.
		{Sid: "Read", Effect: allow, Action: []string{"s3:GetObject"}, Resource: below(objects, task.ReceiptKind,
			task.ManifestKind)},
		{Sid: "Replace", Effect: allow, Action: []string{"s3:DeleteObject"}, Resource: below(objects, task.DataKind)},
		{Sid: "GiveUpShard", Effect: allow, Action: []string{"s3:AbortMultipartUpload"},
			Resource: below(objects, task.DataKind)},
		{Sid: "List", Effect: allow, Action: []string{"s3:ListBucket"}, Resource: []string{bucket},
			Condition: map[string]map[string][]string{
				"StringLike": {"s3:prefix": below("", task.DataKind, task.ManifestKind)},
			}},
		{Sid: "Take", Effect: allow, Resource: []string{queue}, Action: []string{
			"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes",
			"sqs:SendMessage",
		}},
		{Sid: "Bury", Effect: allow, Action: []string{"sqs:SendMessage"}, Resource: []string{dlq}},
		{Sid: "Log", Effect: allow, Action: []string{"logs:CreateLogStream", "logs:PutLogEvents"},
			Resource: []string{logs + ":*"}},
	}
}
