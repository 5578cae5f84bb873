package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/price"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// RunCost is what a run has cost so far, as its receipts show it.
type RunCost struct {
	plan.Spent
	Expected  float64 `json:"dollars_in_all"` // when everything is made, if the rest costs the same
	GBSeconds float64 `json:"gb_seconds"`     // of Lambda's memory
	Read      int     `json:"receipts_read"`  // those that it is reckoned from
	Local     bool    `json:"local"`          // nothing was paid: it is what Lambda would cost
}

// String is the cost in a line.
func (c *RunCost) String() string {
	text := fmt.Sprintf("about %s USD so far, %s in all", ui.Dollars(c.Dollars), ui.Dollars(c.Expected))
	if c.Local {
		text = "nothing here; in Lambda " + text
	}
	text += fmt.Sprintf("; generators took %s of CPU", ui.Span(ui.Seconds(c.CPUSeconds)))
	if c.Read < c.Receipts {
		text += fmt.Sprintf(" (from %s of %s receipts)", ui.Count(c.Read), ui.Count(c.Receipts))
	}
	return text
}

// How many receipts are read for the cost, and how many failure reports: in one look,
// which takes a second with S3 and a fiftieth of a cent, and of one run, which bounds
// the memory of a watch. Other receipts are taken to be like them.
const (
	readPerLook = 512
	readPerRun  = 20_000
)

// costs reckons what a run has cost, from receipts that it reads once each.
type costs struct {
	worker plan.Worker
	local  bool
	read   int                 // receipts
	newest []newest            // by place of the generator
	traces map[string]*sampled // by generator
}

// newest are the receipts of one generator that were written last of those that a look
// has listed: what a later look has beside or after them is new. S3 tells seconds.
type newest struct {
	written time.Time
	keys    map[string]bool
}

// sampled is what was read of one generator.
type sampled struct {
	mine    []plan.Trace // of this run
	samples int          // of all that were read
	seen    map[string]bool
}

func newCosts(worker plan.Worker, local bool, generators int) *costs {
	return &costs{worker: worker, local: local, newest: make([]newest, generators), traces: map[string]*sampled{}}
}

// CountCost makes looks tell what the run has cost with such workers: those of Lambda,
// or for the local stack those that Lambda would have.
func (m *Monitor) CountCost(worker plan.Worker, local bool) {
	m.costs = newCosts(worker, local, len(m.run.Generators))
}

// poll reads the receipts that were chosen, and reckons.
func (c *costs) poll(ctx context.Context, st *store.Store, chosen []store.CellName, p *Progress) (*RunCost, error) {
	for cell, err := range st.Cells(ctx, chosen) {
		if errors.Is(err, store.ErrDamaged) {
			continue // verify says so
		}
		if err != nil {
			return nil, err
		}
		g := c.traces[cell.Generator]
		if g == nil {
			g = &sampled{seen: map[string]bool{}}
			c.traces[cell.Generator] = g
		}
		for _, r := range cell.Receipts {
			if g.seen[r.ID()] { // the cell has changed since
				continue
			}
			g.seen[r.ID()] = true
			g.samples += len(r.Samples)
			if r.RunID == p.Run {
				g.mine = append(g.mine, plan.TraceOf(r))
			}
		}
	}
	c.read += len(chosen)
	cost := &RunCost{Local: c.local}
	for _, g := range p.Generators {
		seen := c.traces[g.Name]
		if seen == nil || len(seen.mine) == 0 {
			continue
		}
		spent := c.worker.Spent(seen.mine)
		cost.Read += spent.Receipts
		// What earlier runs have committed is not this one's.
		cost.Spent = cost.Add(spent.Scale(g.Committed * spent.Samples / max(seen.samples, 1)))
	}
	cost.GBSeconds = cost.BusySeconds * float64(c.worker.MemoryMB) / price.MegabytesPerGB
	if cost.Expected = cost.Dollars; cost.Samples > 0 {
		cost.Expected += cost.Dollars / float64(cost.Samples) * float64(p.Expected-p.Committed)
	}
	return cost, nil
}

// choose picks receipts of a generator that came since the last look, as many as its
// share of a look is, those of whole tasks together, spread over the range: a task's
// cost shows only from all of its chunks.
func (c *costs) choose(place int, names []store.CellName, run task.Run) []store.CellName {
	last := &c.newest[place]
	names = slices.DeleteFunc(slices.Clone(names), func(r store.CellName) bool {
		return r.State == store.Empty || r.Modified.Before(last.written) || last.keys[r.Key]
	})
	for _, r := range names {
		if r.Modified.After(last.written) {
			*last = newest{r.Modified, map[string]bool{}}
		}
		if r.Modified.Equal(last.written) {
			last.keys[r.Key] = true
		}
	}
	left := min(readPerLook, readPerRun-c.read)
	if left <= 0 {
		return nil
	}
	n := max(1, left/len(run.Generators))
	if len(names) <= n {
		return names
	}
	batch := max(run.BatchOf(run.Generators[place]), 1)
	var tasks [][]store.CellName
	for _, name := range names {
		if k := len(tasks); k > 0 && (tasks[k-1][0].Range.Start-run.Start)/batch == (name.Range.Start-run.Start)/batch {
			tasks[k-1] = append(tasks[k-1], name)
		} else {
			tasks = append(tasks, []store.CellName{name})
		}
	}
	var chosen []store.CellName
	step := max(1, len(names)/n)
	for i := 0; i < len(tasks) && len(chosen) < n; i += step {
		chosen = append(chosen, tasks[i]...)
	}
	return chosen
}
