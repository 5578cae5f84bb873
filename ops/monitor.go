package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// MonitorCmd shows how far a run is.
type MonitorCmd struct {
	inDataset
	Run_     string  `help:"Run to show. Default: the newest." name:"run" placeholder:"ID"`
	Watch    bool    `help:"Go on until the run is done: a live view on a terminal, a line per look elsewhere." short:"w"`
	Interval float64 `help:"Seconds between two looks." default:"5"`
}

// Help is the long help.
func (*MonitorCmd) Help() string {
	return `Counts come from the receipts, so they are what is whole in the bucket. So does the rate: it is that of the last two minutes, and the ETA goes by it.

What the run has cost comes from them too: they tell what the generators took, and how long the workers were at work for it follows from their CPUs. It is an estimate, without tries that failed, and from some of the receipts where there are many; the bill comes from AWS. Of the local stack, which costs nothing, it is what the same would cost in Lambda.

With --watch it ends with exit status 0 when the run is whole, and with 2 when nothing is left to do and it is not. SQS counts up to a minute late, so a queue is empty when it has looked so for 90 seconds; the local one counts exactly. Leaving the live view with q ends with 0: the run goes on.

Examples:
  ops --stack dev monitor
  ops --stack dev monitor --watch
  ops --stack dev monitor --run 20260801t101500.000-1f2e3d4c --json`
}

// Validate checks the flags.
func (c *MonitorCmd) Validate() error {
	if c.Interval < 0.1 {
		return ui.Usage("--interval is %g, it must be at least 0.1", c.Interval)
	}
	return nil
}

// Run looks once, or until the run is done.
func (c *MonitorCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store) error {
	run, err := findRun(ctx, st, c.Run_, t)
	if err != nil {
		return err
	}
	m := newMonitor(st, q, run)
	m.costs = newCosts(t, len(run.Generators))
	if !c.Watch {
		p, err := m.look(ctx)
		if err != nil {
			return err
		}
		return o.Print(p, p.table)
	}
	interval := time.Duration(c.Interval * float64(time.Second))
	p, err := watch(ctx, o, m, interval)
	if errors.Is(err, errLeft) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.verdict(t)
}

// findRun returns a run, the newest if no id is given. For an id that is none it
// names the newest ones.
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
		return task.Run{}, ui.WithHint(errors.New("there is no run yet"), "ops%s submit --all --samples 100%s", t.Flags(), t.In())
	case id != "":
		return task.Run{}, ui.WithHint(fmt.Errorf("there is no run %s", id), "one of the newest: %s", ui.Some(ids[:min(len(ids), 3)], 10))
	}
	return st.Run(ctx, ids[0])
}

// Progress is how far a run is at one moment.
type Progress struct {
	Run        string              `json:"run"`
	Time       time.Time           `json:"time"`
	Generators []GeneratorProgress `json:"generators"`
	Committed  int                 `json:"committed"` // samples
	Expected   int                 `json:"expected"`  // samples
	Rate       float64             `json:"rate"`      // samples per second, in the last two minutes
	ETASeconds float64             `json:"eta_seconds,omitempty"`
	Queue      queue.Depth         `json:"queue"`
	Settling   float64             `json:"queue_settling_seconds,omitempty"` // for how long an empty queue is watched still, because counts lag
	DLQ        int                 `json:"dlq"`
	DLQOldest  float64             `json:"dlq_oldest_seconds,omitempty"`
	Failures   map[task.Cause]int  `json:"failures,omitempty"`        // reports, by cause
	Unread     int                 `json:"failures_unread,omitempty"` // reports that were too many to be read
	Cost       *RunCost            `json:"cost,omitempty"`
}

// GeneratorProgress is how far one generator is.
type GeneratorProgress struct {
	Name      string `json:"name"`
	Committed int    `json:"committed"`
	Expected  int    `json:"expected"`
}

// whole reports whether everything is committed.
func (p *Progress) whole() bool { return p.Committed >= p.Expected }

// monitor looks at a run again and again. A generator that is whole is not
// listed again, of others only where there were gaps; and a failure report is
// read once.
type monitor struct {
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
func (m *monitor) forgives(ctx context.Context) bool {
	if len(m.past) == 0 || ctx.Err() != nil {
		return false
	}
	if m.failing.IsZero() {
		m.failing = time.Now()
	}
	return time.Since(m.failing) < patience
}

func newMonitor(st *store.Store, q *queue.Client, run task.Run) *monitor {
	m := &monitor{store: st, queue: q, run: run, whole: map[string]bool{}, reports: map[string]task.Cause{}, reported: make([][]string, len(run.Generators)), idle: q.NewIdle()}
	for range run.Generators {
		m.open = append(m.open, []task.Range{run.Range()})
		m.repaired = append(m.repaired, repaired{})
		m.partial = append(m.partial, map[string][]task.Range{})
	}
	return m
}

// look counts what is committed and what is left.
func (m *monitor) look(ctx context.Context) (*Progress, error) {
	p := &Progress{Run: m.run.ID, Time: time.Now().UTC(), Generators: make([]GeneratorProgress, len(m.run.Generators)), Failures: map[task.Cause]int{}}
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
		m.partly = m.partly || m.whole[g.Name] || len(m.repaired[i]) > 0 || !slices.Equal(m.open[i], []task.Range{m.run.Range()})
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
			covered := gaps(m.run.Range(), m.open[i]) // seen before
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
					fresh[i] += task.Range{Start: max(n.Range.Start, m.run.Range().Start), End: min(n.Range.End, m.run.Range().End)}.Len()
				}
			}
			left, err := m.repaired[i].left(limited, m.store, m.run.ID, g.Repairs, names)
			open := gaps(m.run.Range(), covered)
			p.Generators[i].Committed = max(0, expected-length(open)-left)
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
		if p.Cost, err = m.costs.look(ctx, m.store, slices.Concat(toRead...), p); err != nil {
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
func (m *monitor) stretches(place int) []task.Range {
	const page = 1000
	near := page * max(m.run.ChunkSize, 1)
	wanted := slices.Clone(m.open[place])
	for _, t := range m.run.Generators[place].Repairs {
		if !m.repaired[place].seen(t) {
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

// lookSurely is a look that takes a run for whole only after it has listed
// everything: somebody may have taken back what was committed.
func (m *monitor) lookSurely(ctx context.Context) (*Progress, error) {
	p, err := m.look(ctx)
	if err != nil || !p.whole() || !m.partly {
		return p, err
	}
	clear(m.whole)
	for i := range m.open {
		clear(m.repaired[i])
		m.open[i] = []task.Range{m.run.Range()}
	}
	return m.look(ctx)
}

// rate is over the last two minutes of looks. The first look has only the times of
// the receipts: so many samples came since then.
func (m *monitor) rate(p *Progress, fresh []int, since time.Time) {
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

// speed is the rate and the ETA, "" where nothing has been committed lately.
func (p *Progress) speed() string {
	if p.Rate <= 0 {
		return ""
	}
	s := fmt.Sprintf("  %.1f/s", p.Rate)
	if p.ETASeconds > 0 {
		s += "  ETA " + ui.Span(time.Duration(p.ETASeconds*float64(time.Second)))
	}
	return s
}

// settling says why a watch of an empty queue goes on, "" where it does not.
func (p *Progress) settling() string {
	if p.Settling < 1 {
		return ""
	}
	return fmt.Sprintf("  (empty: watched for %s more, counts may be late)", ui.Span(time.Duration(p.Settling*float64(time.Second))))
}

// dead is how many messages the DLQ has, and for how long.
func (p *Progress) dead() string {
	if p.DLQ == 0 {
		return "0"
	}
	least := ""
	if p.DLQ > peeked { // SQS shows them in no order
		least = "at least "
	}
	return fmt.Sprintf("%s, the oldest for %s%s", ui.Count(p.DLQ), least, ui.Span(time.Duration(p.DLQOldest*float64(time.Second))))
}

// watch looks until the run is whole, or nothing is left that could make it so.
func watch(ctx context.Context, o *Output, m *monitor, interval time.Duration) (*Progress, error) {
	if o.Terminal && !o.JSON {
		p, err := watchLive(ctx, m, interval)
		if p != nil { // the live view leaves nothing behind
			err = errors.Join(err, o.Print(p, p.table))
		}
		return p, err
	}
	return watchLines(ctx, o, m, interval, func(p *Progress) error {
		if o.JSON {
			return o.Print(p, nil)
		}
		o.Say("%s", p.line())
		return nil
	})
}

// watchLines tells each look.
func watchLines(ctx context.Context, o *Output, m *monitor, interval time.Duration, tell func(*Progress) error) (*Progress, error) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		p, err := m.lookSurely(ctx)
		switch {
		case err == nil:
			done := m.done(p)
			if err := tell(p); err != nil {
				return nil, err
			}
			if done {
				return p, nil
			}
		case m.forgives(ctx):
			o.Say("no look: %s; trying again", ui.Plain(err))
		default:
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// done reports whether a watch can end: the run is whole, or nothing is left that
// could commit more.
func (m *monitor) done(p *Progress) bool {
	idle := m.idle.See(p.Queue, p.Time)
	p.Settling = 0
	if !p.whole() && !idle && p.Queue.Total() == 0 {
		p.Settling = m.idle.Left(p.Time).Seconds()
	}
	return p.whole() || idle
}

// verdict is the end of a watch: nil for a whole run.
func (p *Progress) verdict(t *target.Target) error {
	if p.whole() {
		return nil
	}
	return ui.WithHint(ui.Problem("the run is not whole: %s missing, and the queue is empty", ui.Plural(p.Expected-p.Committed, "sample")),
		"ops%s dlq list, then ops%s submit --missing --run %s%s", t.Flags(), t.Flags(), p.Run, t.In())
}

// line is a look in one line.
func (p *Progress) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s/%s samples  %.1f %%", p.Time.Local().Format("15:04:05"), ui.Count(p.Committed), ui.Count(p.Expected), p.percent())
	b.WriteString(p.speed())
	fmt.Fprintf(&b, "  queue %d waiting %d in flight %d delayed  dlq %s", p.Queue.Waiting, p.Queue.InFlight, p.Queue.Delayed, p.dead())
	b.WriteString(p.settling())
	if p.failed() {
		fmt.Fprintf(&b, "  failures %s", p.causes())
	}
	if p.Cost != nil && !p.Cost.Local {
		fmt.Fprintf(&b, "  USD %s", ui.Dollars(p.Cost.Dollars))
	}
	return b.String()
}

func (p *Progress) percent() float64 {
	if p.Expected == 0 {
		return 100
	}
	return 100 * float64(p.Committed) / float64(p.Expected)
}

func (p *Progress) table(w io.Writer) {
	fmt.Fprintf(w, "run %s\n", p.Run)
	fmt.Fprintln(w, "GENERATOR\tCOMMITTED\tEXPECTED\t")
	for _, g := range p.Generators {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1f %%\n", g.Name, ui.Count(g.Committed), ui.Count(g.Expected), 100*float64(g.Committed)/float64(max(g.Expected, 1)))
	}
	fmt.Fprintf(w, "all\t%s\t%s\t%.1f %%%s\n", ui.Count(p.Committed), ui.Count(p.Expected), p.percent(), p.speed())
	fmt.Fprintf(w, "queue\t%d waiting, %d in flight, %d delayed\n", p.Queue.Waiting, p.Queue.InFlight, p.Queue.Delayed)
	fmt.Fprintf(w, "dlq\t%s\n", p.dead())
	if p.failed() {
		fmt.Fprintf(w, "failures\t%s\n", p.causes())
	}
	if p.Cost != nil {
		fmt.Fprintf(w, "cost\t%s\n", p.Cost)
	}
}
