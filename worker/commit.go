package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// commit stores the samples and then, last, the receipt. What it replaces loses
// its receipt first, so that no receipt ever vouches for bytes that are gone. What
// it restores keeps its receipt meanwhile: it is false already, and the one to
// find the work by if this is interrupted.
func (w *work) commit(ctx context.Context, x todo, r *store.Receipt, m *made, claim *store.Claim) error {
	c, taken := x.chunk, x.taken()
	emptied, err := w.retract(ctx, c, x.replaces)
	if err != nil {
		return err
	}
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
	if !claim.First || len(x.replaces) > 0 || x.restores != nil || c.Indices != nil {
		// Somebody was here before and may have left other objects behind.
		if err := w.clear(ctx, x, r, taken); err != nil {
			return err
		}
	}
	if x.restores != nil {
		return w.store.ReplaceReceipt(ctx, *r)
	}
	for _, old := range emptied { // before the receipt: who comes after an interruption does it again
		if err := w.deleteShard(ctx, old); err != nil {
			return err
		}
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

// retract takes back the receipts that are replaced. They lie within the chunk:
// cut has seen to that. Of repairs, which may hold samples of other chunks too, it
// takes back what lies in the chunk. One that has nothing left is returned: its
// receipt stays, so that the repair does not come back when its message does.
func (w *work) retract(ctx context.Context, c task.Chunk, replaces []store.Receipt) (emptied []store.Receipt, err error) {
	for _, old := range replaces {
		if old.Indices == nil {
			if err := w.store.DeleteReceipt(ctx, old); err != nil {
				return nil, err
			}
		}
	}
	for _, old := range replaces {
		if old.Indices == nil {
			continue
		}
		err := w.locked(ctx, old, func(ctx context.Context, now store.Receipt) error {
			rest := now.Without(c.Keep)
			if len(rest.Samples) == 0 {
				emptied = append(emptied, rest)
			}
			if len(rest.Samples) == len(now.Samples) {
				return nil
			}
			return w.store.ReplaceReceipt(ctx, rest)
		})
		if err != nil {
			return nil, err
		}
	}
	return emptied, nil
}

// clear deletes the objects of the chunk's samples that the new receipt does
// not name: those of replaced receipts, and those of a writer that was killed.
// Shards of replaced receipts may still be needed for what is left of them
// elsewhere: they are swept when nobody names them any more.
func (w *work) clear(ctx context.Context, x todo, r *store.Receipt, taken map[int]bool) error {
	c, keep := x.chunk, r.ObjectKeys()
	named := map[string]bool{}
	for _, key := range keep {
		named[key] = true
	}
	gone := x.replaces
	if x.restores != nil {
		gone = []store.Receipt{*x.restores}
		if old := x.restores.Shard; old != nil && !named[old.Key] {
			if err := w.deleteShard(ctx, *x.restores); err != nil {
				return err
			}
		}
	}
	var old []string
	for _, o := range gone {
		if o.Shard != nil {
			continue
		}
		for _, s := range o.Part(c.Keep).Samples {
			for _, f := range s.Files {
				if key := task.FileKey(o.Generator, s.ID, f.Name); !named[key] && !taken[s.Index] {
					old = append(old, key)
				}
			}
		}
	}
	if err := w.store.Delete(ctx, old); err != nil {
		return err
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
	return w.store.SweepShards(ctx, w.task.Generator, c.Keep, shard)
}

// deleteShard deletes the shard of a receipt unless another one names it.
func (w *work) deleteShard(ctx context.Context, r store.Receipt) error {
	if r.Shard == nil {
		return nil
	}
	whole, ok := task.ShardRange(r.Shard.Key)
	if !ok {
		return nil
	}
	stored, err := w.store.Receipts(ctx, w.task.Generator, whole)
	if err != nil || slices.ContainsFunc(stored, func(o store.Receipt) bool { return o.Shard != nil && o.Shard.Key == r.Shard.Key && o.Key() != r.Key() }) {
		return err
	}
	return w.store.Delete(ctx, []string{r.Shard.Key})
}

// sticksOut reports whether a receipt must be cut before a range of it can be
// replaced. A repair need not be: samples are taken from it one by one.
func sticksOut(r store.Receipt, keep task.Range) bool {
	return r.Indices == nil && !keep.Contains(r.Range())
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
		err := w.locked(ctx, old, func(ctx context.Context, now store.Receipt) error {
			for _, piece := range now.Cut(c.Keep) {
				if err := w.store.PutReceipt(ctx, piece); err != nil && !errors.Is(err, store.ErrExists) {
					return err
				}
			}
			return w.store.DeleteReceipt(ctx, now)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// locked does something to a receipt under its lock, unless it has been cut or
// replaced meanwhile. It waits a little for others that do so.
func (w *work) locked(ctx context.Context, old store.Receipt, do func(ctx context.Context, now store.Receipt) error) (err error) {
	holder := w.briefly()
	ctx, cancel := context.WithDeadline(ctx, holder.Deadline)
	defer cancel()
	lock, err := w.store.LockReceipt(ctx, old, holder)
	var busy *store.BusyError
	for errors.As(err, &busy) && ctx.Err() == nil && old.Indices != nil {
		select {
		case <-ctx.Done():
		case <-time.After(claimPoll):
		}
		lock, err = w.store.LockReceipt(ctx, old, holder)
	}
	if busy != nil && err != nil {
		return busy // whatever ended the wait for it
	}
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
		return nil
	}
	if err != nil {
		return err
	}
	return do(ctx, now)
}
