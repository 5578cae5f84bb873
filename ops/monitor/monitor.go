// Package monitor polls how far a run is, and what it has cost.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Monitor polls a run. A generator that is complete is not listed again, others only
// where there were gaps; and a failure report is read once.
type Monitor struct {
	store      *store.Store
	queue      *queue.Client
	run        task.Run
	generators []*generator          // by place in the run
	reports    map[string]task.Cause // by key; "" for one of another run
	past       []observation
	failing    time.Time // since when polls fail; zero while they succeed
	partly     bool      // the last poll did not list everything
	costs      *costs    // nil if nobody asks for them
	idle       *queue.Idle
}

// generator is what was seen of one generator of the run.
type generator struct {
	task.RunGenerator
	open     []task.Range // where receipts are missing, in order
	complete bool
	reported []string // keys of failure reports, as they were listed; nil before
	repaired repaired
	partial  map[string]dataset.Partial // cells that are partly committed
	names    []store.CellName           // of the cells that the last poll listed
	fresh    int                        // samples that were committed within the window, for the rate
	left     int                        // samples that the last poll did not find committed, or repaired
	before   int                        // samples that were committed before the run, as complete cells show; -1 at first
}

type observation struct {
	time      time.Time
	committed int
}

const (
	parallel      = 16              // requests that a poll has in flight
	readForOldest = 10              // messages of the DLQ that are read for the oldest
	window        = 2 * time.Minute // how far back the rate goes
	clockSkew     = time.Hour       // by which the clocks of the bucket and of who submitted a run may differ

	// Failure reports that are read in one poll, which takes a second with S3 and a fiftieth of a cent, and of one run,
	// which bounds the memory of a watch.
	readPerPoll = 512
	readPerRun  = 20_000
)

// patience is how long a watch continues while polls fail. A run takes hours, and neither a network that is away for a
// moment nor a local stack that is killed and started again is the end of it.
const patience = 3 * time.Minute

// toleratesFailure reports whether a watch continues after a poll that failed. The first
// one may not fail: then more is wrong than a moment repairs.
func (m *Monitor) toleratesFailure(ctx context.Context) bool {
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
	m := &Monitor{store: st, queue: q, run: run, reports: map[string]task.Cause{}, idle: q.NewIdle()}
	for _, g := range run.Generators {
		m.generators = append(m.generators, &generator{RunGenerator: g, open: []task.Range{run.Range()},
			before: -1, repaired: repaired{}, partial: map[string]dataset.Partial{}})
	}
	return m
}

func (m *Monitor) poll(ctx context.Context) (*Progress, error) {
	p := &Progress{Run: m.run.ID, Time: time.Now().UTC(), Generators: make([]GeneratorProgress, len(m.run.Generators)),
		Failures: map[task.Cause]int{}}
	since := p.Time.Add(-window)
	if m.run.Created.After(since) {
		since = m.run.Created
	}
	m.partly = false
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, g := range m.generators {
		m.partly = m.partly || g.complete || len(g.repaired) > 0 || !slices.Equal(g.open, []task.Range{m.run.Range()})
		expected := m.run.Samples
		if expected == 0 { // the run only repairs
			for _, t := range g.Repairs {
				expected += t.Count()
			}
		}
		p.Generators[i] = GeneratorProgress{g.Name, expected, expected}
		if g.fresh = 0; g.complete {
			continue
		}
		group.Go(func() error {
			var err error
			g.left, err = m.list(limited, g, since)
			p.Generators[i].Committed = max(0, expected-g.left)
			return err
		})
	}
	var dlq queue.Depth
	group.Go(func() (err error) { p.Queue, err = m.queue.Depth(limited); return err })
	group.Go(func() (err error) { dlq, err = m.queue.DLQDepth(limited); return err })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := m.countFailures(ctx, p); err != nil { // before it is noted what is complete now
		return nil, err
	}
	for i, g := range p.Generators {
		p.Committed += g.Committed
		p.Expected += g.Expected
		m.generators[i].complete = g.Committed == g.Expected
	}
	if p.DLQ = dlq.Total(); p.DLQ > 0 {
		oldest, err := m.queue.DLQ(ctx, readForOldest)
		if err != nil {
			return nil, err
		}
		for _, message := range oldest {
			p.DLQOldest = max(p.DLQOldest, p.Time.Sub(message.Sent).Seconds())
		}
	}
	m.rate(p, since)
	m.failing = time.Time{}
	return p, nil
}

// list lists the cells of a generator that may have changed, and returns how many
// samples are left, those counted that are to be repaired.
func (m *Monitor) list(ctx context.Context, g *generator, since time.Time) (left int, err error) {
	g.names = nil
	var open []task.Range
	for _, stretch := range m.stretches(g) {
		missing, names, err := dataset.Missing(ctx, m.store, g.Name, stretch, g.partial)
		if err != nil {
			return 0, err
		}
		g.names = append(g.names, names...)
		for _, r := range missing { // a stretch of repairs may lie beyond the run's range
			if r = intersection(r, m.run.Range()); r.Len() > 0 {
				open = append(open, r)
			}
		}
	}
	for _, n := range g.names {
		if n.State == store.Complete && !n.Modified.Before(since.Truncate(time.Second)) { // as the store rounds it
			g.fresh += intersection(n.Range, m.run.Range()).Len()
		}
	}
	if g.before < 0 { // the first poll lists all
		g.before = 0
		for _, n := range g.names {
			if n.State == store.Complete && n.Modified.Before(m.run.Created.Add(-clockSkew)) {
				g.before += intersection(n.Range, m.run.Range()).Len()
			}
		}
	}
	g.open = open
	left, err = g.repaired.left(ctx, m.store, g.Repairs, g.names)
	return dataset.Length(open) + left, err
}

func intersection(a, b task.Range) task.Range {
	return task.Range{Start: max(a.Start, b.Start), End: min(a.End, b.End)}
}

// stretches returns what of a generator is to be listed: its gaps and the repairs that were not seen yet, and what lies
// between two of them if that is less than the names that one request lists.
func (m *Monitor) stretches(g *generator) []task.Range {
	const page = 1000
	near := page * max(m.run.ChunkSize, 1)
	wanted := slices.Clone(g.open)
	for _, t := range g.Repairs {
		if !g.repaired.seen(m.store.Dataset(), t) {
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

// Poll counts what is committed and what is left. It takes a run for complete only after
// it has listed everything: somebody may have deleted what was committed.
func (m *Monitor) Poll(ctx context.Context) (*Progress, error) {
	p, err := m.poll(ctx)
	if err == nil && p.Complete() && m.partly {
		for _, g := range m.generators {
			g.complete, g.open, g.repaired = false, []task.Range{m.run.Range()}, repaired{}
		}
		p, err = m.poll(ctx)
	}
	if err != nil || m.costs == nil {
		return p, err
	}
	switch {
	case p.Complete():
		p.Cost, err = m.exact(ctx)
	case m.costs.planned != nil:
		p.Cost = m.soFar()
	default:
		p.Cost = m.sample(ctx)
	}
	return p, err
}

// Times yields when how many samples of the run were committed, as far as whole cells show it. After the first poll it
// has all; a later one lists only where samples were missing.
func (m *Monitor) Times() iter.Seq2[time.Time, int] {
	return func(yield func(time.Time, int) bool) {
		for _, g := range m.generators {
			for _, n := range g.names {
				of := intersection(n.Range, m.run.Range()).Len()
				if n.State == store.Complete && of > 0 && !yield(n.Modified, of) {
					return
				}
			}
		}
	}
}

// rate is over the last two minutes of polls. The first poll has only the times of
// the receipts: so many samples came since then.
func (m *Monitor) rate(p *Progress, since time.Time) {
	m.past = append(m.past, observation{p.Time, p.Committed})
	for len(m.past) > 2 && p.Time.Sub(m.past[0].time) > window {
		m.past = m.past[1:]
	}
	first := m.past[0]
	came := p.Committed - first.committed
	if len(m.past) == 1 {
		first.time = since
		for _, g := range m.generators {
			came += g.fresh
		}
	}
	if seconds := p.Time.Sub(first.time).Seconds(); seconds > 0 {
		p.Rate = float64(came) / seconds
	}
	if p.Rate > 0 {
		p.ETASeconds = float64(p.Expected-p.Committed) / p.Rate
	}
}

// repaired keeps the ETags of cells in which a run has repairs, and "" for those that were seen done.
type repaired map[string]string

// left counts the samples of a run's repairs that are not committed yet, given the
// cells that are there. Those that have changed are read.
func (d repaired) left(ctx context.Context, st *store.Store, repairs []task.Task, names []store.CellName) (int, error) {
	type repair struct {
		task  task.Task
		chunk task.Chunk
	}
	open := map[string][]repair{} // by the key of the cell
	left := 0
	for _, t := range repairs {
		for _, c := range t.Chunks() {
			key := st.Dataset().CellKey(t.Generator, c.Cell)
			if tag, known := d[key]; !known || tag != "" {
				open[key] = append(open[key], repair{t, c})
				left += len(c.Kept())
			}
		}
	}
	names = slices.DeleteFunc(slices.Clone(names), func(n store.CellName) bool {
		return open[n.Key] == nil || len(open[n.Key]) == 1 && d[n.Key] == n.ETag
	})
	for cell, err := range st.Cells(ctx, names) {
		if errors.Is(err, store.ErrDamaged) {
			continue // verify reports it
		}
		if err != nil {
			return 0, err
		}
		done := 0
		for _, r := range open[cell.Key()] {
			if r.task.Restore > 0 && cell.Restorable(r.task, r.chunk) < 0 ||
				r.task.Restore == 0 && cell.Repaired(r.task, r.chunk) {
				done++
				left -= len(r.chunk.Kept())
			}
		}
		if d[cell.Key()] = cell.ETag(); done == len(open[cell.Key()]) {
			d[cell.Key()] = ""
		}
	}
	return left, nil
}

// seen reports whether all of a repair was seen done.
func (d repaired) seen(in task.Dataset, t task.Task) bool {
	return !slices.ContainsFunc(t.Chunks(), func(c task.Chunk) bool {
		tag, known := d[in.CellKey(t.Generator, c.Cell)]
		return !known || tag != ""
	})
}

// countFailures counts the failure reports of the run by cause. It lists the generators side by side, but for those
// that are complete, which get no more reports; then it reads new reports that can be the run's.
func (m *Monitor) countFailures(ctx context.Context, p *Progress) error {
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, g := range m.generators {
		if g.complete && g.reported != nil {
			continue
		}
		group.Go(func() error {
			keys := []string{}
			for o, err := range m.store.List(limited, m.store.Dataset().FailuresPrefix(g.Name), "") {
				if err != nil {
					return err
				}
				if o.Modified.After(m.run.Created.Add(-clockSkew)) {
					keys = append(keys, o.Key)
				}
			}
			g.reported = keys
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	var keys []string
	for _, g := range m.generators {
		keys = append(keys, g.reported...)
	}
	unread := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { _, known := m.reports[key]; return known })
	unread = unread[:min(len(unread), readPerPoll, max(0, readPerRun-len(m.reports)))]
	causes := make([]task.Cause, len(unread))
	group, limited = errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, key := range unread {
		group.Go(func() error {
			f, err := m.store.Failure(limited, key)
			if f.RunID == m.run.ID {
				causes[i] = f.Cause
			}
			if errors.Is(err, store.ErrNotFound) {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, key := range unread {
		m.reports[key] = causes[i]
	}
	for _, key := range keys {
		switch cause, read := m.reports[key]; {
		case !read:
			p.Unread++
		case cause != "":
			p.Failures[cause]++
		}
	}
	return nil
}

func (p *Progress) failed() bool { return len(p.Failures) > 0 || p.Unread > 0 }

func (p *Progress) causes() string {
	var list []string
	causes := slices.SortedFunc(slices.Values(task.Causes()),
		func(a, b task.Cause) int { return p.Failures[b] - p.Failures[a] })
	for _, c := range causes {
		if n := p.Failures[c]; n > 0 {
			list = append(list, fmt.Sprintf("%s %d", c, n))
		}
	}
	if p.Unread > 0 {
		list = append(list, ui.Count(p.Unread)+" more that were not read")
	}
	return strings.Join(list, ", ")
}
