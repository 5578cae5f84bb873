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
// its receipt first, so that no receipt ever vouches for bytes that are gone; cut
// has seen to it that this lies within the chunk, but for repairs. What it
// restores keeps its receipt meanwhile: it is false already, and the one to find
// the work by if this is interrupted. First says that nobody was here before.
func (w *work) commit(ctx context.Context, x todo, r *store.Receipt, m *made, first bool) error {
	c, taken := x.chunk, x.taken()
	for _, old := range x.replaces {
		if err := w.retract(ctx, c, old); err != nil {
			return err
		}
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
	if !first || len(x.replaces) > 0 || x.restores != nil || c.Indices != nil {
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

// retract takes back what a replaced receipt holds of the chunk. A repair may
// hold samples of other cells, whose writers take theirs back at the same time. Its
// receipt stays when nothing is left in it, so that the repair does not come back
// when its message does.
func (w *work) retract(ctx context.Context, c task.Chunk, old store.Receipt) error {
	if old.Indices == nil {
		return w.store.DeleteReceipt(ctx, old)
	}
	for limit := time.Now().Add(briefTime); ; {
		err := w.locked(ctx, old, func(ctx context.Context, now store.Receipt) error {
			return w.store.ReplaceReceipt(ctx, now.Without(c.Keep))
		})
		if held, ok := errors.AsType[*store.BusyError](err); !ok || time.Now().After(limit) {
			if ok {
				return fmt.Errorf("take samples %s out of a repair: %s", c.Keep, held)
			}
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(claimPoll):
		}
	}
}

// clear deletes the objects of the chunk's samples that the new receipt does
// not name: those of replaced receipts, and those of a writer that was killed.
func (w *work) clear(ctx context.Context, x todo, r *store.Receipt, taken map[int]bool) error {
	c, keep := x.chunk, r.ObjectKeys()
	named := map[string]bool{}
	for _, key := range keep {
		named[key] = true
	}
	gone := x.replaces
	if x.restores != nil {
		gone = []store.Receipt{*x.restores}
	}
	var old []string
	for _, o := range gone {
		if o.Shard != nil {
			continue // what is left of it elsewhere may still need the shard
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
	return w.store.SweepShards(ctx, *r, w.briefly())
}

// sticksOut reports whether a receipt is to be cut before a chunk replaces its
// part of it. Repairs are not cut: retract takes single samples out of them.
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
// the same receipt at once, so it is done under the receipt's lock. What is
// committed anew describes the same bytes, with the same claim, so a cut that ends
// half-way does no harm.
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

// locked holds the lock of a receipt while it is changed, and hands over the
// receipt as it then is. It does nothing if somebody has replaced it meanwhile,
// and fails with a *store.BusyError if another worker has the lock.
func (w *work) locked(ctx context.Context, old store.Receipt, change func(context.Context, store.Receipt) error) (err error) {
	holder := w.briefly()
	ctx, cancel := context.WithDeadline(ctx, holder.Deadline)
	defer cancel()
	lock, err := w.store.LockReceipt(ctx, old, holder)
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
	return change(ctx, now)
}
