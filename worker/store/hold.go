package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Holder is who works on a cell.
type Holder struct {
	RequestID string    `json:"request_id"`
	MessageID string    `json:"message_id,omitempty"`
	Nonce     uint64    `json:"nonce"`   // tells apart two of one request
	Seconds   float64   `json:"seconds"` // that it has the cell, from when the object was written
	Deadline  time.Time `json:"-"`       // after it the platform has killed the holder
}

// grace is how much longer than its holder lives a cell is held: requests of a killed holder may be executed later, and
// the times of answers have whole seconds. It is less than messages stay hidden beyond an invocation's time (60 s).
const grace = 10 * time.Second

// BusyError says that another worker holds a cell.
type BusyError struct {
	Until     time.Time // the latest moment at which it is free, by the clock of this machine
	RequestID string    // of the holder
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("held by request %s until %s", e.RequestID, e.Until.UTC().Format(time.RFC3339))
}

// Take takes a cell for a holder, with one request if it is new. It is returned as it is, not taken, if nothing in it
// is wanted, unless a holder was killed in it: what that left must be cleared, at the latest by its message's next
// delivery. It fails with a *BusyError while another holds it.
//
// Whether a cell is held goes by the bucket's clock alone, which dates both the object and the answer. How long this
// holder has left is measured before anything is asked, so a slow answer makes the hold longer.
func (s *Store) Take(ctx context.Context, generator string, cell task.Range, by Holder,
	wanted func(*Cell) bool) (*Cell, error) {
	by.Nonce = rand.Uint64()
	c := &Cell{Version: 1, Dataset: s.dataset, Generator: generator, Start: cell.Start, End: cell.End,
		Receipts: []Receipt{}, key: s.dataset.CellKey(generator, cell)}
	for {
		c.Epoch, c.Holder, c.taken = c.Epoch+1, &by, true
		there, err := s.putCell(ctx, c)
		if !errors.Is(err, ErrExists) {
			return c, err
		}
		if c, err = decode(there); err != nil {
			return nil, err
		}
		held := c.Holder != nil && c.until.After(time.Now())
		switch more := wanted(c); {
		case !more && (c.Holder == nil || held && c.Holder.MessageID != by.MessageID):
			return c, nil
		case held:
			return nil, &BusyError{Until: c.until, RequestID: c.Holder.RequestID}
		}
		c.stale = c.Holder != nil
	}
}

// putCell swaps a cell for what it was. If another worker has changed it, that is returned, with ErrExists.
func (s *Store) putCell(ctx context.Context, c *Cell) (there content, err error) {
	if c.Holder != nil && !c.Holder.Deadline.IsZero() { // the time begins anew with each object
		by := *c.Holder
		by.Seconds = max(0, time.Until(by.Deadline)+grace).Seconds()
		c.Holder = &by
	}
	text, err := c.Encode()
	if err == nil {
		if there, err = s.swap(ctx, c.key, text, c.etag); err == nil {
			c.etag = there.etag
		}
	}
	return there, err
}

// replace puts a cell that is changed; it is the cell only if that succeeded.
func (s *Store) replace(ctx context.Context, c, changed *Cell) error {
	_, err := s.putCell(ctx, changed)
	if err == nil {
		*c = *changed
	}
	return err
}

// Overwrite must be called before objects of committed samples are overwritten: from now on they do not count, until
// they are committed again. It takes no request if none of them counts.
func (s *Store) Overwrite(ctx context.Context, c *Cell, samples []sample.Sample) error {
	changed := *c
	changed.Void = slices.Clone(c.Void)
	for _, x := range samples {
		if c.Has(x.Index) {
			changed.Void = append(changed.Void, x.Index)
		}
	}
	if len(changed.Void) == len(c.Void) {
		return nil
	}
	return s.replace(ctx, c, &changed)
}

// Commit adds a receipt to a cell that was taken, or puts it in the place of another; with done the cell is given up.
// The objects must be stored. What a killed holder left is deleted before, and what does not count any more after.
func (s *Store) Commit(ctx context.Context, c *Cell, r Receipt, place int, done bool) error {
	changed := *c
	changed.Receipts = slices.Clone(c.Receipts)
	if place < 0 {
		place = len(c.Receipts)
		changed.Receipts = append(changed.Receipts, r)
	}
	changed.Receipts[place] = r
	replaced := changed.Replaced(place) // may be void still
	changed.Void = slices.DeleteFunc(slices.Clone(c.Void),
		func(index int) bool { return r.Holds(index) && !slices.Contains(replaced, index) })
	before, after := c.objects(), changed.objects()
	if err := s.Clear(ctx, &changed, before); err != nil {
		return err
	}
	var gone []string
	for key := range before {
		if !after[key] {
			gone = append(gone, key)
		}
	}
	if done && len(gone) == 0 {
		changed.Holder = nil
	}
	if err := s.replace(ctx, c, &changed); err != nil {
		return err
	}
	return s.Delete(ctx, gone)
}

// Clear deletes what a killed holder, if there was one, has left in the cell: what neither the cell nor also names.
func (s *Store) Clear(ctx context.Context, c *Cell, also map[string]bool) error {
	if !c.stale {
		return nil
	}
	named, at := c.objects(), s.dataset.SamplesPrefix(c.Generator)
	prefixes := map[string]bool{at + c.Generator + "_": true} // of shards, and of samples
	for _, r := range c.Receipts {
		prefixes[at+r.Domain+"_"] = true
	}
	var left []string
	for prefix := range prefixes {
		for o, err := range s.List(ctx, prefix, fmt.Sprintf("%s%08d", prefix, c.Start)) {
			if err != nil {
				return err
			}
			if o.Key >= fmt.Sprintf("%s%08d", prefix, c.End) {
				break
			}
			if !named[o.Key] && !also[o.Key] {
				left = append(left, o.Key)
			}
		}
	}
	if err := s.Delete(ctx, left); err != nil {
		return fmt.Errorf("clear cell %s: %w", c.Range(), err)
	}
	c.stale = false
	return nil
}

// Release gives a cell up, if its holder still has it. Unless every request of the holder has been answered (clean),
// one may still be executed: then the cell is held on for grace, and whoever takes it next clears away what is left.
func (s *Store) Release(ctx context.Context, c *Cell, clean bool) error {
	if !c.taken || c.Holder == nil {
		return nil
	}
	changed, by := *c, *c.Holder
	by.Deadline, by.Seconds = time.Time{}, 0
	if !clean {
		by.Seconds = grace.Seconds()
	}
	if changed.Holder = &by; clean && !c.stale {
		changed.Holder = nil
	}
	if err := s.replace(ctx, c, &changed); !errors.Is(err, ErrExists) {
		return err
	}
	return nil
}

// EndHold ends the hold of a request, or of any without an id, on a cell. Its caller knows that the holder is dead.
func (s *Store) EndHold(ctx context.Context, generator string, cell task.Range, requestID string) error {
	c, err := s.Cell(ctx, s.dataset.CellKey(generator, cell))
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) { // which verify reports
		return nil
	}
	if err != nil || c.Holder == nil || requestID != "" && c.Holder.RequestID != requestID {
		return err
	}
	c.taken, c.stale = true, true
	return s.Release(ctx, c, true)
}
