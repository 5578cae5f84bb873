package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// process is what one generator process has to make.
type process struct {
	chunk task.Chunk
	keep  []int // indices of its samples that are stored
	place int   // of the receipt that is made again, or -1
}

// remaining returns what is left to make of a chunk: what is not committed, or for a repair all of it unless it was
// made, or the samples of the receipt to restore. A task of no run is refused where samples have another seed.
func remaining(t task.Task, c task.Chunk, cell *store.Cell) (list []process, err error) {
	keep := c.Kept()
	place := -1
	switch {
	case t.Restore > 0:
		if place = cell.Restorable(t, c); place < 0 {
			return nil, nil
		}
		keep = nil
		for _, s := range cell.Receipts[place].Samples {
			keep = append(keep, s.Index)
		}
	case c.Indices != nil:
		if cell.Repaired(t, c) {
			return nil, nil
		}
	default:
		for _, r := range cell.Receipts {
			if t.RunID == "" && r.RunSeed != t.Seed && slices.ContainsFunc(keep, r.Describes) {
				return nil, fmt.Errorf("samples %s are committed with seed %d, this task has seed %d", r.Range(), r.RunSeed, t.Seed)
			}
		}
		keep = slices.DeleteFunc(keep, cell.Has)
	}
	for _, part := range t.Parts(c) {
		p := process{chunk: part, place: place}
		for _, index := range keep {
			if part.Keep.Start <= index && index < part.Keep.End {
				p.keep = append(p.keep, index)
			}
		}
		if len(p.keep) > 0 {
			list = append(list, p)
		}
	}
	return list, nil
}

// makeChunk takes the cell of a chunk and computes what is left to make of it. What becomes of each part is noted.
// The error is of the rest, which was not made: a *store.BusyError or store.ErrExists if another worker has the cell.
func (w *work) makeChunk(ctx context.Context, c task.Chunk, slot *slot) (rest task.Chunk, err error) {
	if w.isLate() {
		return c, errLate
	}
	by := store.Holder{RequestID: w.delivery.requestID, MessageID: cmp.Or(w.delivery.messageID, w.delivery.requestID),
		Deadline: w.delivery.deadline}
	cell, err := w.store.Take(ctx, w.task.Generator, c.Cell, by, func(cell *store.Cell) bool {
		left, err := remaining(w.task, c, cell)
		return err == nil && len(left) > 0
	})
	if err != nil {
		return c, err
	}
	clean := true
	defer func() {
		ctx, cancel := w.delivery.cleanUp(ctx)
		defer cancel()
		if err := w.store.Release(ctx, cell, clean); err != nil {
			w.log.Error("release the cell", "epoch", cell.Epoch, "error", err)
		}
	}()
	left, err := remaining(w.task, c, cell)
	if err != nil {
		f := w.failure(ctx, c, err)
		f.Cause = task.Conflict
		return c, f
	}
	skipped := int64(len(c.Kept()))
	for _, p := range left {
		skipped -= int64(len(p.keep))
	}
	w.skipped.Add(skipped)
	if len(left) == 0 {
		err := w.store.Clear(ctx, cell, nil)
		clean = err == nil
		return c, err
	}
	for n, p := range left {
		rest = c
		rest.Keep.Start = max(c.Keep.Start, p.chunk.Keep.Start)
		err := slot.resize(ctx, w.weight(w.kind(p.chunk)))
		if err == nil && w.isLate() {
			err = errLate
		}
		if err != nil {
			return rest, err
		}
		began := time.Now()
		receipt, stored, err := w.makePart(ctx, p, cell, n == len(left)-1, slot)
		clean = clean && stored
		switch {
		case err == nil:
			w.mu.Lock()
			w.receipts = append(w.receipts, *receipt)
			w.longest = max(w.longest, time.Since(began))
			w.mu.Unlock()
		case errors.Is(err, store.ErrExists):
			w.skipped.Add(-skipped) // the cell is read again
			return rest, err
		default:
			w.fail(ctx, p.chunk, err)
		}
	}
	return rest, nil
}

// isLate reports whether no chunk can be finished any more.
func (w *work) isLate() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	left := time.Until(w.generatorDeadline)
	return left <= 0 || left < w.longest
}

// makePart computes what one process makes of a cell that is held, and commits it; the last one gives the cell up. The
// error is store.ErrExists if the cell was lost. Unless stored, some of its requests may still be executed.
func (w *work) makePart(ctx context.Context, p process, cell *store.Cell, last bool,
	slot *slot) (r *store.Receipt, stored bool, err error) {
	log := w.log.With("chunk", p.chunk.Name())
	dir, err := w.scratch.Folder()
	if err != nil {
		return nil, true, err
	}
	defer w.scratch.Remove(dir, log)
	out, err := w.produce(ctx, p, dir, slot, log)
	if err != nil {
		return nil, true, err
	}
	slot.release() // the next generator may start while this one's samples are stored
	r = out.receipt(w, p, cell)
	if err := w.commit(ctx, p, r, out.samples, cell, last); err != nil {
		return nil, false, err
	}
	log.Info("chunk committed", "samples", len(r.Samples), "attempt", r.Attempt, "epoch", r.Epoch,
		"cpu_seconds", r.CPUSeconds, "wall_seconds", r.WallSeconds, "peak_rss_bytes", r.PeakRSSBytes)
	return r, true, nil
}

// commit stores samples and then, last, their receipt.
func (w *work) commit(ctx context.Context, p process, r *store.Receipt, samples []sample.Sample, cell *store.Cell,
	last bool) error {
	if r.Format == task.Tar {
		shard, err := w.store.PutShard(ctx, w.task.Generator, p.chunk, cell.Epoch, samples)
		if err != nil {
			return err
		}
		r.Shard = &shard
	} else {
		if p.place >= 0 { // what was replaced since stays
			gone := cell.Replaced(p.place)
			samples = slices.DeleteFunc(slices.Clone(samples),
				func(s sample.Sample) bool { return slices.Contains(gone, s.Index) })
		}
		if err := w.store.Overwrite(ctx, cell, samples); err != nil {
			return err
		}
		if err := w.store.PutFiles(ctx, w.task.Generator, samples); err != nil {
			return err
		}
	}
	return w.store.Commit(ctx, cell, *r, p.place, last)
}
