package infra

import (
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/sqs"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// Queue is the task queue with its dead letter queue.
type Queue struct {
	pulumi.ResourceState

	Tasks *sqs.Queue
	DLQ   *sqs.Queue
}

// NewQueue registers both queues and says that dead tasks of the one, and nothing else, go to the other.
func NewQueue(ctx *pulumi.Context, name string, c *Config, opts ...pulumi.ResourceOption) (_ *Queue, err error) {
	defer caught(&err)
	q := &Queue{}
	child := register(ctx, "Queue", name, q, opts)
	q.DLQ = must(sqs.NewQueue(ctx, name+"-dlq", &sqs.QueueArgs{
		MessageRetentionSeconds:  pulumi.Int(c.DLQRetentionSeconds),
		VisibilityTimeoutSeconds: pulumi.Int(c.VisibilityTimeoutSeconds),
		SqsManagedSseEnabled:     pulumi.Bool(true),
		Tags:                     pulumi.ToStringMap(c.Tags),
	}, child))
	q.Tasks = must(sqs.NewQueue(ctx, name, &sqs.QueueArgs{
		MessageRetentionSeconds:  pulumi.Int(c.QueueRetentionSeconds),
		VisibilityTimeoutSeconds: pulumi.Int(c.VisibilityTimeoutSeconds),
		SqsManagedSseEnabled:     pulumi.Bool(true),
		RedrivePolicy: pulumi.Sprintf(`{"deadLetterTargetArn":"%s","maxReceiveCount":%d}`, q.DLQ.Arn,
			c.MaxReceiveCount),
		Tags: pulumi.ToStringMap(c.Tags),
	}, child))
	must(sqs.NewRedriveAllowPolicy(ctx, name+"-dlq-redrive", &sqs.RedriveAllowPolicyArgs{
		QueueUrl:           q.DLQ.Url,
		RedriveAllowPolicy: pulumi.Sprintf(`{"redrivePermission":"byQueue","sourceQueueArns":["%s"]}`, q.Tasks.Arn),
	}, child))
	for _, p := range []struct {
		name  string
		queue *sqs.Queue
	}{{name + "-tls", q.Tasks}, {name + "-dlq-tls", q.DLQ}} {
		must(sqs.NewQueuePolicy(ctx, p.name, &sqs.QueuePolicyArgs{QueueUrl: p.queue.Url,
			Policy: tlsOnly("sqs", "", p.queue.Arn)}, child))
	}
	return q, ctx.RegisterResourceOutputs(q, pulumi.Map{"url": q.Tasks.Url, "dlqUrl": q.DLQ.Url})
}
