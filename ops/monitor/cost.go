package monitor

import (
	"context"
	"errors"
	"fmt"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/price"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// RunCost is what a run has cost so far: until it is complete, the plan's figure times
// the progress; then what its receipts show.
type RunCost struct {
	plan.Spent
	Expected  float64 `json:"dollars_in_all"` // when everything is made
	GBSeconds float64 `json:"gb_seconds"`     // of Lambda's memory
	Planned   bool    `json:"planned"`        // by the plan
	Local     bool    `json:"local"`          // nothing was paid: it is what Lambda would cost
}

// String is the cost in a line.
func (c *RunCost) String() string {
	text := fmt.Sprintf("about %s USD", ui.Dollars(c.Dollars))
	if c.Planned {
		text += fmt.Sprintf(" so far, %s in all, by the plan", ui.Dollars(c.Expected))
	}
	if c.Local {
		text = "nothing here; in Lambda " + text
	}
	return fmt.Sprintf("%s; generators took %s of CPU", text, ui.Span(ui.Seconds(c.CPUSeconds)))
}

// costs is what a run costs with some workers.
type costs struct {
	worker  plan.Worker
	local   bool
	planned *plan.Estimate // nil if a generator was not measured
}

// CountCost adds to each poll what the run has cost with such workers: those of Lambda,
// or for the local stack those that Lambda would have. Before the run is complete that
// is known only if each of its generators was measured.
func (m *Monitor) CountCost(worker plan.Worker, measured map[string]plan.Cost, local bool) {
	m.costs = &costs{worker: worker, local: local}
	m.costs.planned, _ = plan.Of(m.run, measured, plan.Setting{Worker: worker, Concurrency: plan.MostWorkers})
}

// soFar is the plan's figure times the progress, nil if there is none.
func (c *costs) soFar(p *Progress) *RunCost {
	if c.planned == nil {
		return nil
	}
	// What was committed before the run is in the progress, and not in its plan.
	return c.cost(c.planned.Part(max(0, c.planned.Samples-(p.Expected-p.Committed))), c.planned.Make, true)
}

// exact is what the run's receipts show, in these cells.
func (c *costs) exact(ctx context.Context, st *store.Store, run task.Run, cells []store.CellName) (*RunCost, error) {
	var traces []plan.Trace
	for cell, err := range st.Cells(ctx, cells) {
		if errors.Is(err, store.ErrDamaged) {
			continue // verify reports it
		}
		if err != nil {
			return nil, err
		}
		for _, r := range cell.Receipts {
			if r.RunID == run.ID {
				traces = append(traces, plan.TraceOf(r))
			}
		}
	}
	spent := c.worker.Spent(traces)
	return c.cost(spent, spent.Dollars, false), nil
}

func (c *costs) cost(spent plan.Spent, expected float64, planned bool) *RunCost {
	return &RunCost{Spent: spent, Expected: expected, Planned: planned, Local: c.local,
		GBSeconds: spent.BusySeconds * float64(c.worker.MemoryMB) / price.MegabytesPerGB}
}
