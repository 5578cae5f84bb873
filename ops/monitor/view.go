package monitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// watchLive shows the run on the full screen, until it is done or the person leaves with q or Ctrl-C.
func (m *Monitor) watchLive(ctx context.Context, interval time.Duration) (*Progress, error) {
	lipgloss.SetDefaultRenderer(lipgloss.NewRenderer(os.Stderr)) // standard output is for the data, and may be a file
	v := &view{monitor: m, interval: interval, context: ctx, started: time.Now(), width: 80, height: 24}
	if _, err := tea.NewProgram(v, tea.WithOutput(os.Stderr), tea.WithAltScreen(),
		tea.WithContext(ctx)).Run(); err != nil && v.err == nil && !v.left && !v.stopped {
		return nil, err
	}
	switch {
	case v.stopped || ctx.Err() != nil:
		return nil, errors.New("stopped")
	case v.left:
		return v.progress, ErrLeft
	case v.err != nil:
		return nil, v.err
	}
	return v.progress, nil
}

// ErrLeft says that the person left the live view while the run continues.
var ErrLeft = errors.New("left")

type view struct {
	monitor       *Monitor
	context       context.Context // bubbletea's commands take none
	interval      time.Duration
	started       time.Time
	progress      *Progress
	err           error // of the last poll
	left, stopped bool  // by a key
	width, height int
}

type (
	polled struct {
		progress *Progress
		err      error
	}
	again struct{}
)

func (v *view) poll() tea.Msg {
	p, err := v.monitor.Poll(v.context)
	return polled{p, err}
}

// Init starts the first poll.
func (v *view) Init() tea.Cmd { return v.poll }

// Update takes a poll's result, a key or a new size.
func (v *view) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		v.width, v.height = msg.Width, msg.Height
	case tea.KeyMsg:
		switch msg.String() {
		case "q", "esc":
			v.left = true
			return v, tea.Quit
		case "ctrl+c":
			v.stopped = true
			return v, tea.Quit
		}
	case polled:
		var end bool
		if v.err = msg.err; v.err != nil {
			end = !v.monitor.toleratesFailure(v.context)
		} else {
			v.progress = msg.progress
			end = v.monitor.done(v.progress)
		}
		if end {
			return v, tea.Quit
		}
		return v, tea.Tick(v.interval, func(time.Time) tea.Msg { return again{} })
	case again:
		return v, v.poll
	}
	return v, nil
}

var (
	bold  = lipgloss.NewStyle().Bold(true)
	faint = lipgloss.NewStyle().Faint(true)
	good  = lipgloss.NewStyle().Foreground(lipgloss.AdaptiveColor{Light: "28", Dark: "78"})
	bad   = lipgloss.NewStyle().Foreground(lipgloss.AdaptiveColor{Light: "160", Dark: "203"})
)

// View draws the state to fit the terminal: a low one has no empty lines and shows fewer generators.
func (v *view) View() string {
	p := v.progress
	if p == nil {
		return "\n  polling ...\n"
	}
	var gap []string
	if v.height >= 16 {
		gap = []string{""}
	}
	rate := fmt.Sprintf("%s of %s samples%s", ui.Count(p.Committed), ui.Count(p.Expected), p.speed())
	head := slices.Concat([]string{bold.Render("run "+p.Run) + faint.Render("  "+ui.Span(time.Since(v.started)))}, gap,
		[]string{bar(p.Committed, p.Expected, max(10, min(v.width-12, 60))) + fmt.Sprintf(" %5.1f %%", p.Percent()), rate},
		gap)
	tail := slices.Concat(gap, []string{fmt.Sprintf("queue  %s waiting  %s in flight  %s delayed",
		ui.Count(p.Queue.Waiting), ui.Count(p.Queue.InFlight), ui.Count(p.Queue.Delayed)) + p.settling()})
	if p.DLQ > 0 {
		tail = append(tail, bad.Render("dlq    "+p.dlqText()))
	}
	if p.failed() {
		tail = append(tail, bad.Render("failures  "+p.causes()))
	}
	if p.Cost != nil {
		tail = append(tail, "cost   "+p.Cost.String())
	}
	if v.err != nil {
		tail = append(tail, bad.Render(ui.Cut("poll failed, trying again: "+ui.Plain(v.err), 300)))
	}
	tail = slices.Concat(tail, gap, []string{faint.Render("q leaves; the run continues")})

	lines := slices.Concat(head, v.generators(max(1, v.height-len(head)-len(tail)-1)), tail)
	fit := lipgloss.NewStyle().MaxWidth(v.width)
	for i, line := range lines {
		lines[i] = fit.Render(line)
	}
	return strings.Join(lines, "\n") + "\n"
}

// generators are the lines of the generators, at most room of them. If not all have one, the incomplete come first.
func (v *view) generators(room int) []string {
	shown := slices.Clone(v.progress.Generators)
	if len(shown) > room {
		slices.SortStableFunc(shown, func(a, b GeneratorProgress) int {
			return cmp.Compare(a.Committed/max(a.Expected, 1), b.Committed/max(b.Expected, 1))
		})
		shown = shown[:room-1]
	}
	name, number := 0, 0
	for _, g := range shown {
		name, number = max(name, len(g.Name)), max(number, len(ui.Count(g.Expected)))
	}
	const barWidth = 12
	name = min(name, max(8, v.width-barWidth-2*number-3))
	var lines []string
	for _, g := range shown {
		lines = append(lines, fmt.Sprintf("%-*s %s %*s/%s", name, ui.Cut(g.Name, name),
			bar(g.Committed, g.Expected, barWidth), number, ui.Count(g.Committed), ui.Count(g.Expected)))
	}
	if hidden := len(v.progress.Generators) - len(shown); hidden > 0 {
		lines = append(lines, faint.Render(fmt.Sprintf("and %d more", hidden)))
	}
	return lines
}

func bar(done, total, width int) string {
	full := width
	if total > 0 {
		full = min(width, width*done/total)
	}
	style := lipgloss.NewStyle()
	if done >= total {
		style = good
	}
	return style.Render(strings.Repeat("█", full)) + faint.Render(strings.Repeat("░", width-full))
}

// Watch polls until the run is complete, or nothing is left that could complete it. Each
// poll is shown: live on a terminal, else as a line, or as JSON.
func (m *Monitor) Watch(ctx context.Context, o *ui.Output, interval time.Duration) (*Progress, error) {
	if o.Terminal && !o.JSON {
		p, err := m.watchLive(ctx, interval)
		if p != nil { // the live view leaves nothing behind
			err = errors.Join(err, o.Print(p, p.Table))
		}
		return p, err
	}
	return m.WatchLines(ctx, o, interval, func(p *Progress) error {
		if o.JSON {
			return o.Print(p, nil)
		}
		o.Say("%s", p.line())
		return nil
	})
}

// WatchLines polls as Watch does and reports each poll.
func (m *Monitor) WatchLines(ctx context.Context, o *ui.Output, interval time.Duration,
	report func(*Progress) error) (*Progress, error) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		p, err := m.Poll(ctx)
		switch {
		case err == nil:
			done := m.done(p)
			if err := report(p); err != nil {
				return nil, err
			}
			if done {
				return p, nil
			}
		case m.toleratesFailure(ctx):
			o.Say("poll failed: %s; trying again", ui.Plain(err))
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

// done reports whether a watch can end: the run is complete, or nothing is left that could commit more.
func (m *Monitor) done(p *Progress) bool {
	idle := m.idle.Observe(p.Queue, p.Time)
	p.Settling = 0
	if !p.Complete() && !idle && p.Queue.Total() == 0 {
		p.Settling = m.idle.Remaining(p.Time).Seconds()
	}
	return p.Complete() || idle
}
