package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// commit stores the samples and then, last, the receipt. What it replaces loses
// its receipt first, so that no receipt ever vouches for bytes that are gone. The
// replaced receipts lie within the chunk: cut has seen to that.
func (w *work) commit(ctx context.Context, c task.Chunk, r *store.Receipt, m *made, replaces []store.Receipt, first bool) error {
	for _, old := range replaces {
		if err := w.store.DeleteReceipt(ctx, old); err != nil {
			return err
		}
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
	if !first || len(replaces) > 0 || c.Indices != nil {
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
		if o.Shard != nil {
			continue // what is left of it elsewhere may still need the shard
		}
		for _, key := range o.ObjectKeys() {
			if !named[key] {
				old = append(old, key)
			}
		}
	}
	if err := w.store.Delete(ctx, old); err != nil {
		return err
	}
	if err := w.store.Sweep(ctx, w.task.Generator, r.Domain, c, keep); err != nil {
		return err
	}
	if c.Indices != nil {
		return nil
	}
	shard := ""
	if r.Shard != nil {
		shard = r.Shard.Key
	}
	return w.store.SweepShards(ctx, w.task.Generator, c.Keep, shard, w.briefly())
}

// sticksOut reports whether a receipt reaches beyond a range.
func sticksOut(r store.Receipt, keep task.Range) bool {
	if r.Indices != nil {
		return slices.ContainsFunc(r.Samples, func(s store.ReceiptSample) bool { return s.Index < keep.Start || s.Index >= keep.End })
	}
	return !keep.Contains(r.Range())
}

// briefTime is for what takes some requests only. Others may have to wait for it.
const briefTime = 20 * time.Second

// briefly is the holder of a claim that is held for no longer.
func (w *work) briefly() store.Holder {
	h := store.Holder{RequestID: w.delivery.requestID, MessageID: w.delivery.messageID, Deadline: time.Now().Add(briefTime)}
	if w.delivery.deadline.Before(h.Deadline) {
		h.Deadline = w.delivery.deadline
	}
	return h
}

// cut makes the receipts that a chunk will replace end at the chunk's edges, so
// that it can take its part back alone. Chunks on a finer grid may want to cut
// the same receipt at once: who does holds the claim of the receipt's own cell,
// and looks at the receipt again under it. What is committed anew describes the
// same bytes, with the same claim, so a cut that ends half-way does no harm.
func (w *work) cut(ctx context.Context, c task.Chunk, replaces []store.Receipt) error {
	for _, old := range replaces {
		if !sticksOut(old, c.Keep) {
			continue
		}
		if err := w.cutOne(ctx, c.Keep, old); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) cutOne(ctx context.Context, keep task.Range, old store.Receipt) (err error) {
	holder := w.briefly()
	ctx, cancel := context.WithDeadline(ctx, holder.Deadline)
	defer cancel()
	start := old.ChunkStart / old.ChunkSize * old.ChunkSize
	place := task.Chunk{Cell: task.Range{Start: start, End: start + old.ChunkSize}, Keep: old.Range(), Indices: old.Indices, Attempt: old.Attempt}
	lock, err := w.store.Lock(ctx, w.task.Generator, place, holder, old.Claim)
	if err != nil {
		return err
	}
	defer func() {
		clean := err == nil
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), messageTimeout)
		defer cancel()
		err = errors.Join(err, w.store.Release(ctx, lock, clean))
	}()
	now, err := w.store.Receipt(ctx, old.Key())
	if errors.Is(err, store.ErrNotFound) || err == nil && now.Claim != old.Claim {
		return nil // somebody has cut or replaced it meanwhile
	}
	if err != nil {
		return err
	}
	for _, piece := range now.Cut(keep) {
		if err := w.store.PutReceipt(ctx, piece); err != nil && !errors.Is(err, store.ErrExists) {
			return err
		}
	}
	return w.store.DeleteReceipt(ctx, now)
}
