package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/monitor"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type MonitorCmd struct {
	inDataset
	Run_     string  `help:"Run to show. Default: the newest." name:"run" placeholder:"ID"`
	Watch    bool    `help:"Continue until the run is done: a live view on a terminal, else a line per poll." short:"w"`
	Interval float64 `help:"Seconds between two polls." default:"5"`
}

func (*MonitorCmd) Help() string {
	return `Counts come from the receipts: they are what is committed in the bucket. The rate is that of the last two minutes, and the ETA follows from it.

Until the run is complete, its cost is the estimate of 'ops plan' times the progress, if each of its generators was measured. Then it comes from the receipts: they record what the generators took, and the time of the workers follows from that. Neither has failed attempts; the bill comes from AWS. The local stack costs nothing: it shows what Lambda would cost.

With --watch it ends with exit status 0 when the run is complete, and with 2 when the queue is empty and it is not. SQS counts up to a minute late, so a queue counts as empty after 90 seconds without messages; the local one counts exactly. Leaving the live view with q ends with 0: the run continues.

Examples:
  ops --stack dev monitor
  ops --stack dev monitor --watch
  ops --stack dev monitor --run 20260801t101500.000-1f2e3d4c --json`
}

func (c *MonitorCmd) Validate() error {
	if c.Interval < 0.1 {
		return ui.Usage("--interval is %g, it must be at least 0.1", c.Interval)
	}
	return nil
}

func (c *MonitorCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store) error {
	run, err := findRun(ctx, st, c.Run_, t)
	if err != nil {
		return err
	}
	m := monitor.New(st, q, run)
	m.CountCost(t.Worker(), knownCosts(o), t.Name == stack.Local)
	if !c.Watch {
		p, err := m.Poll(ctx)
		if err != nil {
			return err
		}
		return o.Print(p, p.Table)
	}
	p, err := m.Watch(ctx, o.Output, ui.Seconds(c.Interval))
	if errors.Is(err, monitor.ErrLeft) {
		return nil
	}
	if err != nil {
		return err
	}
	return incomplete(t, p)
}

// findRun returns a run, the newest if no id is given. The error for an unknown id names the newest ones.
func findRun(ctx context.Context, st *store.Store, id string, t *target.Target) (task.Run, error) {
	if id != "" {
		run, err := st.Run(ctx, id)
		if !errors.Is(err, store.ErrNotFound) {
			return run, err
		}
	}
	ids, err := st.Runs(ctx)
	switch {
	case err != nil:
		return task.Run{}, err
	case len(ids) == 0:
		return task.Run{}, ui.WithHint(errors.New("there is no run yet"), "ops%s submit --all --samples 100%s", t.Flags(),
			t.In())
	case id != "":
		return task.Run{}, ui.WithHint(fmt.Errorf("there is no run %s", id), "one of the newest: %s",
			ui.Some(ids[:min(len(ids), 3)], 10))
	}
	return st.Run(ctx, ids[0])
}

// incomplete is the error of a watch that ended: nil if the run is complete.
func incomplete(t *target.Target, p *monitor.Progress) error {
	if p.Complete() {
		return nil
	}
	return ui.WithHint(ui.Problem("the run is incomplete: %s missing, and the queue is empty",
		ui.Plural(p.Expected-p.Committed, "sample")),
		"ops%s dlq list, then ops%s repair --run %s%s", t.Flags(), t.Flags(), p.Run, t.In())
}
