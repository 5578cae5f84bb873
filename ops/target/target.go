// Package target finds the stack that the flags name, and makes clients for it.
package target

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Target is the stack that a command works on.
type Target struct {
	stack.Outputs
	Name    string
	Dataset task.Dataset // that the command works on
	flags   string       // that lead to it from this folder, beside --stack; mostly ""
}

// Find returns the stack: the local one, a saved file, or what Pulumi says. The dataset may be none.
func Find(ctx context.Context, f *Flags, d task.Dataset) (*Target, error) {
	if f.Stack == stack.Local {
		o, err := local.Outputs(f.LocalDir)
		if errors.Is(err, local.ErrDown) {
			return nil, ui.WithHint(err, "ops local up")
		}
		return &Target{Outputs: o, Name: stack.Local, Dataset: d}, err
	}
	if f.Outputs != "" {
		text, err := os.ReadFile(f.Outputs)
		if err != nil {
			return nil, err
		}
		o, err := stack.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Outputs, err)
		}
		t := &Target{Outputs: o, Name: cmp.Or(f.Stack, "of "+f.Outputs), Dataset: d}
		if os.Getenv("OPS_OUTPUTS") == "" { // else the next command has it, too
			t.flags = " --outputs " + ui.Quote(ui.FromHere(f.Outputs))
		}
		return t, nil
	}
	return pulumiTarget(ctx, f, d)
}

// AWSConfig is the SDK's own configuration with the region of the stack; the
// local stack has its own endpoint and placeholder credentials.
func (t *Target) AWSConfig(ctx context.Context) (aws.Config, error) {
	if t.Name == stack.Local {
		return local.AWSConfig(t.Outputs), nil
	}
	return store.LoadConfig(ctx, t.Region, store.LimitedRetries)
}

// Store is a client for its bucket.
func (t *Target) Store(ctx context.Context) (*store.Store, error) {
	if t.Name == stack.Local {
		return local.BucketStore(t.Outputs).In(t.Dataset), nil
	}
	c, err := t.AWSConfig(ctx)
	if err != nil {
		return nil, err
	}
	return store.New(s3.NewFromConfig(c, store.ClientOptions), t.BucketName).In(t.Dataset), nil
}

// Queue is a client for its queue and DLQ.
func (t *Target) Queue(ctx context.Context) (*queue.Client, error) {
	c, err := t.AWSConfig(ctx)
	if err != nil {
		return nil, err
	}
	q := queue.New(sqs.NewFromConfig(c), t.QueueURL, t.DLQURL)
	if t.Name == stack.Local {
		q.IsExact()
	}
	return q, nil
}

// Lambda is a client for Lambda.
func (t *Target) Lambda(ctx context.Context) (*lambda.Client, error) {
	c, err := t.AWSConfig(ctx)
	if err != nil {
		return nil, err
	}
	return lambda.NewFromConfig(c), nil
}

// String is what a command is about to change: stack, account or endpoint, and region.
func (t *Target) String() string {
	where := "account " + t.AccountID
	if t.SQSEndpoint != "" {
		where = t.SQSEndpoint
	}
	return fmt.Sprintf("stack %s · %s · %s", t.Name, where, t.Region)
}

// Flags are what to write behind ops to reach the same stack again.
func (t *Target) Flags() string {
	if t.Name == "" || strings.HasPrefix(t.Name, "of ") {
		return t.flags
	}
	return t.flags + " --stack " + t.Name
}

// In is what to write behind a command to reach the same dataset again.
func (t *Target) In() string {
	if t.Dataset.IsZero() || os.Getenv("OPS_DATASET") == t.Dataset.String() {
		return ""
	}
	return " --dataset " + t.Dataset.String()
}
