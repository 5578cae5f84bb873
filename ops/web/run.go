package web

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/monitor"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

const (
	pollEvery      = 5 * time.Second
	pollEveryLocal = time.Second
	linger         = 2 * time.Second // for which a run is polled after its last viewer has left
	firstPoll      = 3 * time.Second // for which a page waits for the first poll
	runsListed     = 100
)

type runData struct {
	ID            string
	Run           task.Run
	Runs          []string
	Live          *liveRun // the last poll; nil if there was none yet
	Paused        bool
	Problem       string // why it is not known whether it is paused
	Pause, Resume string // commands
	Submit        string // command that makes a first run
}

// liveRun is the part of the page that each poll replaces.
type liveRun struct {
	*monitor.Progress
	Rates    *chart
	Causes   []causeBar
	Problem  string // of the last poll
	End      string // "", complete, incomplete or failed
	Repair   string // command
	Failures string // address
}

type causeBar struct {
	Cause task.Cause
	Means string
	N     int
	Width float64 // of 100
}

func (s *Server) runPage(w http.ResponseWriter, r *http.Request, in *browsed) error {
	ids, err := in.Runs(r.Context())
	if err != nil {
		return err
	}
	d := runData{ID: r.FormValue("run"), Runs: ids[:min(len(ids), runsListed)], Pause: s.stackCommand("pause"),
		Resume: s.stackCommand("resume"), Submit: s.command(in, "submit", "--all", "--samples", "100")}
	v := view{Title: "Run", Path: "/run", Command: s.command(in, "monitor", "--watch")}
	if d.ID == "" && len(ids) > 0 {
		d.ID = ids[0]
	}
	if d.ID != "" {
		if d.Run, err = in.findRun(r.Context(), d.ID); err != nil {
			return err
		}
		if !slices.Contains(d.Runs, d.ID) {
			d.Runs = append(d.Runs, d.ID)
		}
		v.Command = s.command(in, "monitor", "--run", d.ID, "--watch")
		f := s.join(in, d.Run)
		defer s.leave(f)
		d.Live = f.first(r.Context())
	}
	if d.Paused, err = s.Paused(r.Context()); err != nil {
		d.Problem = describe(err).Error
	}
	v.Data = d
	return s.show(w, r, in, "run.html", v)
}

func (d *browsed) findRun(ctx context.Context, id string) (task.Run, error) {
	if err := task.CheckName(id); err != nil {
		return task.Run{}, badRequest("run %v", err)
	}
	return d.Run(ctx, id)
}

func (s *Server) runEvents(w http.ResponseWriter, r *http.Request, d *browsed) error {
	run, err := d.findRun(r.Context(), r.FormValue("run"))
	if err != nil {
		return err
	}
	f := s.join(d, run)
	defer s.leave(f)
	follow(w, r, f.topic)
	return nil
}

func (s *Server) switchDelivery(w http.ResponseWriter, r *http.Request, d *browsed) error {
	do := r.FormValue("do")
	if do != "pause" && do != "resume" {
		return badRequest("do is %.40q, it must be pause or resume", do)
	}
	if err := s.Switch(r.Context(), do == "resume"); err != nil {
		return err
	}
	return s.goOn(w, r, d.To("/run"), s.stackCommand(do))
}

// feed polls a run for all who watch it, and ends when nobody does.
type feed struct {
	*topic
	key     string
	viewers int // s.mu guards it
	cancel  context.CancelFunc
}

// join returns the feed of a run. Call leave when the viewer is gone.
func (s *Server) join(d *browsed, run task.Run) *feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := d.Dataset().String() + "/" + run.ID
	f := s.feeds[key]
	if f != nil {
		if e, _ := f.now(); e != nil && e.end != "" { // it has ended: who comes now wants to know how it is now
			f = nil
		}
	}
	if f == nil {
		ctx, cancel := context.WithCancel(s.background)
		f = &feed{topic: newTopic(), key: key, cancel: cancel}
		s.feeds[key] = f
		s.jobs.Go(func() { s.poll(ctx, f, d, run) })
	}
	f.viewers++
	return f
}

func (s *Server) leave(f *feed) {
	time.AfterFunc(linger, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if f.viewers--; f.viewers == 0 {
			f.cancel()
			if s.feeds[f.key] == f {
				delete(s.feeds, f.key)
			}
		}
	})
}

// first waits for the first poll, for a moment.
func (f *feed) first(ctx context.Context) *liveRun {
	e, news := f.now()
	if e == nil {
		select {
		case <-news:
		case <-ctx.Done():
		case <-time.After(firstPoll):
		}
	}
	if e, _ = f.now(); e == nil {
		return nil
	}
	return e.live
}

// poll publishes each poll of a run until it ends.
func (s *Server) poll(ctx context.Context, f *feed, d *browsed, run task.Run) {
	m := monitor.New(d.Store, s.Queue, run)
	costs, err := plan.LoadCosts(s.Flags.LocalDir)
	if err != nil {
		s.Say("note: %v", err)
	}
	m.CountCost(s.Target.Worker(), costs, s.Target.Name == stack.Local)
	interval := pollEvery
	if s.Target.Name == stack.Local {
		interval = pollEveryLocal
	}
	live := liveRun{}
	show := func() {
		live.Failures, live.Repair = d.To("/failures"), s.command(d, "repair", "--run", run.ID)
		now := live
		f.publish(event{s.part("run.html", "live", &now), now.End, &now})
	}
	var perMinute map[int64]int
	committed := 0
	problems := writerFunc(func(line string) { live.Problem = strings.TrimSpace(line); show() })
	out := &ui.Output{Style: &ui.Style{}, Stdout: io.Discard, Stderr: problems}
	last, err := m.WatchLines(ctx, out, interval, func(p *monitor.Progress) error {
		if perMinute == nil {
			perMinute = map[int64]int{}
			for at, n := range m.Times() {
				perMinute[at.Unix()/60] += n
			}
		} else if n := p.Committed - committed; n > 0 {
			perMinute[p.Time.Unix()/60] += n
		}
		committed = p.Committed
		live = liveRun{Progress: p, Causes: causes(p)}
		until := time.Time{}
		if !p.Complete() {
			until = p.Time
		}
		live.Rates = rates(perMinute, until)
		show()
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		live.End, live.Problem = "failed", describe(err).Error
	case last.Complete():
		live.End = "complete"
	default:
		live.End = "incomplete"
	}
	show()
}

func causes(p *monitor.Progress) (list []causeBar) {
	most := 1
	for cause, n := range p.Failures {
		list = append(list, causeBar{Cause: cause, Means: cause.Policy().Means, N: n})
		most = max(most, n)
	}
	slices.SortFunc(list, func(a, b causeBar) int { return cmp.Or(b.N-a.N, cmp.Compare(a.Cause, b.Cause)) })
	for i := range list {
		list[i].Width = 100 * float64(list[i].N) / float64(most)
	}
	return list
}

func (s *Server) part(file, name string, data any) []byte {
	var text bytes.Buffer
	if err := templates()[file].ExecuteTemplate(&text, name, data); err != nil {
		s.Say("the page cannot be drawn: %v", err) // a template and its data do not fit; what was drawn before stays
	}
	return text.Bytes()
}

type writerFunc func(text string)

func (f writerFunc) Write(p []byte) (int, error) {
	f(string(p))
	return len(p), nil
}

// chart is the columns of a bar chart, in the units of its picture.
type chart struct {
	Bars        []bar
	Max         string // what the highest one is
	First, Last string // times below the ends
	Label       string // all of it for who does not see it
}

type bar struct {
	X, Y, Width, Height float64
	Title               string
}

// Size of the picture of a chart.
const (
	chartWidth  = 600
	chartHeight = 100
	chartBars   = 60
)

// rates draws how many samples were committed a minute, from the first minute to the last; of a long run each column
// stands for several minutes.
func rates(perMinute map[int64]int, until time.Time) *chart {
	if len(perMinute) == 0 {
		return nil
	}
	minutes := slices.Sorted(maps.Keys(perMinute))
	first, last := minutes[0], max(minutes[len(minutes)-1], until.Unix()/60)
	width := int64(1)
	for _, next := range []int64{2, 5, 10, 30, 60, 120, 360, 1440, 10080} {
		if (last-first)/width < chartBars {
			break
		}
		width = next
	}
	first = min(first, last-9*width) / width * width // a few columns would be as wide as the page
	columns := make([]int, (last-first)/width+1)
	total := 0
	for minute, n := range perMinute {
		columns[(minute-first)/width] += n
		total += n
	}
	clock := func(minute int64) string {
		t := time.Unix(minute*60, 0)
		if last-first >= 24*60 {
			return t.Format("2006-01-02 15:04")
		}
		return t.Format("15:04")
	}
	most := max(slices.Max(columns), 1)
	c := &chart{First: clock(first), Last: clock(last), Max: fmt.Sprintf("%s/min", perMinuteText(most, width)),
		Label: fmt.Sprintf("Samples a minute from %s to %s: %s in all, at most %s a minute", clock(first), clock(last),
			ui.Count(total), perMinuteText(most, width))}
	step := float64(chartWidth) / float64(len(columns))
	for i, n := range columns {
		if n == 0 {
			continue
		}
		h := max(1, float64(n)/float64(most)*chartHeight)
		c.Bars = append(c.Bars, bar{X: float64(i) * step, Y: chartHeight - h, Width: step * .85, Height: h,
			Title: fmt.Sprintf("%s: %s/min", clock(first+int64(i)*width), perMinuteText(n, width))})
	}
	return c
}

// perMinuteText writes a number of samples in some minutes as a rate.
func perMinuteText(n int, minutes int64) string {
	if rate := float64(n) / float64(minutes); rate < 10 && minutes > 1 {
		return fmt.Sprintf("%.1f", rate)
	}
	return ui.Count(n / int(minutes))
}
