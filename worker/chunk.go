package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// work is one task being computed.
type work struct {
	*Handler
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
	for {
		busy := w.once(ctx, list)
		if len(busy) == 0 {
			return
		}
		list = busy
		if waited += claimPoll; waited > claimWait || ctx.Err() != nil || time.Until(w.generatorDeadline) < 2*claimPoll {
			w.outcome.busy = true
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(claimPoll):
		}
	}
}

// once tries each cell and returns those that another worker holds.
func (w *work) once(ctx context.Context, list []cell) (busy []cell) {
	var group sync.WaitGroup
	for _, item := range list {
		if err := w.slots.Acquire(ctx, oneCPU); err != nil {
			for _, part := range item {
				w.outcome.add(part.chunk, nil, w.late(part.chunk), 0)
			}
			continue
		}
		slot := &slot{work: w, held: oneCPU}
		group.Go(func() {
			defer slot.release()
			held := w.make(ctx, item, slot)
			if held == nil {
				return
			}
			o := w.outcome
			o.mu.Lock()
			defer o.mu.Unlock()
			busy = append(busy, item)
			if held.Until.After(o.busyUntil) {
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
	held int64
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
	return nil
}

// late is the failure of a chunk for which no time was left.
func (w *work) late(c task.Chunk) *failure {
	seed := c.Seed(w.task, w.task.Attempt)
	return &failure{chunk: c, cause: task.TimedOut, detail: "no time was left to start the generator", seed: seed, attempt: w.task.Attempt,
		commit: w.generator.Commit, image: w.config.Image, command: generator.Command(w.generator, c.Count(), seed, c.Cell.Start)}
}

// make claims a cell and computes what is left to make of it. What becomes of
// each part is noted in the outcome, except that another worker holds the cell.
func (w *work) make(ctx context.Context, item cell, slot *slot) *store.BusyError {
	first := item[0].chunk
	if w.isLate() {
		w.unfinished(item, 0, first, w.late(first))
		return nil
	}
	claim, err := w.claim(ctx, item)
	if err != nil {
		var busy *store.BusyError
		if errors.As(err, &busy) {
			return busy
		}
		for _, part := range item {
			w.outcome.add(part.chunk, nil, w.storage(ctx, part.chunk, err), 0)
		}
		return nil
	}
	log := w.log.With(w.delivery.attrs(w.task)...)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), messageTimeout)
		defer cancel()
		if e := w.store.Release(ctx, claim); e != nil {
			log.Error("release claim", "claim", claim.Number, "error", e)
		}
	}()
	for n, part := range item {
		for _, c := range w.task.Parts(part.chunk) {
			if w.isLate() {
				w.unfinished(item, n, c, w.late(c))
				return nil
			}
			began := time.Now()
			receipt, err := w.makePart(ctx, c, claim, slot, log.With("chunk", c.Name()))
			var failed *failure
			if errors.As(err, &failed) && failed.cause == task.TimedOut || err != nil && failed == nil {
				w.unfinished(item, n, c, err)
				return nil
			}
			w.outcome.add(c, receipt, err, time.Since(began))
		}
	}
	return nil
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
	}
	for _, part := range item[n:] {
		rest := *failed
		rest.chunk = part.chunk
		rest.chunk.Keep.Start = max(c.Keep.Start, part.chunk.Keep.Start)
		w.outcome.add(rest.chunk, nil, &rest, 0)
	}
}

// claim takes the cell, with a number above those of the receipts that it
// replaces.
func (w *work) claim(ctx context.Context, item cell) (*store.Claim, error) {
	c := item[0].chunk
	above := 0
	for _, part := range item {
		for _, r := range part.replaces {
			above = max(above, r.Claim)
		}
	}
	if c.Indices != nil {
		stored, err := w.store.Receipts(ctx, w.task.Generator, c.Keep)
		if err != nil {
			return nil, err
		}
		for _, r := range stored {
			above = max(above, r.Claim)
		}
	}
	holder := store.Holder{RequestID: w.delivery.requestID, MessageID: w.delivery.messageID, Deadline: w.delivery.deadline}
	return w.store.Claim(ctx, w.task.Generator, c, holder, above, time.Now())
}

// makePart computes one chunk of a claimed cell, or one part of it, to the
// receipt. The receipt is nil when it was committed by somebody else. The error
// is a *failure, or that of a context that ended.
func (w *work) makePart(ctx context.Context, c task.Chunk, claim *store.Claim, slot *slot, log *slog.Logger) (*store.Receipt, error) {
	// Between the look at the receipts and the claim, another worker may have
	// committed this very range.
	stored, err := w.store.Receipts(ctx, w.task.Generator, c.Keep)
	if err != nil {
		return nil, w.storage(ctx, c, err)
	}
	parts, err := undone(w.task, c, stored)
	switch {
	case err != nil:
		return nil, &failure{chunk: c, cause: task.Conflict, detail: err.Error()}
	case len(parts) == 0:
		return nil, nil
	case len(parts) > 1 || parts[0].chunk.Keep != c.Keep:
		return nil, &failure{chunk: c, cause: task.Conflict, detail: "part of the range was committed while the task ran"}
	}

	dir, err := w.scratch.Folder()
	if err != nil {
		return nil, w.disk(c, err)
	}
	defer w.scratch.Remove(dir, log)
	made, err := w.generate(ctx, c, dir, slot, log)
	if err != nil {
		return nil, err
	}
	slot.release() // the next generator may start while this one's samples are stored
	r := made.receipt(w, c, claim)
	if err := w.commit(ctx, c, &r, made, parts[0].replaces); err != nil {
		return nil, w.storage(ctx, c, err)
	}
	log.Info("chunk committed", "samples", len(r.Samples), "attempt", r.Attempt, "claim", r.Claim,
		"cpu_seconds", r.CPUSeconds, "wall_seconds", r.WallSeconds, "peak_rss_bytes", r.PeakRSSBytes)
	return &r, nil
}

// commit stores the samples and then, last, the receipt. What it replaces loses
// its receipt first, so that no receipt ever vouches for bytes that are gone.
func (w *work) commit(ctx context.Context, c task.Chunk, r *store.Receipt, m *made, replaces []store.Receipt) error {
	if err := w.retract(ctx, c, replaces); err != nil {
		return err
	}
	if r.Format == task.Tar {
		shard, err := w.store.PutShard(ctx, w.task.Generator, c, m.samples)
		if err != nil {
			return err
		}
		r.Shard = &shard
	} else if err := w.store.PutFiles(ctx, w.task.Generator, m.samples); err != nil {
		return err
	}
	if r.Claim > 1 || len(replaces) > 0 || c.Indices != nil {
		// Somebody was here before and may have left other objects behind.
		if err := w.clear(ctx, c, r, replaces); err != nil {
			return err
		}
	}
	err := w.store.PutReceipt(ctx, *r)
	if !errors.Is(err, store.ErrExists) {
		return err
	}
	// The holder of an older claim came through at the last moment. Its receipt
	// describes what we have just written over: ours is the one that is true.
	stored, err := w.store.Receipts(ctx, w.task.Generator, c.Keep)
	if err != nil {
		return err
	}
	for _, other := range stored {
		if other.Key() == r.Key() && other.Claim > r.Claim {
			return fmt.Errorf("claim %d of samples %s was overtaken by claim %d", r.Claim, c.Keep, other.Claim)
		}
	}
	if err := w.store.DeleteReceipt(ctx, *r); err != nil {
		return err
	}
	return w.store.PutReceipt(ctx, *r)
}

// retract takes back the receipts that are replaced. Where one reaches beyond
// the chunk, the rest of it is committed anew under its own range first.
func (w *work) retract(ctx context.Context, c task.Chunk, replaces []store.Receipt) error {
	for _, old := range replaces {
		for _, rest := range []task.Range{{Start: old.Start, End: min(old.End, c.Keep.Start)}, {Start: max(old.Start, c.Keep.End), End: old.End}} {
			if rest.Len() == 0 || old.Indices != nil {
				continue
			}
			if err := w.store.PutReceipt(ctx, old.Part(rest)); err != nil && !errors.Is(err, store.ErrExists) {
				return err
			}
		}
		if err := w.store.DeleteReceipt(ctx, old); err != nil {
			return err
		}
	}
	return nil
}

// clear deletes the objects of the chunk's samples that the new receipt does
// not name: those of replaced receipts, and those of a writer that was killed.
func (w *work) clear(ctx context.Context, c task.Chunk, r *store.Receipt, replaces []store.Receipt) error {
	keep := r.ObjectKeys()
	named := map[string]bool{}
	for _, key := range keep {
		named[key] = true
	}
	var old []string
	for _, o := range replaces {
		if o.Shard != nil && !c.Keep.Contains(o.Range()) {
			continue // the rest of it still needs the shard
		}
		for _, key := range o.Part(c.Keep).ObjectKeys() {
			if !named[key] {
				old = append(old, key)
			}
		}
	}
	if err := w.store.Delete(ctx, old); err != nil {
		return err
	}
	return w.store.Sweep(ctx, w.task.Generator, r.Domain, c, keep)
}

// storage turns an error of the bucket into what it means for the chunk.
func (w *work) storage(ctx context.Context, c task.Chunk, err error) error {
	var busy *store.BusyError
	if errors.As(err, &busy) || ctx.Err() != nil {
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
