package monitor

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// midway is a poll of a run of fifty generators.
func midway() *Progress {
	p := &Progress{Run: "20260801t101500.000-1f2e3d4c", Rate: 12.5, ETASeconds: 3725,
		Queue: queue.Depth{Waiting: 4000, InFlight: 10, Delayed: 1},
		DLQ:   2, DLQOldest: 62, Failures: map[task.Cause]int{task.Crashed: 3, task.TimedOut: 12}}
	for i := range 50 {
		g := GeneratorProgress{Name: fmt.Sprintf("a-generator-with-a-long-name-%02d-task-data-generator", i),
			Committed: min(10_000, i*400), Expected: 10_000}
		p.Committed, p.Expected = p.Committed+g.Committed, p.Expected+g.Expected
		p.Generators = append(p.Generators, g)
	}
	return p
}

// The live view fits every terminal, and what counts is on each.
func TestViewFits(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {40, 10}, {60, 15}, {200, 60}, {120, 40}, {80, 12}} {
		v := &view{started: time.Now(), progress: midway()}
		v.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		text := v.View()
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if len(lines) > size[1] {
			t.Errorf("%v: %d lines\n%s", size, len(lines), text)
		}
		for _, line := range lines {
			if lipgloss.Width(line) > size[0] {
				t.Errorf("%v: %d columns: %s", size, lipgloss.Width(line), line)
			}
		}
		for _, word := range []string{"74.0 %", "dlq", "q leaves"} {
			if !strings.Contains(text, word) {
				t.Errorf("%v: no %q in\n%s", size, word, text)
			}
		}
	}
}

// The picture of a usual terminal.
func TestView(t *testing.T) {
	p := midway()
	p.Generators = p.Generators[:2]
	p.Generators[0], p.Generators[1] = GeneratorProgress{"chess-task", 10_000, 10_000},
		GeneratorProgress{"maze-task", 2_500, 10_000}
	p.Committed, p.Expected = 12_500, 20_000
	v := &view{started: time.Now(), progress: p, width: 80, height: 24}
	got := v.View()
	got = got[strings.Index(got, "\n"):] // the first line has the time
	want := `

█████████████████████████████████████░░░░░░░░░░░░░░░░░░░░░░░  62.5 %
12,500 of 20,000 samples  12.5/s  ETA 1h02m

chess-task ████████████ 10,000/10,000
maze-task  ███░░░░░░░░░  2,500/10,000

queue  4,000 waiting  10 in flight  1 delayed
dlq    2, the oldest for 1m02s
failures  timed_out 12, crashed 3

q leaves; the run continues
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The view polls again after each poll, and ends when there is nothing to wait
// for, when polls fail for long, and when the person leaves.
func TestViewEnds(t *testing.T) {
	quits := func(cmd tea.Cmd) bool {
		if cmd == nil {
			return false
		}
		_, quit := cmd().(tea.QuitMsg)
		return quit
	}
	v := &view{interval: time.Millisecond, context: t.Context(), monitor: &Monitor{idle: &queue.Idle{}}}
	if _, cmd := v.Update(polled{progress: midway()}); quits(cmd) {
		t.Error("it ends midway")
	}
	if _, cmd := v.Update(tea.KeyMsg{Type: tea.KeyCtrlC}); !quits(cmd) || !v.stopped {
		t.Error("Ctrl-C does not end it")
	}
	complete := midway()
	complete.Committed = complete.Expected
	if _, cmd := v.Update(polled{progress: complete}); !quits(cmd) {
		t.Error("it goes on when the run is complete")
	}
	if _, cmd := v.Update(polled{err: context.DeadlineExceeded}); !quits(cmd) || v.err == nil {
		t.Error("it goes on when the first poll failed")
	}
	v.monitor.past = []observation{{time.Now(), 5}}
	if _, cmd := v.Update(polled{err: context.DeadlineExceeded}); quits(cmd) ||
		!strings.Contains(v.View(), "trying again") {
		t.Errorf("it ends when a later poll failed, or does not say so:\n%s", v.View())
	}
	v.monitor.failing = time.Now().Add(-patience)
	if _, cmd := v.Update(polled{err: context.DeadlineExceeded}); !quits(cmd) {
		t.Error("it goes on when polls fail for long")
	}
}
