package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// work is one task being computed.
type work struct {
	*Handler
	store             *store.Store // of the task's dataset
	task              task.Task
	delivery          delivery
	generator         *generator.Generator
	generatorDeadline time.Time // when generators are killed
	outcome           *outcome
}

// claimWait is how long a worker stays for chunks that somebody else holds,
// after it has made its own. Neighbouring tasks share a cell when the batch is
// no multiple of the chunk size, and a cell is mostly free again soon.
const (
	claimWait = 20 * time.Second
	claimPoll = 500 * time.Millisecond
)

// all makes the cells, as many at once as there are CPUs and memory for, and comes
// back to those that another worker holds for as long as claimWait.
func (w *work) all(ctx context.Context, list []cell) {
	var waited time.Duration
	own := time.Duration(task.SeedFromID(w.delivery.requestID)) % claimPoll
	for {
		busy := w.once(ctx, list)
		if len(busy) == 0 {
			return
		}
		list = busy
		if waited += claimPoll; waited > claimWait || ctx.Err() != nil || time.Until(w.generatorDeadline) < 2*claimPoll {
			for _, item := range list {
				for _, part := range item {
					w.outcome.held = append(w.outcome.held, part.chunk.Keep)
				}
			}
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(claimPoll/2 + own): // two that are in each other's way must not stay in step
		}
	}
}

// once tries each cell and returns those that are to be tried again. The claim of
// the next cell is taken while the CPUs are at work on others: as many cells as can
// be made at once may be claimed and wait. Another worker could take the others.
func (w *work) once(ctx context.Context, list []cell) (busy []cell) {
	var group sync.WaitGroup
	waiting := semaphore.NewWeighted(w.capacity)
	for _, item := range list {
		n := w.weight(w.kind(w.parts(item[0])[0].chunk))
		if err := waiting.Acquire(ctx, n); err != nil {
			w.unfinished(item, 0, item[0].chunk, err)
			continue
		}
		slot := &slot{work: w, begin: sync.OnceFunc(func() { waiting.Release(n) })}
		group.Go(func() {
			defer slot.begin()
			defer slot.release()
			again, until := w.make(ctx, item, slot)
			o := w.outcome
			o.mu.Lock()
			defer o.mu.Unlock()
			if len(again) > 0 {
				busy = append(busy, again)
			}
			if until.After(o.busyUntil) {
				o.busyUntil = until
			}
		})
	}
	group.Wait()
	return busy
}

// slot is the share of the CPUs that one chunk holds.
type slot struct {
	*work
	held  int64
	begin func() // lets the next cell be claimed
}

func (s *slot) release() {
	s.slots.Release(s.held)
	s.held = 0
}

// resize gives the slot back and waits for one of another size.
func (s *slot) resize(ctx context.Context, n int64) error {
	if n == s.held {
		return nil
	}
	s.release()
	if err := s.slots.Acquire(ctx, n); err != nil {
		return err
	}
	s.held = n
	s.begin()
	return nil
}

// late is the failure of a chunk for which no time was left.
func (w *work) late(c task.Chunk) *failure {
	seed := c.Seed(w.task, w.task.Attempt)
	return &failure{chunk: c, cause: task.TimedOut, detail: "no time was left to start the generator", seed: seed, attempt: w.task.Attempt,
		commit: w.generator.Commit, image: w.config.Image, command: generator.Command(w.generator, c.Count(), seed, c.Cell.Start)}
}

// make claims a cell and computes what is left to make of it. What becomes of
// each part is noted in the outcome, but for what is to be tried again: all of it
// while another worker holds the cell, which is until a moment at the latest.
func (w *work) make(ctx context.Context, item cell, slot *slot) (again cell, until time.Time) {
	first := item[0].chunk
	if w.isLate() {
		w.unfinished(item, 0, first, w.late(first))
		return nil, until
	}
	claim, err := w.claim(ctx, item)
	if err != nil {
		var busy *store.BusyError
		if errors.As(err, &busy) {
			return item, busy.Until
		}
		w.fail(ctx, item, err)
		return nil, until
	}
	clean := true
	log := w.log.With(w.delivery.attrs(w.task)...)
	defer func() {
		ctx, cancel := w.delivery.lastWords(ctx)
		defer cancel()
		if e := w.store.Release(ctx, claim, clean); e != nil {
			log.Error("release claim", "claim", claim.Number, "error", e)
		}
	}()
	// Between the look at the receipts and the claim, others may have committed
	// some of it. From here on nobody else does.
	now, err := w.look(ctx, item)
	if err != nil {
		w.fail(ctx, item, err)
		return nil, until
	}
	for n, part := range now {
		for _, x := range w.parts(part) {
			err := slot.resize(ctx, w.weight(w.kind(x.chunk)))
			if err == nil && w.isLate() {
				err = w.late(x.chunk)
			}
			if err != nil {
				w.unfinished(now, n, x.chunk, err)
				return nil, until
			}
			began := time.Now()
			receipt, stored, err := w.makePart(ctx, x, claim, slot, log.With("chunk", x.chunk.Name()))
			clean = clean && stored
			var failed *failure
			if errors.As(err, &failed) && failed.cause == task.TimedOut || err != nil && failed == nil {
				w.unfinished(now, n, x.chunk, err)
				return nil, until
			}
			w.outcome.add(x.chunk, receipt, err, time.Since(began))
		}
	}
	return nil, until
}

// look returns what is left to make of a cell now, and notes what others have
// made meanwhile.
func (w *work) look(ctx context.Context, item cell) (cell, error) {
	whole := item[0].chunk.Keep
	for _, part := range item {
		whole.Start, whole.End = min(whole.Start, part.chunk.Keep.Start), max(whole.End, part.chunk.Keep.End)
	}
	stored, err := w.store.Receipts(ctx, w.task.Generator, whole)
	if err != nil {
		return nil, err
	}
	var now cell
	for _, part := range item {
		left, err := undone(w.task, part.chunk, stored)
		if err != nil {
			w.outcome.add(part.chunk, nil, &failure{chunk: part.chunk, cause: task.Conflict, detail: err.Error()}, 0)
			continue
		}
		done := len(part.chunk.Kept())
		for _, x := range left {
			done -= len(x.chunk.Kept())
		}
		w.outcome.skip(done)
		now = append(now, left...)
	}
	return now, nil
}

// parts cuts what is to be made into what one process makes.
func (w *work) parts(x todo) []todo {
	var list []todo
	for _, c := range w.task.Parts(x.chunk) {
		part := x
		part.chunk = c
		list = append(list, part)
	}
	return list
}

// fail notes for each part of a cell that a request failed.
func (w *work) fail(ctx context.Context, item cell, err error) {
	for n, part := range item {
		var failed *failure
		if err := w.storage(ctx, part.chunk, err); !errors.As(err, &failed) {
			w.unfinished(item, n, part.chunk, err)
			return
		}
		w.outcome.add(part.chunk, nil, failed, 0)
	}
}

// isLate reports whether no chunk can be finished any more.
func (w *work) isLate() bool {
	w.outcome.mu.Lock()
	defer w.outcome.mu.Unlock()
	left := time.Until(w.generatorDeadline)
	return left <= 0 || left < w.outcome.longest
}

// unfinished notes what was not made of a cell: chunk c of its n-th part, because
// of err, and all that follows.
func (w *work) unfinished(item cell, n int, c task.Chunk, err error) {
	var failed *failure
	if !errors.As(err, &failed) {
		failed = w.late(c) // the invocation ended under a request
		if errors.Is(err, store.ErrRefused) {
			failed.refused, failed.detail = true, "no time was left to try again: "+err.Error()
		}
	}
	for _, part := range item[n:] {
		rest := *failed
		rest.chunk = part.chunk
		rest.chunk.Keep.Start = max(c.Keep.Start, part.chunk.Keep.Start)
		w.outcome.add(rest.chunk, nil, &rest, 0)
	}
}

// claim takes the cell. A repair stands above everything that holds its samples,
// and leaves room below.
func (w *work) claim(ctx context.Context, item cell) (*store.Claim, error) {
	c, above := item[0].chunk, 0
	if c.Indices != nil && item[0].restores == nil {
		above = 1
		stored, err := w.store.Receipts(ctx, w.task.Generator, c.Keep)
		if err != nil {
			return nil, err
		}
		for _, r := range stored {
			above = max(above, r.Claim)
		}
	}
	holder := store.Holder{RequestID: w.delivery.requestID, MessageID: w.delivery.messageID, Deadline: w.delivery.deadline}
	return w.store.Claim(ctx, w.task.Generator, c, holder, above)
}

// makePart computes one chunk of a claimed cell, or one part of it, to the
// receipt. The error is a *failure, or that of a context that ended. Unless
// stored is true, some of its requests to store may still be executed.
func (w *work) makePart(ctx context.Context, x todo, claim *store.Claim, slot *slot, log *slog.Logger) (receipt *store.Receipt, stored bool, err error) {
	c := x.chunk
	dir, err := w.scratch.Folder()
	if err != nil {
		return nil, true, w.disk(c, err)
	}
	defer w.scratch.Remove(dir, log)
	made, err := w.generate(ctx, c, dir, slot, log)
	if err != nil {
		return nil, true, err
	}
	slot.release() // the next generator may start while this one's samples are stored
	r := made.receipt(w, x, claim)
	if err := w.commit(ctx, x, &r, made, claim); err != nil {
		return nil, false, w.storage(ctx, c, err)
	}
	log.Info("chunk committed", "samples", len(r.Samples), "attempt", r.Attempt, "claim", r.Claim,
		"cpu_seconds", r.CPUSeconds, "wall_seconds", r.WallSeconds, "peak_rss_bytes", r.PeakRSSBytes)
	return &r, true, nil
}

// storage turns an error of the bucket into what it means for the chunk.
func (w *work) storage(ctx context.Context, c task.Chunk, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return &failure{chunk: c, cause: task.Storage, detail: err.Error(), attempt: w.task.Attempt, seed: c.Seed(w.task, w.task.Attempt)}
}

// disk turns an error of the worker's own disk into a failure.
func (w *work) disk(c task.Chunk, err error) *failure {
	f := &failure{chunk: c, cause: task.Storage, detail: err.Error(), attempt: w.task.Attempt, seed: c.Seed(w.task, w.task.Attempt)}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		f.cause = task.DiskFull
	}
	return f
}
