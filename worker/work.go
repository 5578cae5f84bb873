package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// work is one task being computed, and what became of its chunks.
type work struct {
	*Handler
	store             *store.Store // of the task's dataset
	task              task.Task
	delivery          delivery
	log               *slog.Logger
	generator         *generator.Generator // nil until it is found
	generatorDeadline time.Time            // when generators are killed

	mu         sync.Mutex
	receipts   []store.Receipt // committed now
	skipped    atomic.Int64    // samples committed before
	failures   []*failure
	unfinished []*failure    // no time was left for their chunks
	held       []task.Range  // another worker holds these
	busyUntil  time.Time     // the latest moment at which they are free
	longest    time.Duration // that a process took from its start to its receipt
	delay      time.Duration // before another worker shall try what is unfinished
}

// run computes the chunks of a task that are not committed yet, side by side, and reports what failed. Requests are
// tried until half of the reserve is left, which is for cleaning up.
func (h *Handler) run(ctx context.Context, t task.Task, d delivery) *work {
	reserve := Reserve(time.Until(d.deadline))
	limited, cancel := context.WithDeadline(ctx, d.deadline.Add(-reserve/2))
	defer cancel()
	w := &work{Handler: h, store: h.store.In(t.Dataset), task: t, delivery: d, log: h.log.With(d.attrs(t)...),
		generatorDeadline: d.deadline.Add(-reserve)}
	w.log.Info("task started")
	cause, err := w.prepare(limited)
	whole := task.Chunk{Cell: t.Range(), Keep: t.Range()}
	switch {
	case err == nil:
		w.all(limited, w.task.Chunks())
	case ctx.Err() != nil:
		w.fail(ctx, whole, err)
	case w.isForOthers(cause, err):
		w.log.Warn("left to other workers", "cause", cause, "detail", err.Error())
		w.unfinished = append(w.unfinished, w.failure(ctx, whole, errLate))
		w.delay = time.Duration(float64(leaveDelay) * w.config.RetryDelays)
	default:
		f := w.failure(ctx, whole, err)
		f.Cause, f.Seed, f.Command = cause, 0, nil
		w.failures = append(w.failures, f)
	}
	stopped := errors.Is(ctx.Err(), context.Canceled) // nobody's fault, and no delivery to count
	if len(w.unfinished) > 0 && len(w.receipts) == 0 && len(w.failures) == 0 && !stopped && w.delay == 0 {
		// Sending the same chunks on would go round for ever.
		w.failures, w.unfinished = w.unfinished, nil
		for _, f := range w.failures {
			if f.refused {
				f.Cause = task.Storage
			}
		}
	}
	ctx, done := d.cleanUp(ctx)
	defer done()
	for _, f := range w.failures {
		w.reportFailure(ctx, f)
	}
	s, took := w.summary(), time.Since(d.began)
	w.log.Info("task finished", "samples", s.Samples, "skipped", s.Skipped, "failures", len(w.failures),
		"unfinished", len(w.unfinished), "busy", len(w.held), "seconds", took.Seconds())
	w.metrics.task(t.Generator, s.Samples, took)
	return w
}

// prepare finds the generator and checks that the task fits its dataset.
func (w *work) prepare(ctx context.Context) (task.Cause, error) {
	index, err := generator.LoadIndex(w.config.Generators)
	if err != nil {
		return task.Environment, err
	}
	if w.generator, err = index.Find(w.task.Generator); err != nil {
		return task.UnknownGenerator, err
	}
	if w.generator.Problem != "" {
		return task.Environment, errors.New(w.generator.Problem)
	}
	if err := w.generator.CheckOptions(w.task.Options); err != nil {
		return task.InvalidTask, err
	}
	err = w.datasets.fit(ctx, w.store, &w.task, w.generator, w.config.Image)
	w.generator.Options = w.task.Options
	if wrong, ok := errors.AsType[*task.ContradictionError](err); ok {
		return task.Conflict, fmt.Errorf("%w: ops submit %s", err, wrong.Way())
	}
	if _, ok := errors.AsType[*task.InvalidError](err); ok {
		return task.InvalidTask, err
	}
	return task.Storage, err
}

// A machine that is not of the stack leaves a task whose generator it does not have, or has of another commit or lock,
// to other workers: so often, which takes an hour with these delays. Then no worker seems to have it.
const (
	leaveDelay = 2 * time.Minute
	leaveTimes = 30
)

// isForOthers reports whether another worker may be able to do what this one cannot.
func (w *work) isForOthers(cause task.Cause, err error) bool {
	wrong, conflict := errors.AsType[*task.ContradictionError](err)
	return w.config.OwnMachine && w.delivery.messageID != "" && w.delivery.earlier+w.delivery.receives < leaveTimes &&
		(cause == task.UnknownGenerator || cause == task.Environment || conflict && wrong.Commit)
}

func (w *work) summary() Summary {
	s := Summary{Generator: w.task.Generator, Skipped: int(w.skipped.Load()), Committed: []string{}}
	for _, r := range w.receipts {
		s.Samples += len(r.Samples)
		s.Committed = append(s.Committed, r.ReadFrom)
	}
	slices.Sort(s.Committed)
	s.Committed = slices.Compact(s.Committed) // a cell may have been made in parts
	for _, p := range w.parts() {
		if p.Cause == "" {
			s.Remaining = append(s.Remaining, p.Range())
		}
	}
	return s
}

// holdWait is how long a worker stays for chunks that another one holds, after it has made its own. Neighbouring
// tasks share a cell when the batch is no multiple of the chunk size, and a cell is mostly free again soon.
const (
	holdWait = 20 * time.Second
	holdPoll = 500 * time.Millisecond
)

// all makes the chunks, and for holdWait comes back to those whose cells another worker holds.
func (w *work) all(ctx context.Context, list []task.Chunk) {
	var waited time.Duration
	own := time.Duration(task.SeedFromID(w.delivery.requestID)) % holdPoll
	for {
		if list = w.once(ctx, list); len(list) == 0 {
			return
		}
		if waited += holdPoll; waited > holdWait || ctx.Err() != nil || time.Until(w.generatorDeadline) < 2*holdPoll {
			for _, c := range list {
				w.held = append(w.held, c.Keep)
			}
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(holdPoll/2 + own): // two that are in each other's way must not stay in step
		}
	}
}

// once tries each chunk and returns those that are to be tried again. The cell of the next chunk is taken while the
// CPUs are at work on others: as many as can be made at once may be taken and wait. Another worker could take others.
func (w *work) once(ctx context.Context, list []task.Chunk) (busy []task.Chunk) {
	var group sync.WaitGroup
	waiting := semaphore.NewWeighted(w.capacity)
	for _, c := range list {
		n := w.weight(w.kind(w.task.Parts(c)[0]))
		if err := waiting.Acquire(ctx, n); err != nil {
			w.fail(ctx, c, err)
			continue
		}
		slot := &slot{of: w.slots, begin: sync.OnceFunc(func() { waiting.Release(n) })}
		group.Go(func() {
			defer slot.begin()
			defer slot.release()
			rest, err := w.makeChunk(ctx, c, slot)
			held, isHeld := errors.AsType[*store.BusyError](err)
			switch {
			case isHeld, errors.Is(err, store.ErrExists):
				w.mu.Lock()
				defer w.mu.Unlock()
				busy = append(busy, c)
				if isHeld && held.Until.After(w.busyUntil) {
					w.busyUntil = held.Until
				}
			case err != nil:
				w.fail(ctx, rest, err)
			}
		})
	}
	group.Wait()
	return busy
}

// slot is the share of the CPUs that one chunk holds.
type slot struct {
	of    *semaphore.Weighted
	held  int64
	begin func() // lets the next cell be taken
}

func (s *slot) release() {
	s.of.Release(s.held)
	s.held = 0
}

// resize gives the slot back and waits for one of another size.
func (s *slot) resize(ctx context.Context, n int64) error {
	if n == s.held {
		return nil
	}
	s.release()
	if err := s.of.Acquire(ctx, n); err != nil {
		return err
	}
	s.held = n
	s.begin()
	return nil
}

// failure says why a chunk was not made: its report, and the key of that once it is stored.
type failure struct {
	store.Failure
	refused bool // time was up while the bucket refused what had been made
	key     string
}

func (f *failure) Error() string {
	return fmt.Sprintf("%s: samples %s: %s", f.Cause, f.Range(), f.Detail)
}

func (f *failure) of(c task.Chunk) {
	f.Name, f.Start, f.End, f.ChunkStart, f.ChunkSize = c.Name(), c.Keep.Start, c.Keep.End, c.First(), c.Count()
}

var errLate = errors.New("no time was left to start the generator")

// failure says what an error means for a chunk. One that ended because its context did had no time.
func (w *work) failure(ctx context.Context, c task.Chunk, err error) *failure {
	f := &failure{Failure: store.Failure{Cause: task.Storage, Detail: err.Error(), Generator: w.task.Generator,
		Image: w.config.Image, RunID: w.task.RunID, Task: w.task, Seed: c.Seed(w.task, w.task.Attempt),
		Attempt: w.task.Attempt, MessageID: w.delivery.messageID, RequestID: w.delivery.requestID,
		Receives: w.delivery.receives, Time: time.Now().UTC()}}
	if f.of(c); w.generator != nil {
		f.Commit, f.Command = w.generator.Commit, generator.Command(w.generator, c.Count(), f.Seed, c.First())
	}
	var ran *generator.Failure
	var bad *sample.Error
	switch {
	case errors.As(err, &ran):
		f.Cause, f.Detail, f.Stdout, f.Stderr, f.ExitCode, f.Signal = ran.Cause, ran.Detail, ran.Stdout, ran.Stderr,
			ran.ExitCode, ran.Signal
	case errors.As(err, &bad):
		f.Cause, f.Detail = bad.Cause, bad.Detail
	case errors.Is(err, errLate), ctx.Err() != nil && !errors.Is(err, store.ErrRefused):
		f.Detail = errLate.Error()
	case ctx.Err() != nil:
		f.refused, f.Detail = true, "no time was left to try again: "+err.Error()
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		f.Cause = task.DiskFull
	}
	if ctx.Err() != nil || errors.Is(err, errLate) {
		f.Cause = task.TimedOut
	}
	return f
}

func (w *work) fail(ctx context.Context, c task.Chunk, err error) {
	failed, ok := errors.AsType[*failure](err)
	if !ok {
		failed = w.failure(ctx, c, err)
	}
	failed.of(c)
	w.mu.Lock()
	defer w.mu.Unlock()
	list := &w.failures
	if failed.Cause == task.TimedOut {
		list = &w.unfinished
	}
	*list = append(*list, failed)
}

func (w *work) reportFailure(ctx context.Context, f *failure) {
	var err error
	if f.key, err = w.store.PutFailure(ctx, f.Failure); err != nil {
		w.log.Error("write failure report", "error", err)
	}
	w.log.Error("chunk failed", "chunk", f.Name, "cause", f.Cause, "detail", f.Detail, "report", f.key)
	w.metrics.failure(f.Generator, f.Cause)
}

// parts are the parts of the task that are not committed, in order; neighbours with one cause are one part. Those
// without a cause did not fail: no time was left for them, or another worker holds them.
func (w *work) parts() (list []failure) {
	var all []failure
	for _, r := range w.held {
		all = append(all, failure{Failure: store.Failure{Start: r.Start, End: r.End}})
	}
	for _, f := range w.unfinished {
		all = append(all, failure{Failure: store.Failure{Start: f.Start, End: f.End}})
	}
	for _, f := range w.failures {
		all = append(all, *f)
	}
	slices.SortFunc(all, func(a, b failure) int { return cmp.Compare(a.Start, b.Start) })
	for _, p := range all {
		if n := len(list) - 1; n >= 0 && list[n].End == p.Start && list[n].Cause == p.Cause {
			list[n].End = p.End
		} else {
			list = append(list, p)
		}
	}
	return list
}
