package runs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
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

// interval is the time between two polls: each costs requests on AWS, and a local run may take less than a second.
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

func (j *submitJournal) add(place int) error { return j.file.Append(fmt.Appendln(nil, place)) }

func (j *submitJournal) closeFile() { _ = j.file.Close() }

// ForPlan returns a new run for a repair plan, which is of a run, or of none if old has no id.
func ForPlan(plan *dataset.Plan, old task.Run, version string) (task.Run, error) {
	if plan.Run == "" {
		run := task.Run{Start: plan.Range.Start, Samples: plan.Range.Len(), Batch: task.DefaultBatch,
			ChunkSize: task.DefaultChunkSize, Format: task.Files, Version: version}
		for _, p := range plan.Generators {
			run.Generators = append(run.Generators, task.RunGenerator{Name: p.Name})
		}
		return Follow(run), nil
	}
	for _, p := range plan.Generators {
		if !slices.ContainsFunc(old.Generators, func(g task.RunGenerator) bool { return g.Name == p.Name }) {
			return old, fmt.Errorf("%s is no generator of run %s", p.Name, plan.Run)
		}
	}
	return Follow(old), nil
}

// AddRepairs narrows a run to what is missing and adds the tasks of a repair plan: those that restore what is gone, and
// with overwrite those that replace what is wrong. changed counts receipts and samples that changed since the plan was
// made, which are left alone; left counts what needs overwrite.
func AddRepairs(ctx context.Context, st *store.Store, run *task.Run, plan *dataset.Plan,
	overwrite bool) (changed, left int, err error) {
	if *run, err = dataset.Narrow(ctx, st, *run); err != nil {
		return 0, 0, err
	}
	used, err := usedAttempt(ctx, st)
	if err != nil {
		return 0, 0, err
	}
	for _, p := range plan.Generators {
		i := slices.IndexFunc(run.Generators, func(g task.RunGenerator) bool { return g.Name == p.Name })
		g := &run.Generators[i]
		refs := p.Gone
		if overwrite {
			refs = append(slices.Clone(refs), p.Corrupt...)
		} else {
			left += len(p.Corrupt) + len(p.Replace) + len(p.Remove)
		}
		tasks, skipped, err := dataset.Restorations(ctx, st, p.Name, refs)
		if err != nil {
			return 0, 0, err
		}
		changed += skipped
		if overwrite && len(p.Replace) > 0 {
			indices, skipped, attempt, err := dataset.Replaceable(ctx, st, p.Name, p.Replace)
			if err != nil {
				return 0, 0, err
			}
			changed += skipped
			tasks = append(tasks, dataset.RepairTasks(*run, *g, dataset.NextAttempt(max(used, attempt)), indices)...)
		}
		g.Repairs = tasks
	}
	return changed, left, nil
}

// usedAttempt is the highest attempt that a repair task of any run was sent with.
func usedAttempt(ctx context.Context, st *store.Store) (int, error) {
	ids, err := st.Runs(ctx)
	if err != nil {
		return 0, err
	}
	used := 0
	for _, id := range ids {
		run, err := st.Run(ctx, id)
		if err != nil {
			return 0, err
		}
		used = max(used, dataset.UsedAttempt(run))
	}
	return used, nil
}

// fill makes what is missing of a run, and returns a run over the same samples with nothing missing.
func (s *Sender) fill(ctx context.Context, order *Order, run task.Run) (task.Run, error) {
	if err := s.WaitIdle(ctx); err != nil {
		return run, err
	}
	if _, err := order.Pin(ctx, s.Store, &run, true); err != nil {
		return run, err
	}
	run, err := dataset.Narrow(ctx, s.Store, run)
	if err != nil {
		return run, err
	}
	tasks := run.Plan()
	if len(tasks) == 0 {
		return run, nil
	}
	s.Out.Say("%s missing: they are made first", ui.Plural(CountSamples(tasks), "sample"))
	if err := s.makeAll(ctx, run); err != nil {
		return run, err
	}
	run, err = dataset.Narrow(ctx, s.Store, Follow(run))
	if left := CountSamples(run.Plan()); err == nil && left > 0 {
		err = ui.WithHint(ui.Problem("%s still missing: duplicates are replaced when nothing is missing",
			ui.Plural(left, "sample")), "ops%s dlq list", s.Target.Flags())
	}
	return run, err
}

// makeAll makes a run and waits for the tasks that failed once and are retried.
func (s *Sender) makeAll(ctx context.Context, run task.Run) error {
	if err := s.Make(ctx, run); err != nil {
		return err
	}
	return s.WaitIdle(ctx)
}

// ReplaceDuplicates fills a run's gaps and replaces later ones of equal samples, by at most limit times its samples.
func (s *Sender) ReplaceDuplicates(ctx context.Context, order *Order, run task.Run,
	limit float64) ([]dataset.Outcome, error) {
	run, err := s.fill(ctx, order, run)
	if err != nil {
		return nil, err
	}
	return s.rounds(ctx, run, limit, func(ctx context.Context, repairs [][]task.Task) error {
		return s.makeAll(ctx, withRepairs(Follow(run), repairs))
	})
}

// errFirstRound ends the rounds before the first one sends anything.
var errFirstRound = errors.New("first round")

// FirstRound returns a run with the tasks that ReplaceDuplicates would send first for duplicates. It sends nothing.
func (s *Sender) FirstRound(ctx context.Context, run task.Run, limit float64) (task.Run, error) {
	_, err := s.rounds(ctx, run, limit, func(_ context.Context, repairs [][]task.Task) error {
		run = withRepairs(run, repairs)
		return errFirstRound
	})
	if errors.Is(err, errFirstRound) {
		err = nil
	}
	return run, err
}

func withRepairs(run task.Run, repairs [][]task.Task) task.Run {
	for i := range run.Generators {
		run.Generators[i].Repairs = repairs[i]
	}
	return run
}

func (s *Sender) rounds(ctx context.Context, run task.Run, limit float64,
	repair func(context.Context, [][]task.Task) error) ([]dataset.Outcome, error) {
	used, err := usedAttempt(ctx, s.Store)
	if err != nil {
		return nil, err
	}
	rounds := &dataset.Rounds{
		Run: run, Limit: limit, Used: used,
		Read: func(ctx context.Context, v *dataset.View) error {
			err := v.Read(ctx, s.Store)
			if errors.Is(err, store.ErrDamaged) {
				return ui.WithHint(err, "ops%s verify --deep%s", s.Target.Flags(), s.Target.In())
			}
			return err
		},
		Repair: repair,
		Report: func(line string) { s.Out.Say("%s", line) },
	}
	return rounds.Do(ctx)
}
