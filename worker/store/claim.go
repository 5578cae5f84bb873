package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Holder says who owns a claim, and until when.
type Holder struct {
	RequestID string    `json:"request_id"`
	MessageID string    `json:"message_id,omitempty"`
	Deadline  time.Time `json:"deadline"` // after it the platform has killed the holder
}

// Claim is the right of one worker to write a chunk.
type Claim struct {
	Holder
	Key      string `json:"-"`
	Number   int    `json:"number"`
	Nonce    uint64 `json:"nonce"` // tells two claims of one request apart
	Released bool   `json:"released,omitempty"`
}

// BusyError says that another worker owns a chunk.
type BusyError struct {
	Until  time.Time // the latest moment at which the chunk is free
	Holder Holder
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("claimed by request %s until %s", e.Holder.RequestID, e.Until.UTC().Format(time.RFC3339))
}

// claimsPrefix is where the claims of a chunk's cell stand. A repair is claimed
// under its own name.
func claimsPrefix(generator string, c task.Chunk) string {
	if c.Indices != nil {
		return task.ClaimPrefix + generator + "/" + c.Name() + "/"
	}
	return task.ClaimsPrefix(generator, c.Cell)
}

// last returns the claim with the highest number, or nil.
func (s *Store) last(ctx context.Context, generator string, c task.Chunk) (*Claim, error) {
	key, number := "", 0
	for o, err := range s.List(ctx, claimsPrefix(generator, c), "") {
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
	claim.Key, claim.Number = key, number
	return claim, nil
}

// Claim takes the chunk's cell for the holder. The claim's number is higher than
// every claim before it and than above, the highest claim of the receipts it
// would replace. It fails with a *BusyError while another worker's claim is
// valid at now, or when another worker was quicker.
func (s *Store) Claim(ctx context.Context, generator string, c task.Chunk, h Holder, above int, now time.Time) (*Claim, error) {
	last, err := s.last(ctx, generator, c)
	if err != nil {
		return nil, err
	}
	if last != nil {
		if last.Deadline.After(now) {
			return nil, &BusyError{Until: last.Deadline, Holder: last.Holder}
		}
		above = max(above, last.Number)
	}
	claim := &Claim{Holder: h, Number: above + 1, Nonce: rand.Uint64()}
	claim.Key = fmt.Sprintf("%s%08d.json", claimsPrefix(generator, c), claim.Number)
	body, err := json.Marshal(claim)
	if err != nil {
		return nil, err
	}
	switch err := s.put(ctx, claim.Key, body, true); {
	case errors.Is(err, ErrExists): // somebody was quicker: their deadline is not known here
		return nil, &BusyError{Until: now.Add(time.Second)}
	case err != nil:
		return nil, err
	}
	return claim, nil
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
	return s.put(ctx, claim.Key, body, false)
}

// ReleaseHeldBy releases the claim of a chunk's cell if a request holds it, or
// whoever holds it if requestID is empty. It is for who knows that the holder is
// dead: the local stack.
func (s *Store) ReleaseHeldBy(ctx context.Context, generator string, c task.Chunk, requestID string) error {
	last, err := s.last(ctx, generator, c)
	if err != nil || last == nil || last.Released || requestID != "" && last.RequestID != requestID {
		return err
	}
	return s.Release(ctx, last)
}
