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

// commit stores the samples and then, last, the receipt. What it replaces loses
// its receipt first, so that no receipt ever vouches for bytes that are gone.
// What it restores keeps its receipt meanwhile: it is false already, and the one
// to find the work by if this is interrupted.
func (w *work) commit(ctx context.Context, x todo, r *store.Receipt, m *made, again bool) error {
	c, taken := x.chunk, x.taken()
	if err := w.retract(ctx, c, x.replaces); err != nil {
		return err
	}
	if r.Format == task.Tar {
		shard, err := w.store.PutShard(ctx, w.task.Generator, c, m.samples)
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
	if again || len(x.replaces) > 0 || x.restores != nil || c.Indices != nil {
		// Somebody was here before and may have left other objects behind.
		if err := w.clear(ctx, x, r, taken); err != nil {
			return err
		}
	}
	if x.restores != nil {
		return w.store.ReplaceReceipt(ctx, *r)
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

// retract takes back what is replaced. Where a receipt reaches beyond the chunk,
// the rest of it is committed anew under its own range first; a repair's receipt
// only loses the samples.
func (w *work) retract(ctx context.Context, c task.Chunk, replaces []store.Receipt) error {
	for _, old := range replaces {
		if old.Indices != nil {
			if err := w.store.Reduce(ctx, old.Key(), c.Keep); err != nil {
				return err
			}
			continue
		}
		for _, rest := range []task.Range{{Start: old.Start, End: min(old.End, c.Keep.Start)}, {Start: max(old.Start, c.Keep.End), End: old.End}} {
			if rest.Len() == 0 {
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
func (w *work) clear(ctx context.Context, x todo, r *store.Receipt, taken map[int]bool) error {
	c, keep := x.chunk, r.ObjectKeys()
	var old []string
	for _, o := range x.replaces { // may be of another domain, where a sweep does not look
		if o.Shard != nil {
			continue
		}
		for _, key := range o.Part(c.Keep).ObjectKeys() {
			if !slices.Contains(keep, key) {
				old = append(old, key)
			}
		}
	}
	if c.Indices == nil { // what a repair replaces stands in shards that others need
		shards, err := w.store.Shards(ctx, w.task.Generator, c.Keep)
		if err != nil {
			return err
		}
		for _, shard := range shards {
			if slices.Contains(keep, shard) {
				continue
			}
			needed, err := w.needed(ctx, shard, r)
			if err != nil {
				return err
			}
			if !needed {
				old = append(old, shard)
			}
		}
	}
	if err := w.store.Delete(ctx, old); err != nil {
		return err
	}
	free := slices.DeleteFunc(slices.Clone(c.Kept()), func(index int) bool { return taken[index] })
	return w.store.Sweep(ctx, w.task.Generator, r.Domain, free, keep)
}

// needed reports whether samples of a receipt other than r are in a shard. That of
// a repair may be without its receipt because the repair is at work, and may not
// even be of these samples: only its key tells what it spans.
func (w *work) needed(ctx context.Context, shard string, r *store.Receipt) (bool, error) {
	whole, repair, _ := task.ShardRange(shard)
	if repair {
		own, err := w.store.Receipt(ctx, task.ReceiptOfShard(shard))
		if errors.Is(err, store.ErrNotFound) {
			return true, nil
		}
		return len(own.Samples) > 0, err
	}
	stored, err := w.store.Receipts(ctx, w.task.Generator, whole)
	return slices.ContainsFunc(stored, func(o store.Receipt) bool {
		return o.Shard != nil && o.Shard.Key == shard && o.Key() != r.Key() && len(o.Samples) > 0
	}), err
}
