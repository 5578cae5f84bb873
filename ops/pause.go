package main

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

type PauseCmd struct{}

func (*PauseCmd) Help() string {
	return `Disables the event source mapping that gives tasks of the queue to workers, and waits until it is disabled. Workers finish the tasks they have; all others wait in the queue, as long as its retention. An ops worker on another machine goes on: stop it there. On the local stack a pause lasts until resume, or until the stack ends.

A later 'pulumi up' leaves a paused stack paused.

Examples:
  ops --stack dev pause
  ops --stack dev queue peek --max 5
  ops --stack dev resume`
}

func (*PauseCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, l *lambda.Client) error {
	return switchMapping(ctx, o, t, q, l, false)
}

type ResumeCmd struct{}

func (*ResumeCmd) Help() string {
	return `Enables the event source mapping again, and waits until it is enabled.

Examples:
  ops --stack dev resume`
}

func (*ResumeCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, l *lambda.Client) error {
	return switchMapping(ctx, o, t, q, l, true)
}

type switched struct {
	State string      `json:"state"`
	Queue queue.Depth `json:"queue"`
}

func switchMapping(ctx context.Context, o *Output, t *target.Target, q *queue.Client, l *lambda.Client, on bool) error {
	o.Changing(t)
	want, word := target.MappingDisabled, "paused"
	if on {
		want, word = target.MappingEnabled, "working"
	}
	changed, err := t.Switch(ctx, l, on, o.Say)
	if err != nil {
		return err
	}
	if !changed {
		word += " already"
	}
	if !on && t.FleetWorkers > 0 {
		o.Say("note: the stack's fleet works on: pulumi config set fleetMaxWorkers 0, then pulumi up, sends it away")
	}
	s := switched{State: want}
	if s.Queue, err = q.Depth(ctx); err != nil {
		return err
	}
	return o.PrintLine(s, "%s: %s waiting, %d still with workers", word,
		ui.Plural(s.Queue.Waiting+s.Queue.Delayed, "task"), s.Queue.InFlight)
}
