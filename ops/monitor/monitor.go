// Package monitor polls how far a run is, and what it has cost.
package monitor

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Monitor looks at a run again and again. A generator that is whole is not
// listed again, of others only where there were gaps; and a failure report is
// read once.
type Monitor struct {
	store    *store.Store
	queue    *queue.Client
	run      task.Run
	open     [][]task.Range // by place of the generator: where receipts are missing, in order
	whole    map[string]bool
	reports  map[string]task.Cause // by key; "" for one of another run
	reported [][]string            // their keys, by place of the generator, as they were listed
	past     []observation
	repaired []repaired                // by place of the generator
	partial  []map[string][]task.Range // what cells have that are committed in part, by ETag; by place of the generator
	failing  time.Time                 // since when looks fail; zero while they succeed
	partly   bool                      // the last look did not list everything
	costs    *costs                    // nil where nobody asks for them
	idle     *queue.Idle
}

type observation struct {
	time      time.Time
	committed int
}

// looks is how many requests a look has in flight.
const looks = 16

// peeked is how many messages of the DLQ are looked at for the oldest.
const peeked = 10

// window is how far back the rate looks.
const window = 2 * time.Minute

// patience is how long a watch goes on while looks fail. A run takes hours, and
// neither a network that is away for a moment nor a local stack that is killed
// and started again is the end of it.
const patience = 3 * time.Minute

// forgives reports whether a watch goes on after a look that failed. The first
// one may not fail: then more is wrong than a moment mends.
func (m *Monitor) forgives(ctx context.Context) bool {
	if len(m.past) == 0 || ctx.Err() != nil {
		return false
	}
	if m.failing.IsZero() {
		m.failing = time.Now()
	}
	return time.Since(m.failing) < patience
}

// New returns a monitor of a run that has not polled yet.
func New(st *store.Store, q *queue.Client, run task.Run) *Monitor {
	m := &Monitor{store: st, queue: q, run: run, whole: map[string]bool{}, reports: map[string]task.Cause{},
		reported: make([][]string, len(run.Generators)), idle: q.NewIdle()}
	for range run.Generators {
		m.open = append(m.open, []task.Range{run.Range()})
		m.repaired = append(m.repaired, repaired{})
		m.partial = append(m.partial, map[string][]task.Range{})
	}
	return m
}

// poll counts what is committed and what is left.
func (m *Monitor) poll(ctx context.Context) (*Progress, error) {
	p := &Progress{Run: m.run.ID, Time: time.Now().UTC(), Generators: make([]GeneratorProgress, len(m.run.Generators)),
		Failures: map[task.Cause]int{}}
	toRead := make([][]store.CellName, len(m.run.Generators)) // for the cost
	fresh := make([]int, len(m.run.Generators))               // samples, for the rate
	since := p.Time.Add(-window)
	if m.run.Created.After(since) {
		since = m.run.Created
	}
	m.partly = false
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(looks)
	for i, g := range m.run.Generators {
		m.partly = m.partly || m.whole[g.Name] || len(m.repaired[i]) > 0 ||
			!slices.Equal(m.open[i], []task.Range{m.run.Range()})
		expected := m.run.Samples
		if expected == 0 { // it repairs, and that is all
			for _, t := range g.Repairs {
				expected += t.Count()
			}
		}
		p.Generators[i] = GeneratorProgress{g.Name, expected, expected}
		if m.whole[g.Name] {
			continue
		}
		group.Go(func() error {
			var names []store.CellName
			covered := dataset.Gaps(m.run.Range(), m.open[i]) // seen before
			for _, stretch := range m.stretches(i) {
				there, err := dataset.Coverage(limited, m.store, g.Name, stretch, m.partial[i])
				if err != nil {
					return err
				}
				names = append(names, there.Names...)
				covered = append(covered, there.Ranges...)
			}
			if m.costs != nil {
				toRead[i] = m.costs.choose(i, names, m.run)
			}
			for _, n := range names {
				if n.State == store.Complete && !n.Modified.Before(since.Truncate(time.Second)) { // as the store rounds it
					fresh[i] += task.Range{Start: max(n.Range.Start, m.run.Range().Start),
						End: min(n.Range.End, m.run.Range().End)}.Len()
				}
			}
			left, err := m.repaired[i].left(limited, m.store, g.Repairs, names)
			open := dataset.Gaps(m.run.Range(), covered)
			p.Generators[i].Committed = max(0, expected-dataset.Length(open)-left)
			m.open[i] = open
			return err
		})
	}
	var dlq queue.Depth
	group.Go(func() (err error) { p.Queue, err = m.queue.Depth(limited); return err })
	group.Go(func() (err error) { dlq, err = m.queue.DLQDepth(limited); return err })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := m.countFailures(ctx, p); err != nil { // before it is noted what is whole now
		return nil, err
	}
	for _, g := range p.Generators {
		p.Committed += g.Committed
		p.Expected += g.Expected
		m.whole[g.Name] = g.Committed == g.Expected
	}
	if p.DLQ = dlq.Total(); p.DLQ > 0 {
		oldest, err := m.queue.DLQ(ctx, peeked)
		if err != nil {
			return nil, err
		}
		for _, message := range oldest {
			p.DLQOldest = max(p.DLQOldest, p.Time.Sub(message.Sent).Seconds())
		}
	}
	if m.costs != nil {
		var err error
		if p.Cost, err = m.costs.poll(ctx, m.store, slices.Concat(toRead...), p); err != nil {
			return nil, err
		}
	}
	m.rate(p, fresh, since)
	m.failing = time.Time{}
	return p, nil
}

// stretches returns what of a generator is to be listed: its gaps and the repairs that
// were not seen yet, and what lies between two of them where that is less than the
// names that one request lists.
func (m *Monitor) stretches(place int) []task.Range {
	const page = 1000
	near := page * max(m.run.ChunkSize, 1)
	wanted := slices.Clone(m.open[place])
	for _, t := range m.run.Generators[place].Repairs {
		if !m.repaired[place].seen(m.store.Dataset(), t) {
			wanted = append(wanted, t.Range())
		}
	}
	slices.SortFunc(wanted, func(a, b task.Range) int { return a.Start - b.Start })
	var list []task.Range
	for _, r := range wanted {
		switch k := len(list) - 1; {
		case r.Len() == 0:
		case k >= 0 && r.Start-list[k].End < near:
			list[k].End = max(list[k].End, r.End)
		default:
			list = append(list, r)
		}
	}
	return list
}

// Poll is a look that takes a run for whole only after it has listed
// everything: somebody may have taken back what was committed.
func (m *Monitor) Poll(ctx context.Context) (*Progress, error) {
	p, err := m.poll(ctx)
	if err != nil || !p.Whole() || !m.partly {
		return p, err
	}
	clear(m.whole)
	for i := range m.open {
		clear(m.repaired[i])
		m.open[i] = []task.Range{m.run.Range()}
	}
	return m.poll(ctx)
}

// rate is over the last two minutes of looks. The first look has only the times of
// the receipts: so many samples came since then.
func (m *Monitor) rate(p *Progress, fresh []int, since time.Time) {
	m.past = append(m.past, observation{p.Time, p.Committed})
	for len(m.past) > 2 && p.Time.Sub(m.past[0].time) > window {
		m.past = m.past[1:]
	}
	first := m.past[0]
	came := p.Committed - first.committed
	if len(m.past) == 1 {
		first.time = since
		for _, n := range fresh {
			came += n
		}
	}
	if seconds := p.Time.Sub(first.time).Seconds(); seconds > 0 {
		p.Rate = float64(came) / seconds
	}
	if p.Rate > 0 {
		p.ETASeconds = float64(p.Expected-p.Committed) / p.Rate
	}
}
