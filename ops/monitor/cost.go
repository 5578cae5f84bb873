package monitor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/price"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// RunCost is what a run has cost so far: until it is complete, the figure of the plan, or if a generator was not
// measured that of some of the run's receipts, times the progress; then what its receipts show.
type RunCost struct {
	plan.Spent
	Expected  float64 `json:"dollars_in_all"` // when everything is made; 0 if that is not known
	GBSeconds float64 `json:"gb_seconds"`     // of Lambda's memory
	Planned   bool    `json:"planned"`        // by the plan
	Sampled   bool    `json:"sampled"`        // by some of the run's receipts
	Local     bool    `json:"local"`          // nothing was paid: it is what Lambda would cost
}

// String is the cost in a line.
func (c *RunCost) String() string {
	text := fmt.Sprintf("about %s USD", ui.Dollars(c.Dollars))
	if c.Planned {
		text += fmt.Sprintf(" so far, %s in all, by the plan", ui.Dollars(c.Expected))
	}
	if c.Sampled {
		text += fmt.Sprintf(" so far, by %s", ui.Plural(c.Receipts, "receipt"))
	}
	if c.Local {
		text = "nothing here; in Lambda " + text
	}
	return fmt.Sprintf("%s; generators took %s of CPU", text, ui.Span(ui.Seconds(c.CPUSeconds)))
}

type costs struct {
	worker  plan.Worker
	local   bool
	planned *plan.Estimate                     // nil if a generator was not measured
	sampled map[string]map[string][]plan.Trace // of cells that show what a sample costs, by generator and key
	read    map[string]string                  // ETags of cells that show nothing, by key
	unread  map[string][]store.CellName        // cells that could not be read, by generator
}

const sampledReceipts = 10 // how many receipts of each generator are read to learn what it costs, or some more

// CountCost adds to each poll what the run has cost with such workers: those of Lambda,
// or for the local stack those that Lambda would have.
func (m *Monitor) CountCost(worker plan.Worker, measured map[string]plan.Cost, local bool) {
	m.costs = &costs{worker: worker, local: local, sampled: map[string]map[string][]plan.Trace{},
		read: map[string]string{}, unread: map[string][]store.CellName{}}
	m.costs.planned, _ = plan.Of(m.run, measured, plan.Setting{Worker: worker, Concurrency: plan.MostWorkers})
}

// toMake is how many samples the run makes of a generator: its repairs, and what was not committed before.
func (m *Monitor) toMake(g *generator) int {
	n := m.run.Samples - g.before
	if m.run.Missing {
		n = dataset.Length(g.Missing)
	}
	for _, t := range g.Repairs {
		n += t.Count()
	}
	return n
}

// soFar is the figure of the plan times the progress.
func (m *Monitor) soFar() *RunCost {
	all, left := 0, 0
	for _, g := range m.generators {
		all += m.toMake(g)
		left += g.left
	}
	c := m.costs
	return c.cost(c.planned.Part(max(0, all-left)), c.planned.Part(all).Dollars, true)
}

// candidates are cells that may show what a generator's samples cost and were not read yet, the newest first: older
// ones may be of another run.
func (m *Monitor) candidates(g *generator) (list []store.CellName) {
	c, seen := m.costs, map[string]bool{}
	for _, n := range slices.Concat(g.names, c.unread[g.Name]) {
		if n.State == store.Complete && c.sampled[g.Name][n.Key] == nil && c.read[n.Key] != n.ETag && !seen[n.Key] &&
			!n.Modified.Before(m.run.Created.Add(-clockSkew)) {
			list = append(list, n)
		}
		seen[n.Key] = true
	}
	slices.SortStableFunc(list, func(a, b store.CellName) int { return b.Modified.Compare(a.Modified) })
	receipts := 0
	for _, traces := range c.sampled[g.Name] {
		receipts += len(traces)
	}
	return list[:min(len(list), max(0, sampledReceipts-receipts))]
}

// sample is what some complete cells of the run show, times the progress; nil if they show nothing yet, or one of them
// cannot be read: then the next poll reads it.
func (m *Monitor) sample(ctx context.Context) *RunCost {
	c, total, unknown := m.costs, plan.Spent{}, false
	for _, g := range m.generators {
		cells := m.candidates(g)
		found, err := m.traces(ctx, cells)
		if c.unread[g.Name] = nil; err != nil {
			c.unread[g.Name], unknown = cells, true
			continue
		}
		if c.sampled[g.Name] == nil {
			c.sampled[g.Name] = map[string][]plan.Trace{}
		}
		for _, n := range cells {
			c.read[n.Key] = n.ETag
		}
		maps.Copy(c.sampled[g.Name], found)
		made := max(0, m.toMake(g)-g.left)
		spent := c.worker.Spent(slices.Concat(slices.Collect(maps.Values(c.sampled[g.Name]))...))
		if spent.Samples > 0 {
			total.Add(spent, made)
		} else if made > 0 { // it has committed samples, and no receipt shows yet what one costs
			unknown = true
		}
	}
	if unknown || total.Receipts == 0 {
		return nil
	}
	cost := c.cost(total, 0, false)
	cost.Sampled = true
	return cost
}

// exact is what the run's receipts show, in the cells that the last poll listed.
func (m *Monitor) exact(ctx context.Context) (*RunCost, error) {
	var cells []store.CellName
	for _, g := range m.generators {
		cells = append(cells, g.names...)
	}
	found, err := m.traces(ctx, cells)
	if err != nil {
		return nil, err
	}
	spent := m.costs.worker.Spent(slices.Concat(slices.Collect(maps.Values(found))...))
	return m.costs.cost(spent, spent.Dollars, false), nil
}

// traces are those of the run's receipts in cells, by the key of the cell.
func (m *Monitor) traces(ctx context.Context, cells []store.CellName) (map[string][]plan.Trace, error) {
	found := map[string][]plan.Trace{}
	for cell, err := range m.store.Cells(ctx, cells) {
		if errors.Is(err, store.ErrDamaged) {
			continue // verify reports it
		}
		if err != nil {
			return nil, err
		}
		for _, r := range cell.Receipts {
			if r.RunID == m.run.ID {
				found[cell.Key()] = append(found[cell.Key()], plan.TraceOf(r))
			}
		}
	}
	return found, nil
}

func (c *costs) cost(spent plan.Spent, expected float64, planned bool) *RunCost {
	return &RunCost{Spent: spent, Expected: expected, Planned: planned, Local: c.local,
		GBSeconds: spent.BusySeconds * float64(c.worker.MemoryMB) / price.MegabytesPerGB}
}
