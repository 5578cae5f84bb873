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
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// mend carries out a repair plan: it removes what no receipt names, fills the gaps
// of the plan's run, and sends tasks that restore what is gone or wrong.
func (c *SubmitCmd) mend(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store) error {
	plan, err := dataset.ReadPlan(c.RepairPlan, st)
	if err != nil {
		return err
	}
	run, gaps, err := c.planned(ctx, t, st, plan)
	if err != nil {
		return err
	}
	list, err := o.inventory().List(ctx, t)
	if err != nil { // then the workers judge
		o.Say("note: what makes the samples is not known here: %s", ui.Plain(err))
	}
	asNow(&run, list)
	if !c.DryRun {
		o.Changing(t)
		if err := c.confirmQueue(ctx, o, q); err != nil {
			return err
		}
	}
	if err := c.pin(ctx, st, &run, !c.DryRun); err != nil {
		return err
	}
	removed := 0
	if c.Overwrite {
		if removed, err = c.remove(ctx, o, st, plan); err != nil {
			return err
		}
	}
	if gaps {
		if run, err = missing(ctx, st, run); err != nil {
			return err
		}
	}
	used, err := usedAttempt(ctx, st)
	if err != nil {
		return err
	}
	skipped, left := 0, 0
	for _, p := range plan.Generators {
		i := slices.IndexFunc(run.Generators, func(g task.RunGenerator) bool { return g.Name == p.Name })
		g := &run.Generators[i]
		refs := p.Gone
		if c.Overwrite {
			refs = append(slices.Clone(refs), p.Corrupt...)
		} else {
			left += len(p.Corrupt) + len(p.Replace) + len(p.Remove)
		}
		tasks, changed, err := dataset.Restorations(ctx, st, p.Name, refs)
		if err != nil {
			return err
		}
		skipped += changed
		if c.Overwrite && len(p.Replace) > 0 {
			again, err := replacements(ctx, st, run, *g, used, p.Replace)
			if err != nil {
				return err
			}
			tasks = append(tasks, again...)
		}
		g.Repairs = tasks
	}
	if skipped > 0 {
		o.Say("%s changed since the plan was made, and left alone", ui.Plural(skipped, "receipt"))
	}
	if left > 0 {
		o.Say("%s in the plan are wrong and not gone: the same with --overwrite mends them too", ui.Plural(left, "thing"))
	}
	tasks := run.Plan()
	if c.DryRun {
		return c.printPlan(o, t, run, tasks)
	}
	if len(tasks) == 0 {
		return o.Print(submitted{Run: run, Removed: removed}, func(w io.Writer) {
			fmt.Fprintf(w, "no task has to be sent; %s removed\n", ui.Plural(removed, "object"))
		})
	}
	if err := o.inventory().KeepLocks(ctx, st, inventory.InRun(run, list)); err != nil {
		return err
	}
	if err := st.PutRun(ctx, run); err != nil {
		return err
	}
	if removed > 0 {
		o.Say("%s removed", ui.Plural(removed, "object"))
	}
	return send(ctx, o, t, q, run, false)
}

// planned is the run that a plan is for, with each of the plan's generators. gaps
// tells whether the plan knows what a gap is: it was made for a run.
func (c *SubmitCmd) planned(ctx context.Context, t *target.Target, st *store.Store, plan *dataset.Plan) (run task.Run, gaps bool, err error) {
	if plan.Run != "" {
		old, err := findRun(ctx, st, plan.Run, t)
		if err != nil {
			return run, false, err
		}
		run, gaps = follow(old), true
	} else {
		run = follow(task.Run{Batch: task.DefaultBatch, ChunkSize: task.DefaultChunkSize, Format: task.Files, Version: version()})
	}
	for _, p := range plan.Generators {
		if slices.ContainsFunc(run.Generators, func(g task.RunGenerator) bool { return g.Name == p.Name }) {
			continue
		}
		if gaps {
			return run, false, fmt.Errorf("%s is no generator of run %s", p.Name, plan.Run)
		}
		run.Generators = append(run.Generators, task.RunGenerator{Name: p.Name})
	}
	return run, gaps, nil
}

// remove removes what the plan says nothing names, after asking.
func (c *SubmitCmd) remove(ctx context.Context, o *Output, st *store.Store, plan *dataset.Plan) (int, error) {
	var keys []string
	for _, g := range plan.Generators {
		found, err := dataset.Removable(ctx, st, g.Name, g.Remove)
		if err != nil {
			return 0, err
		}
		keys = append(keys, found...)
	}
	if len(keys) == 0 {
		return 0, nil
	}
	if c.DryRun {
		o.Say("%s would be removed: %s", ui.Plural(len(keys), "object"), ui.Some(keys, 10))
		return 0, nil
	}
	o.Say("to be removed: %s", ui.Some(keys, 10))
	if err := o.Confirm(fmt.Sprintf("Remove %s that no receipt names, or that are broken receipts", ui.Plural(len(keys), "object"))); err != nil {
		return 0, err
	}
	return len(keys), st.Delete(ctx, keys)
}

// replacements are repair tasks for samples that their generator wrote broken.
func replacements(ctx context.Context, st *store.Store, run task.Run, g task.RunGenerator, used int, indices []int) ([]task.Task, error) {
	view := dataset.NewView(g.Name, task.Range{Start: indices[0], End: indices[len(indices)-1] + 1})
	if err := view.Read(ctx, st); err != nil {
		return nil, err
	}
	return dataset.RepairTasks(run, g, dataset.NextAttempt(max(used, view.Attempt)), indices), nil
}

// usedAttempt is the highest attempt that a repair task of any run was sent with.
func usedAttempt(ctx context.Context, st *store.Store) (int, error) {
	ids, err := st.Runs(ctx)
	if err != nil {
		return 0, err
	}
	used := 0
	for _, id := range ids {
		run, err := st.Run(ctx, id)
		if err != nil {
			return 0, err
		}
		used = max(used, dataset.UsedAttempt(run))
	}
	return used, nil
}

// replaceDuplicates fills the gaps of a run and then replaces duplicates, in rounds.
func (c *SubmitCmd) replaceDuplicates(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store, run task.Run) (err error) {
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = ui.WithHint(err, "the same command: it goes on where it was")
		}
	}()
	o.Changing(t)
	w := &waiter{o: o, t: t, queue: q, store: st}
	if err := w.idle(ctx); err != nil {
		return err
	}
	if err := c.pin(ctx, st, &run, true); err != nil {
		return err
	}
	if run, err = missing(ctx, st, run); err != nil {
		return err
	}
	if tasks := run.Plan(); len(tasks) > 0 {
		o.Say("%s missing: they are made first", ui.Plural(countSamples(tasks), "sample"))
		if err := w.make(ctx, run); err != nil {
			return err
		}
		if run, err = missing(ctx, st, follow(run)); err != nil {
			return err
		}
		if left := countSamples(run.Plan()); left > 0 {
			return ui.WithHint(ui.Problem("%s still missing: duplicates are replaced when nothing is missing", ui.Plural(left, "sample")), "ops%s dlq list", t.Flags())
		}
	}
	used, err := usedAttempt(ctx, st)
	if err != nil {
		return err
	}
	rounds := &dataset.Rounds{
		Run: run, Limit: c.MaxDraws, Used: used,
		Look: func(ctx context.Context, v *dataset.View) error {
			err := v.Read(ctx, st)
			if errors.Is(err, store.ErrDamaged) {
				return ui.WithHint(err, "ops%s verify --deep%s", t.Flags(), t.In())
			}
			return err
		},
		Repair: func(ctx context.Context, repairs [][]task.Task) error {
			next := follow(run)
			for i := range next.Generators {
				next.Generators[i].Repairs = repairs[i]
			}
			return w.make(ctx, next)
		},
		Say: func(line string) { o.Say("%s", line) },
	}
	outcomes, err := rounds.Do(ctx)
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
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", x.Generator, ui.Count(x.Wanted), ui.Count(x.Distinct), ui.Count(x.Duplicates), ui.Count(x.Drawn), x.Rounds, x.Verdict)
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
