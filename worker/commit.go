package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// commit stores the samples and then, last, the receipt. What it restores keeps its
// receipt meanwhile: it is false already, and the one to find the work by if this is
// interrupted.
func (w *work) commit(ctx context.Context, x todo, r *store.Receipt, m *made, claim *store.Claim) error {
	c, taken := x.chunk, x.taken()
	if r.Format == task.Tar {
		shard, err := w.store.PutShard(ctx, w.task.Generator, c, claim.Number, m.samples)
		if err != nil {
			return err
		}
		r.Shard = &shard
	} else {
		free := slices.DeleteFunc(slices.Clone(m.samples), func(s sample.Sample) bool { return taken[s.Index] })
		if err := w.store.PutFiles(ctx, w.task.Generator, free); err != nil {
			return err
		}
	}
	if !claim.First || x.restores != nil || c.Indices != nil {
		// Somebody was here before and may have left other objects behind.
		if err := w.clear(ctx, x, r, taken); err != nil {
			return err
		}
	}
	if x.restores != nil {
		return w.store.ReplaceReceipt(ctx, *r)
	}
	return w.put(ctx, c, r)
}

// put writes the receipt.
func (w *work) put(ctx context.Context, c task.Chunk, r *store.Receipt) error {
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

// clear deletes the objects of the chunk's samples that the new receipt does not
// name: those of the receipt that is restored, and those of a writer that was
// killed.
func (w *work) clear(ctx context.Context, x todo, r *store.Receipt, taken map[int]bool) error {
	c, keep := x.chunk, r.ObjectKeys()
	if x.restores != nil {
		old := *x.restores // whose objects may have other names: the generator has changed
		old.Samples = slices.DeleteFunc(slices.Clone(old.Samples), func(s store.ReceiptSample) bool { return taken[s.Index] })
		gone := slices.DeleteFunc(old.ObjectKeys(), func(key string) bool { return slices.Contains(keep, key) })
		if err := w.store.Delete(ctx, gone); err != nil {
			return err
		}
	}
	free := slices.DeleteFunc(slices.Clone(c.Kept()), func(index int) bool { return taken[index] })
	if err := w.store.Sweep(ctx, w.task.Generator, r.Domain, c, free, keep); err != nil {
		return err
	}
	if c.Indices != nil {
		return nil
	}
	shard := ""
	if r.Shard != nil {
		shard = r.Shard.Key
	}
	return w.store.SweepShards(ctx, w.task.Generator, c.Cell, shard)
}
