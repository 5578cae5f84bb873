package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Holder says who owns a claim, and until when.
type Holder struct {
	RequestID string    `json:"request_id"`
	MessageID string    `json:"message_id,omitempty"`
	Deadline  time.Time `json:"deadline"` // after it the platform has killed the holder
}

// Claim is the right of one worker to write a chunk: an object for each cell of
// the grid that the chunk writes to, which is one, and several for a repair.
type Claim struct {
	Holder
	Number   int    `json:"number"`
	Nonce    uint64 `json:"nonce"` // tells two claims of one request apart
	Released bool   `json:"released,omitempty"`

	keys []string
}

// BusyError says that another worker owns a chunk.
type BusyError struct {
	Until  time.Time // the latest moment at which the chunk is free
	Holder Holder
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("claimed by request %s until %s", e.Holder.RequestID, e.Until.UTC().Format(time.RFC3339))
}

// last returns the claim of a cell with the highest number, or nil.
func (s *Store) last(ctx context.Context, generator string, cell task.Range) (*Claim, error) {
	key, number := "", 0
	for o, err := range s.List(ctx, task.ClaimsPrefix(generator, cell), "") {
		if err != nil {
			return nil, err
		}
		if n, ok := task.ClaimNumber(o.Key); ok && n > number {
			key, number = o.Key, n
		}
	}
	if key == "" {
		return nil, nil
	}
	claim := &Claim{}
	if err := s.readJSON(ctx, key, claim); err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	claim.keys, claim.Number = []string{key}, number
	return claim, nil
}

// Claim takes the chunk's cells for the holder, all of them or none. The claim's
// number is higher than every claim of them before it and than above, the highest
// claim of the receipts it would replace. It fails with a *BusyError while another
// worker's claim is valid at now, or when another worker was quicker.
func (s *Store) Claim(ctx context.Context, generator string, c task.Chunk, h Holder, above int, now time.Time) (*Claim, error) {
	cells := c.Cells()
	lasts := make([]*Claim, len(cells))
	if err := each(ctx, len(cells), func(ctx context.Context, i int) (err error) {
		lasts[i], err = s.last(ctx, generator, cells[i])
		return err
	}); err != nil {
		return nil, err
	}
	for _, last := range lasts {
		if last == nil {
			continue
		}
		if last.Deadline.After(now) {
			return nil, &BusyError{Until: last.Deadline, Holder: last.Holder}
		}
		above = max(above, last.Number)
	}
	claim := &Claim{Holder: h, Number: above + 1, Nonce: rand.Uint64()}
	body, err := json.Marshal(claim)
	if err != nil {
		return nil, err
	}
	put := make([]string, len(cells))
	err = each(ctx, len(cells), func(ctx context.Context, i int) error {
		key := task.ClaimKey(generator, cells[i], claim.Number)
		err := s.put(ctx, key, body, true)
		if err == nil {
			put[i] = key
		}
		return err
	})
	claim.keys = slices.DeleteFunc(put, func(key string) bool { return key == "" })
	if err == nil {
		return claim, nil
	}
	if len(claim.keys) > 0 { // what cannot be released ends with its deadline
		_ = s.Release(context.WithoutCancel(ctx), claim)
	}
	if errors.Is(err, ErrExists) { // somebody was quicker: their deadline is not known here
		return nil, &BusyError{Until: now.Add(time.Second)}
	}
	return nil, err
}

// Release gives a claim up before its deadline. Its number stays taken: numbers
// order receipts and are never used twice.
func (s *Store) Release(ctx context.Context, claim *Claim) error {
	released := *claim
	released.Released, released.Deadline = true, time.Unix(0, 0).UTC()
	body, err := json.Marshal(released)
	if err != nil {
		return err
	}
	return each(ctx, len(claim.keys), func(ctx context.Context, i int) error { return s.put(ctx, claim.keys[i], body, false) })
}

// ReleaseHeldBy releases the claims of a chunk's cells that a request holds, or
// whoever holds them if requestID is empty. It is for who knows that the holder is
// dead: the local stack.
func (s *Store) ReleaseHeldBy(ctx context.Context, generator string, c task.Chunk, requestID string) error {
	cells := c.Cells()
	return each(ctx, len(cells), func(ctx context.Context, i int) error {
		last, err := s.last(ctx, generator, cells[i])
		if err != nil || last == nil || last.Released || requestID != "" && last.RequestID != requestID {
			return err
		}
		return s.Release(ctx, last)
	})
}
