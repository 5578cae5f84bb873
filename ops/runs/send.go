package runs

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/journal"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/monitor"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Sender sends runs to a stack and waits for them.
type Sender struct {
	Target *target.Target
	Queue  *queue.Client
	Store  *store.Store
	Out    *ui.Output
}

// Send sends those tasks of a run that its journal does not have, and returns how many they are. resumed is whether the
// run was sent before. The journal is a file below a folder of this machine: on another one all tasks are sent again,
// and workers ignore them.
func (s *Sender) Send(ctx context.Context, localDir string, run task.Run, resumed bool) (int, error) {
	tasks := run.Plan()
	j, err := openJournal(localDir, s.Target.Name, run.ID)
	if err != nil {
		return 0, err
	}
	defer j.closeFile()
	if resumed && len(j.sent) == 0 {
		s.Out.Say("no journal of run %s is here: all its tasks are sent, and the workers ignore what was sent before", run.ID)
	}
	remaining, places := make([]task.Task, 0, len(tasks)), make([]int, 0, len(tasks))
	for place, x := range tasks {
		if !j.sent[place] {
			remaining, places = append(remaining, x), append(places, place)
		}
	}
	var done atomic.Int64
	done.Store(int64(len(tasks) - len(remaining)))
	err = s.Queue.Send(ctx, remaining, func(i int) error {
		s.Out.Progress("sending", int(done.Add(1)), len(tasks))
		return j.add(places[i])
	})
	if err != nil {
		err = ui.WithHint(fmt.Errorf("%d of %d tasks are sent: %w", done.Load(), len(tasks), err),
			"ops%s submit --resume %s%s", s.Target.Flags(), run.ID, s.Target.In())
	}
	return len(remaining), err
}

// Make stores a run, sends it, and waits until all of it is committed or the queue is
// empty. It keeps no journal: the same command finds what is missing.
func (s *Sender) Make(ctx context.Context, run task.Run) error {
	tasks := run.Plan()
	if err := s.Store.PutRun(ctx, run); err != nil {
		return err
	}
	s.Out.Say("run %s: %s for %s of %s, seed %d", run.ID, ui.Plural(len(tasks), "task"),
		ui.Plural(CountSamples(tasks), "sample"), ui.Plural(len(run.Generators), "generator"), run.Seed)
	if err := s.Queue.Send(ctx, tasks, func(int) error { return nil }); err != nil {
		return err
	}
	_, err := monitor.New(s.Store, s.Queue, run).WatchLines(ctx, s.Out, s.interval(), func(p *monitor.Progress) error {
		s.Out.Progress("samples", p.Committed, p.Expected)
		return nil
	})
	return err
}

// interval is the time between two polls: on AWS each costs requests, and on the local
// stack a run may take less than a second.
func (s *Sender) interval() time.Duration {
	if s.Target.Name == stack.Local {
		return 100 * time.Millisecond
	}
	return 500 * time.Millisecond
}

// WaitIdle waits until the queue is empty: its tasks may make what is missing.
func (s *Sender) WaitIdle(ctx context.Context) error {
	printed := false
	return s.Queue.WaitIdle(ctx, s.interval(), func(d queue.Depth, left time.Duration) {
		switch {
		case d.Total() > 0:
			s.Out.Progress("waiting for tasks in the queue", 0, d.Total())
		case left >= time.Second && !printed:
			printed = true
			s.Out.Say("the queue seems to be empty; SQS may count late, so it is polled for %s more", ui.Span(left))
		}
	})
}

// submitJournal keeps which tasks of a run the queue has confirmed.
type submitJournal struct {
	file *journal.Journal
	sent map[int]bool
}

func openJournal(localDir, stackName, run string) (*submitJournal, error) {
	file, text, err := journal.Open(filepath.Join(localDir, "submits", strings.ReplaceAll(stackName, "/", "_"),
		run+".journal"), fmt.Errorf("run %s is being submitted by another process", run))
	if err != nil {
		return nil, err
	}
	j := &submitJournal{file: file, sent: map[int]bool{}}
	for line := range bytes.Lines(text) {
		// A line that a power failure damaged is no number: its task is sent again.
		if place, err := strconv.Atoi(strings.TrimSuffix(string(line), "\n")); err == nil {
			j.sent[place] = true
		}
	}
	return j, nil
}

// add notes that a task was sent.
func (j *submitJournal) add(place int) error { return j.file.Append(fmt.Appendln(nil, place)) }

func (j *submitJournal) closeFile() { _ = j.file.Close() }
