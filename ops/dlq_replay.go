package main

import (
	"context"
	"fmt"
	"io"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dlq"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type DLQReplayCmd struct {
	dlqFilter
	From      string  `help:"Send the messages that were saved in this folder instead. Each file is renamed to .sent when its message is sent; the DLQ is not touched." type:"existingdir" placeholder:"DIR"`
	Rate      float64 `help:"Messages per second, at most." placeholder:"N"`
	Chunk     int     `help:"Make the tasks with this many samples per generator process, a divisor of their chunk size: for tasks that took too much time or memory." placeholder:"N"`
	KeepSeed  bool    `help:"Send every task with the seeds it failed with." xor:"seeds"`
	FreshSeed bool    `help:"Give every task new seeds, even if its seeds were not to blame: for a generator that hangs on some." xor:"seeds"`
	DryRun    bool    `help:"Show what would be sent."`
}

func (*DLQReplayCmd) Help() string {
	return `A task whose generator failed because of its seeds gets new ones: a task of a run starts three attempts further on, so that the dataset stays a function of the run's seed; a task without a run gets a new seed, always the same for the same message. A task that failed for another reason (time, memory, the bucket, the environment) keeps its seeds, so it produces the samples originally planned.

With --chunk, the chunks of a task are made in parts of that size. The run, its chunk grid and what is committed do not change; the run's object in the bucket and the receipts record the parts.

A message is deleted from the DLQ only after the queue has confirmed the new one, and a journal records every step: after Ctrl-C or a crash, the same command continues and sends each task once. If it cannot know whether the queue took a task, it sends exactly the same task again, and workers ignore the second. A task that fails again meanwhile is left for the next replay. Messages that are no tasks stay in the DLQ.

Examples:
  ops --stack dev dlq replay --dry-run
  ops --stack dev dlq replay --cause crashed --generator maze-task-data-generator --max 1
  ops --stack dev dlq replay --cause timed_out --chunk 5 --rate 2
  ops --stack dev dlq replay --from saved --keep-seed`
}

func (c *DLQReplayCmd) Validate() error {
	switch {
	case c.Rate < 0 || c.Rate > 0 && c.Rate < 0.001:
		return ui.Usage("--rate is %g, it must be at least 0.001 messages a second", c.Rate)
	case c.Chunk < 0 || c.Chunk > task.MaxSamples:
		return ui.Usage("--chunk is %d, it must be from 1 to %d", c.Chunk, task.MaxSamples)
	}
	return c.check()
}

func (c *DLQReplayCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store) error {
	r := dlq.Replay{Filter: c.filter(), Queue: q, Store: st, From: c.From, Journal: dlq.JournalPath(o.LocalDir, t.DLQURL, c.From), Rate: c.Rate,
		Chunk: c.Chunk, KeepSeed: c.KeepSeed, FreshSeed: c.FreshSeed, Say: o.Say, Progress: o.Progress}
	replay := r.DryRun
	if !c.DryRun {
		o.Changing(t)
		replay = r.Do
	}
	result, err := replay(ctx)
	if err != nil {
		return err
	}
	return o.Print(result, func(w io.Writer) { printReplay(w, &result) })
}

func printReplay(w io.Writer, r *dlq.Result) {
	for _, body := range r.Bodies {
		fmt.Fprintln(w, body)
	}
	switch {
	case r.DryRun:
		fmt.Fprintf(w, "%s would be sent again; nothing was sent\n", ui.Plural(len(r.Bodies), "task"))
	case r.Before > 0:
		fmt.Fprintf(w, "%s sent again, and %s by the replay that was interrupted\n", ui.Plural(r.Sent, "task"),
			ui.Count(r.Before))
	default:
		fmt.Fprintf(w, "%s sent again\n", ui.Plural(r.Sent, "task"))
	}
	if r.Left > 0 {
		fmt.Fprintf(w, "%s left where they are\n", ui.Plural(r.Left, "message"))
	}
	if r.Again > 0 {
		fmt.Fprintf(w, "%s failed again meanwhile: the next replay sends the rest of them\n", ui.Plural(r.Again, "task"))
	}
	if r.Hidden > 0 {
		fmt.Fprintf(w, "about %s are hidden by another reader of the DLQ: they come back within two minutes, then run the same command\n",
			ui.Plural(r.Hidden, "message"))
	}
}
