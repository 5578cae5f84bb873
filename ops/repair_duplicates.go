package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inventory"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/monitor"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// fill makes what is missing of a run, and returns one of the same samples of which
// nothing is.
func (c *RepairCmd) fill(ctx context.Context, w *waiter, run task.Run) (task.Run, error) {
	if err := w.idle(ctx); err != nil {
		return run, err
	}
	if err := c.pin(ctx, w.store, &run, true); err != nil {
		return run, err
	}
	run, err := dataset.Narrow(ctx, w.store, run)
	if err != nil {
		return run, err
	}
	tasks := run.Plan()
	if len(tasks) == 0 {
		return run, nil
	}
	w.o.Say("%s missing: they are made first", ui.Plural(countSamples(tasks), "sample"))
	if err := w.make(ctx, run); err != nil {
		return run, err
	}
	run, err = dataset.Narrow(ctx, w.store, follow(run))
	if left := countSamples(run.Plan()); err == nil && left > 0 {
		err = ui.WithHint(ui.Problem("%s still missing: duplicates are replaced when nothing is missing",
			ui.Plural(left, "sample")), "ops%s dlq list", w.t.Flags())
	}
	return run, err
}

// errDryRun ends the rounds of a dry run before the first.
var errDryRun = errors.New("dry run")

// replaceDuplicates fills the gaps of a run and then replaces duplicates, in rounds.
func (c *RepairCmd) replaceDuplicates(ctx context.Context, o *Output, t *target.Target, q *queue.Client,
	st *store.Store,
	run task.Run, list []generator.Generator) (err error) {
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = ui.WithHint(err, "the same command: it goes on where it was")
		}
	}()
	w := &waiter{o: o, t: t, queue: q, store: st}
	if !c.DryRun {
		if err := o.inventory().KeepLocks(ctx, st, inventory.InRun(run, list)); err != nil {
			return err
		}
		o.Changing(t)
		if run, err = c.fill(ctx, w, run); err != nil {
			return err
		}
	}
	used, err := usedAttempt(ctx, st)
	if err != nil {
		return err
	}
	rounds := &dataset.Rounds{
		Run: run, Limit: c.MaxDraws, Used: used,
		Read: func(ctx context.Context, v *dataset.View) error {
			err := v.Read(ctx, st)
			if errors.Is(err, store.ErrDamaged) {
				return ui.WithHint(err, "ops%s verify --deep%s", t.Flags(), t.In())
			}
			return err
		},
		Repair: func(ctx context.Context, repairs [][]task.Task) error {
			next := run
			if !c.DryRun {
				next = follow(run)
			}
			for i := range next.Generators {
				next.Generators[i].Repairs = repairs[i]
			}
			if c.DryRun {
				return errDryRun
			}
			return w.make(ctx, next)
		},
		Report: func(line string) { o.Say("%s", line) },
	}
	outcomes, err := rounds.Do(ctx)
	if c.DryRun && (err == nil || errors.Is(err, errDryRun)) {
		return c.printPlan(o, t, run, run.Plan())
	}
	if err != nil {
		return err
	}
	if err := o.Print(outcomes, func(w io.Writer) { printOutcomes(w, outcomes) }); err != nil {
		return err
	}
	if i := slices.IndexFunc(outcomes, func(x dataset.Outcome) bool { return x.Verdict == dataset.Failed }); i >= 0 {
		return ui.WithHint(ui.Problem(""), "ops%s dlq list", t.Flags())
	}
	if slices.ContainsFunc(outcomes, func(x dataset.Outcome) bool { return x.Verdict != dataset.Distinct }) {
		return ui.Problem("")
	}
	return nil
}

func printOutcomes(w io.Writer, outcomes []dataset.Outcome) {
	fmt.Fprintln(w, "GENERATOR\tSAMPLES\tDISTINCT\tDUPLICATES\tDRAWN\tROUNDS\t")
	for _, x := range outcomes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", x.Generator, ui.Count(x.Wanted), ui.Count(x.Distinct),
			ui.Count(x.Duplicates), ui.Count(x.Drawn), x.Rounds, x.Verdict)
	}
	for _, x := range outcomes {
		if x.Verdict != dataset.Distinct {
			fmt.Fprintln(w, x)
		}
	}
}

// waiter sends runs and waits for them.
type waiter struct {
	o     *Output
	t     *target.Target
	queue *queue.Client
	store *store.Store
}

// every is how often the queue and the receipts are looked at: each look costs
// requests, and on the local stack a round takes less than a second.
func (w *waiter) every() time.Duration {
	if w.t.Name == stack.Local {
		return 100 * time.Millisecond
	}
	return 500 * time.Millisecond
}

// idle waits until the queue is empty: what is in it may be what is missing.
func (w *waiter) idle(ctx context.Context) error {
	said := false
	return w.queue.WaitIdle(ctx, w.every(), func(d queue.Depth, left time.Duration) {
		switch {
		case d.Total() > 0:
			w.o.Progress("waiting for tasks in the queue", 0, d.Total())
		case left >= time.Second && !said:
			said = true
			w.o.Say("the queue looks empty; SQS may count late, so it is watched for %s more", ui.Span(left))
		}
	})
}

// make writes a run down, sends it, and waits until all of it is committed or
// nothing is left in the queue.
func (w *waiter) make(ctx context.Context, run task.Run) error {
	if err := w.store.PutRun(ctx, run); err != nil {
		return err
	}
	tasks := run.Plan()
	w.o.Say("run %s: %s for %s", run.ID, ui.Plural(len(tasks), "task"), ui.Plural(countSamples(tasks), "sample"))
	if err := w.queue.Send(ctx, tasks, func(int) error { return nil }); err != nil {
		return err
	}
	total := countSamples(tasks)
	_, err := monitor.New(w.store, w.queue, run).WatchLines(ctx, w.o.Output, w.every(), func(p *monitor.Progress) error {
		w.o.Progress("samples", total-(p.Expected-p.Committed), total)
		return nil
	})
	if err != nil {
		return err
	}
	return w.idle(ctx) // a task may be at work that has failed once
}
