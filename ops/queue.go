package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

type QueueCmd struct {
	Count QueueCountCmd `cmd:"" help:"Count the tasks in the queue."`
	Peek  QueuePeekCmd  `cmd:"" help:"Show tasks of the queue. Each peek counts as a delivery."`
	Purge QueuePurgeCmd `cmd:"" help:"Delete every task in the queue."`
}

type QueueCountCmd struct{}

func (*QueueCountCmd) Help() string {
	return `Waiting tasks can be received, tasks in flight are with a worker, delayed tasks wait for their time. SQS counts approximately, and is correct a minute after the last change.

Examples:
  ops --stack dev queue count
  ops --stack dev queue count --json`
}

func (*QueueCountCmd) Run(ctx context.Context, o *Output, q *queue.Client) error {
	d, err := q.Depth(ctx)
	if err != nil {
		return err
	}
	return printDepth(o, d)
}

func printDepth(o *Output, d queue.Depth) error {
	return o.PrintLine(d, "waiting\t%s\nin flight\t%s\ndelayed\t%s", ui.Count(d.Waiting), ui.Count(d.InFlight),
		ui.Count(d.Delayed))
}

type QueuePeekCmd struct {
	Max int `help:"Most tasks to show." default:"1"`
}

func (*QueuePeekCmd) Help() string {
	return `SQS shows a message only by delivering it: each peek counts against the deliveries that a task has before it moves to the DLQ (three, unless the stack says otherwise), and hides the task from workers for a moment. So peek refuses while the workers are not paused, unless --yes is given. It shows the count of each task.

Examples:
  ops --stack dev pause && ops --stack dev queue peek --max 5
  ops --stack dev queue peek --yes --json`
}

func (c *QueuePeekCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, l *lambda.Client) error {
	if c.Max < 1 {
		return ui.Usage("--max is %d, it must be at least 1", c.Max)
	}
	if !o.Yes {
		const counts = "a peek counts as a delivery of the task, and "
		switch state, err := t.MappingState(ctx, l); {
		case err != nil:
			return ui.WithHint(fmt.Errorf(counts+"whether the workers are paused is not known: %w", err),
				"the same command with --yes, if you accept the count")
		case t.FleetWorkers > 0:
			return ui.WithHint(errors.New(counts+"the stack's fleet works on whatever is paused"),
				"pulumi config set fleetMaxWorkers 0, then pulumi up, which sends it away; or --yes, if you accept the count")
		case state != target.MappingDisabled:
			return ui.WithHint(fmt.Errorf(counts+"the workers are not paused (the event source mapping is %s)", state),
				"ops%s pause, then the same command; or --yes, if you accept the count", t.Flags())
		}
	}
	list, err := q.Peek(ctx, c.Max)
	if err != nil {
		return err
	}
	if list == nil {
		list = []queue.Message{}
	} else {
		o.Say("each peek counts as a delivery of the tasks shown")
	}
	return o.Print(list, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "no task is waiting")
		}
		for _, m := range list {
			// --json has all of it
			fmt.Fprintf(w, "%s\tdelivery %d\t%s ago\t%s\n", m.ID, m.Receives, ui.Span(time.Since(m.Sent)), ui.Cut(m.Body, 1000))
		}
	})
}

type QueuePurgeCmd struct{}

func (*QueuePurgeCmd) Help() string {
	return `Deletes every task, even those that workers have at the moment: they finish their current chunk, and the rest is lost. Committed samples stay, and 'ops repair' sends what is missing. It asks first.

Examples:
  ops --stack dev queue purge
  ops --stack local --yes queue purge`
}

func (*QueuePurgeCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client) error {
	d, err := q.Depth(ctx)
	if err != nil {
		return err
	}
	return purge(o, t, "queue", d, func() error { return q.Purge(ctx) })
}

func purge(o *Output, t *target.Target, what string, d queue.Depth, do func() error) error {
	o.Changing(t)
	if err := o.Confirm(fmt.Sprintf("Delete all %s in the %s, also those in flight", ui.Plural(d.Total(), "message"),
		what)); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	o.Say("purged: %s", ui.Plural(d.Total(), "message"))
	return nil
}
