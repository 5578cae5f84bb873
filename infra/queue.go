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
func NewQueue(ctx *pulumi.Context, name string, c *Config, opts ...pulumi.ResourceOption) (*Queue, error) {
	q := &Queue{}
	if err := ctx.RegisterComponentResource("vm-dataset:infra:Queue", name, q, opts...); err != nil {
		return nil, err
	}
	child := pulumi.Parent(q)
	var err error
	q.DLQ, err = sqs.NewQueue(ctx, name+"-dlq", &sqs.QueueArgs{
		MessageRetentionSeconds:  pulumi.Int(c.DLQRetentionSeconds),
		VisibilityTimeoutSeconds: pulumi.Int(c.VisibilityTimeoutSeconds),
		SqsManagedSseEnabled:     pulumi.Bool(true),
		Tags:                     pulumi.ToStringMap(c.Tags),
	}, child)
	if err != nil {
		return nil, err
	}
	redrive := q.DLQ.Arn.ApplyT(func(arn string) (string, error) {
		return marshal(struct {
			Target string `json:"deadLetterTargetArn"`
			Max    int    `json:"maxReceiveCount"`
		}{arn, c.MaxReceiveCount})
	}).(pulumi.StringOutput)
	q.Tasks, err = sqs.NewQueue(ctx, name, &sqs.QueueArgs{
		MessageRetentionSeconds:  pulumi.Int(c.QueueRetentionSeconds),
		VisibilityTimeoutSeconds: pulumi.Int(c.VisibilityTimeoutSeconds),
		SqsManagedSseEnabled:     pulumi.Bool(true),
		RedrivePolicy:            redrive,
		Tags:                     pulumi.ToStringMap(c.Tags),
	}, child)
	if err != nil {
		return nil, err
	}
	_, err = sqs.NewRedriveAllowPolicy(ctx, name+"-dlq-redrive", &sqs.RedriveAllowPolicyArgs{
		QueueUrl: q.DLQ.Url,
		RedriveAllowPolicy: q.Tasks.Arn.ApplyT(func(arn string) (string, error) {
			return marshal(struct {
				Permission string   `json:"redrivePermission"`
				Sources    []string `json:"sourceQueueArns"`
			}{"byQueue", []string{arn}})
		}).(pulumi.StringOutput),
	}, child)
	if err != nil {
		return nil, err
	}
	for _, p := range []struct {
		name  string
		queue *sqs.Queue
	}{{name + "-tls", q.Tasks}, {name + "-dlq-tls", q.DLQ}} {
		_, err = sqs.NewQueuePolicy(ctx, p.name, &sqs.QueuePolicyArgs{QueueUrl: p.queue.Url,
			Policy: tlsOnly("sqs", "", p.queue.Arn)}, child)
		if err != nil {
			return nil, err
		}
	}
	return q, ctx.RegisterResourceOutputs(q, pulumi.Map{"url": q.Tasks.Url, "dlqUrl": q.DLQ.Url})
}
