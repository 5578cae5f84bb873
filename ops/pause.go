package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// mappingPatience is how long pause and resume wait for Lambda. It mostly takes less
// than a minute.
const mappingPatience = 3 * time.Minute

// PauseCmd stops the delivery of tasks.
type PauseCmd struct{}

// Help is the long help.
func (*PauseCmd) Help() string {
	return `Disables the event source mapping that gives tasks of the queue to workers, and waits until it is disabled. Workers finish the tasks they have; all others wait in the queue, as long as its retention. On the local stack a pause lasts until resume, or until the stack ends.

A later 'pulumi up' leaves a paused stack paused.

Examples:
  ops --stack dev pause
  ops --stack dev queue peek --max 5
  ops --stack dev resume`
}

// Run pauses.
func (*PauseCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, l *lambda.Client) error {
	return switchMapping(ctx, o, t, q, l, false)
}

// ResumeCmd starts the delivery of tasks again.
type ResumeCmd struct{}

// Help is the long help.
func (*ResumeCmd) Help() string {
	return `Enables the event source mapping again, and waits until it is enabled.

Examples:
  ops --stack dev resume`
}

// Run resumes.
func (*ResumeCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, l *lambda.Client) error {
	return switchMapping(ctx, o, t, q, l, true)
}

// switched is what pause and resume print as JSON.
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
	state, err := t.MappingState(ctx, l)
	if err != nil {
		return err
	}
	if state != want {
		if err := t.SetMapping(ctx, l, on); err != nil {
			return err
		}
		if err := waitMapping(ctx, o, t, l, want); err != nil {
			return err
		}
	} else {
		word += " already"
	}
	s := switched{State: want}
	if s.Queue, err = q.Depth(ctx); err != nil {
		return err
	}
	return o.Print(s, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s waiting, %d still with workers\n", word, ui.Plural(s.Queue.Waiting+s.Queue.Delayed, "task"),
			s.Queue.InFlight)
	})
}

// waitMapping waits for a state, and prints the states in between.
func waitMapping(ctx context.Context, o *Output, t *target.Target, l *lambda.Client, want string) error {
	limit := time.Now().Add(mappingPatience)
	for seen, pace := "", 100*time.Millisecond; ; pace = min(2*pace, 2*time.Second) {
		state, err := t.MappingState(ctx, l)
		switch {
		case err != nil:
			return err
		case state == want:
			return nil
		case time.Now().After(limit):
			return ui.WithHint(fmt.Errorf("after %s the event source mapping is still %s", ui.Span(mappingPatience), state),
				"the same command, or ops%s doctor", t.Flags())
		case state != seen:
			o.Say("the event source mapping is %s", state)
		}
		seen = state
		select {
		case <-ctx.Done():
			return ui.WithHint(fmt.Errorf("stopped while the event source mapping is %s; it still becomes %s", seen, want),
				"ops%s doctor shows its state", t.Flags())
		case <-time.After(pace):
		}
	}
}
