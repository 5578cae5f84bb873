package worker

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
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

// holdWait is how long a worker stays for chunks that somebody else holds,
// after it has made its own. Neighbouring tasks share a cell when the batch is
// no multiple of the chunk size, and a cell is mostly free again soon.
const (
	holdWait = 20 * time.Second
	holdPoll = 500 * time.Millisecond
)

// all makes the chunks, as many at once as there are CPUs and memory for, and comes
// back to those whose cells another worker holds for as long as holdWait.
func (w *work) all(ctx context.Context, list []task.Chunk) {
	var waited time.Duration
	own := time.Duration(task.SeedFromID(w.delivery.requestID)) % holdPoll
	for {
		busy := w.once(ctx, list)
		if len(busy) == 0 {
			return
		}
		list = busy
		if waited += holdPoll; waited > holdWait || ctx.Err() != nil || time.Until(w.generatorDeadline) < 2*holdPoll {
			for _, c := range list {
				w.outcome.hold(c.Keep)
			}
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(holdPoll/2 + own): // two that are in each other's way must not stay in step
		}
	}
}

// once tries each chunk and returns those that are to be tried again. The cell of
// the next chunk is taken while the CPUs are at work on others: as many as can be made
// at once may be taken and wait. Another worker could take the others.
func (w *work) once(ctx context.Context, list []task.Chunk) (busy []task.Chunk) {
	var group sync.WaitGroup
	waiting := semaphore.NewWeighted(w.capacity)
	for _, c := range list {
		n := w.weight(w.kind(w.task.Parts(c)[0]))
		if err := waiting.Acquire(ctx, n); err != nil {
			w.fail(c, err)
			continue
		}
		slot := &slot{work: w, begin: sync.OnceFunc(func() { waiting.Release(n) })}
		group.Go(func() {
			defer slot.begin()
			defer slot.release()
			rest, err := w.make(ctx, c, slot)
			held, ok := errors.AsType[*store.BusyError](err)
			if !ok && !errors.Is(err, store.ErrExists) {
				if err != nil {
					w.fail(rest, err)
				}
				return
			}
			o := w.outcome
			o.mu.Lock()
			defer o.mu.Unlock()
			busy = append(busy, c)
			if ok && held.Until.After(o.busyUntil) {
				o.busyUntil = held.Until
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
	begin func() // lets the next cell be taken
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
	return &failure{chunk: c, cause: task.TimedOut, detail: "no time was left to start the generator", seed: seed,
		attempt: w.task.Attempt,
		commit:  w.generator.Commit, image: w.config.Image, command: generator.Command(w.generator, c.Count(), seed,
			c.First())}
}

// make takes the cell of a chunk and computes what is left to make of it. What becomes
// of each part is noted in the outcome. The error is of the rest of the chunk, which
// was not made: a *store.BusyError or store.ErrExists where another worker has the cell, a
// *failure, or that of a context that ended.
func (w *work) make(ctx context.Context, c task.Chunk, slot *slot) (rest task.Chunk, err error) {
	if w.isLate() {
		return c, w.late(c)
	}
	by := store.Holder{RequestID: w.delivery.requestID, MessageID: cmp.Or(w.delivery.messageID, w.delivery.requestID),
		Deadline: w.delivery.deadline}
	cell, err := w.store.Take(ctx, w.task.Generator, c.Cell, by, func(cell *store.Cell) bool {
		left, err := undone(w.task, c, cell)
		return err == nil && len(left) > 0
	})
	if err != nil {
		return c, w.storage(ctx, c, err)
	}
	log := w.log.With(w.delivery.attrs(w.task)...)
	clean := true
	defer func() {
		ctx, cancel := w.delivery.lastWords(ctx)
		defer cancel()
		if err := w.store.Release(ctx, cell, clean); err != nil {
			log.Error("release the cell", "epoch", cell.Epoch, "error", err)
		}
	}()
	left, err := undone(w.task, c, cell)
	if err != nil {
		return c, &failure{chunk: c, cause: task.Conflict, detail: err.Error()}
	}
	skipped := len(c.Kept())
	for _, x := range left {
		skipped -= len(x.keep)
	}
	defer func() {
		if !errors.Is(err, store.ErrExists) { // else it is looked at again
			w.outcome.skip(skipped)
		}
	}()
	if len(left) == 0 {
		err := w.store.Clear(ctx, cell, nil)
		clean = err == nil
		return c, w.storage(ctx, c, err)
	}
	for n, x := range left {
		rest = c
		rest.Keep.Start = max(c.Keep.Start, x.chunk.Keep.Start)
		err := slot.resize(ctx, w.weight(w.kind(x.chunk)))
		if err == nil && w.isLate() {
			err = w.late(x.chunk)
		}
		if err != nil {
			return rest, err
		}
		began := time.Now()
		receipt, stored, err := w.makePart(ctx, x, cell, n == len(left)-1, slot, log.With("chunk", x.chunk.Name()))
		clean = clean && stored
		failed, ok := errors.AsType[*failure](err)
		if ok && failed.cause == task.TimedOut || err != nil && !ok {
			return rest, err
		}
		w.outcome.add(x.chunk, receipt, err, time.Since(began))
	}
	return rest, nil
}

// isLate reports whether no chunk can be finished any more.
func (w *work) isLate() bool {
	w.outcome.mu.Lock()
	defer w.outcome.mu.Unlock()
	left := time.Until(w.generatorDeadline)
	return left <= 0 || left < w.outcome.longest
}

// fail notes why a chunk was not made.
func (w *work) fail(c task.Chunk, err error) {
	failed, ok := errors.AsType[*failure](err)
	if !ok {
		failed = w.late(c) // the invocation ended under a request
		if errors.Is(err, store.ErrRefused) {
			failed.refused, failed.detail = true, "no time was left to try again: "+err.Error()
		}
	}
	failed.chunk = c
	w.outcome.add(c, nil, failed, 0)
}

// makePart computes what one process makes of a cell that is held, to the receipt;
// after the last one the cell is given up. The error is a *failure, store.ErrExists, or
// that of a context that ended. Unless stored is true, some of its requests to store
// may still be executed.
func (w *work) makePart(ctx context.Context, x todo, cell *store.Cell, last bool, slot *slot,
	log *slog.Logger) (receipt *store.Receipt, stored bool, err error) {
	dir, err := w.scratch.Folder()
	if err != nil {
		return nil, true, w.disk(x.chunk, err)
	}
	defer w.scratch.Remove(dir, log)
	made, err := w.generate(ctx, x, dir, slot, log)
	if err != nil {
		return nil, true, err
	}
	slot.release() // the next generator may start while this one's samples are stored
	r := made.receipt(w, x, cell.Epoch)
	if err := w.commit(ctx, x, &r, made.samples, cell, last); err != nil {
		return nil, false, w.storage(ctx, x.chunk, err)
	}
	log.Info("chunk committed", "samples", len(r.Samples), "attempt", r.Attempt, "epoch", r.Epoch,
		"cpu_seconds", r.CPUSeconds, "wall_seconds", r.WallSeconds, "peak_rss_bytes", r.PeakRSSBytes)
	return &r, true, nil
}

// commit stores samples and then, last, their receipt.
func (w *work) commit(ctx context.Context, x todo, r *store.Receipt, samples []sample.Sample, cell *store.Cell,
	last bool) error {
	if r.Format == task.Tar {
		shard, err := w.store.PutShard(ctx, w.task.Generator, x.chunk, cell.Epoch, samples)
		if err != nil {
			return err
		}
		r.Shard = &shard
		return w.store.Commit(ctx, cell, *r, x.place, last)
	}
	if x.place >= 0 { // what was replaced since stays
		gone := cell.Replaced(x.place)
		samples = slices.DeleteFunc(slices.Clone(samples), func(s sample.Sample) bool {
			return slices.ContainsFunc(gone, func(other store.ReceiptSample) bool { return other.Index == s.Index })
		})
	}
	var indices []int
	for _, s := range samples {
		indices = append(indices, s.Index)
	}
	if err := w.store.Overwrite(ctx, cell, indices); err != nil {
		return err
	}
	if err := w.store.PutFiles(ctx, w.task.Generator, samples); err != nil {
		return err
	}
	return w.store.Commit(ctx, cell, *r, x.place, last)
}

// storage turns an error of the bucket into what it means for the chunk.
func (w *work) storage(ctx context.Context, c task.Chunk, err error) error {
	if _, busy := errors.AsType[*store.BusyError](err); err == nil || busy || errors.Is(err, store.ErrExists) ||
		ctx.Err() != nil {
		return err
	}
	return &failure{chunk: c, cause: task.Storage, detail: err.Error(), attempt: w.task.Attempt,
		seed: c.Seed(w.task, w.task.Attempt)}
}

// disk turns an error of the worker's own disk into a failure.
func (w *work) disk(c task.Chunk, err error) *failure {
	f := &failure{chunk: c, cause: task.Storage, detail: err.Error(), attempt: w.task.Attempt,
		seed: c.Seed(w.task, w.task.Attempt)}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		f.cause = task.DiskFull
	}
	return f
}
