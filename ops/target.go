package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"
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
	project string       // flag that leads to it from this folder; mostly ""
}

// inDataset is the flag of every command that works on samples.
type inDataset struct {
	Dataset string `help:"Dataset to work on." env:"OPS_DATASET" default:"${default_dataset}" placeholder:"NAME"`
}

// AfterApply makes it the dataset of the target and of the store.
func (d *inDataset) AfterApply(k *kong.Context) error {
	if d.Dataset == "" { // so an empty variable says it
		d.Dataset = task.DefaultDataset.String()
	}
	if err := task.CheckName(d.Dataset); err != nil {
		return ui.Usage("--dataset %v", err)
	}
	k.Bind(task.Dataset(d.Dataset))
	return nil
}

// newTarget finds the stack: the local one, a saved file, or what Pulumi says.
func newTarget(ctx context.Context, g *Flags, d task.Dataset) (*Target, error) {
	t, err := findTarget(ctx, g)
	if t != nil {
		t.Dataset = d
	}
	return t, err
}

func findTarget(ctx context.Context, g *Flags) (*Target, error) {
	if g.Stack == stack.Local {
		o, err := local.Outputs(g.LocalDir)
		if errors.Is(err, local.ErrDown) {
			return nil, ui.WithHint(err, "ops local up")
		}
		return &Target{Outputs: o, Name: stack.Local}, err
	}
	if g.Outputs != "" {
		text, err := os.ReadFile(g.Outputs)
		if err != nil {
			return nil, err
		}
		o, err := stack.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", g.Outputs, err)
		}
		name := g.Stack
		if name == "" {
			name = "of " + g.Outputs
		}
		return &Target{Outputs: o, Name: name}, nil
	}
	return pulumiTarget(ctx, g)
}

// awsConfig is the SDK's own configuration with the region of the stack; the
// local stack has its own endpoints and placeholder credentials.
func (t *Target) awsConfig(ctx context.Context) (aws.Config, error) {
	if t.Name == stack.Local {
		return local.AWSConfig(t.Outputs), nil
	}
	return store.LoadConfig(ctx, t.Region, store.LimitedRetries)
}

func newStore(ctx context.Context, t *Target) (*store.Store, error) {
	c, err := t.awsConfig(ctx)
	if err != nil {
		return nil, err
	}
	return store.New(s3.NewFromConfig(c, store.ClientOptions), t.BucketName).In(t.Dataset), nil
}

func newQueue(ctx context.Context, t *Target) (*queue.Client, error) {
	c, err := t.awsConfig(ctx)
	if err != nil {
		return nil, err
	}
	q := queue.New(sqs.NewFromConfig(c), t.QueueURL, t.DLQURL)
	if t.Name == stack.Local {
		q.IsExact()
	}
	return q, nil
}

func newLambda(ctx context.Context, t *Target) (*lambda.Client, error) {
	c, err := t.awsConfig(ctx)
	if err != nil {
		return nil, err
	}
	return lambda.NewFromConfig(c), nil
}

// String says what a command is about to change: stack, account or endpoint,
// and region.
func (t *Target) String() string {
	where := "account " + t.AccountID
	if t.SQSEndpoint != "" {
		where = t.SQSEndpoint
	}
	return fmt.Sprintf("stack %s · %s · %s", t.Name, where, t.Region)
}

// flags are what to write behind ops to reach the same stack again.
func (t *Target) flags() string {
	if t.Name == "" || strings.HasPrefix(t.Name, "of ") {
		return ""
	}
	return t.project + " --stack " + t.Name
}

// in is what to write behind a command to reach the same dataset again.
func (t *Target) in() string {
	if t.Dataset.IsZero() || os.Getenv("OPS_DATASET") == t.Dataset.String() {
		return ""
	}
	return " --dataset " + t.Dataset.String()
}
