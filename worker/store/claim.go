package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Holder says who owns a claim, and until when.
type Holder struct {
	RequestID string    `json:"request_id"`
	MessageID string    `json:"message_id,omitempty"`
	Deadline  time.Time `json:"deadline"` // after it the platform has killed the holder; in a claim, by the bucket's clock and with claimGrace
}

// Claim is the right of one worker to write a chunk.
type Claim struct {
	Holder
	Key      string `json:"-"`
	Number   int    `json:"number"`
	Nonce    uint64 `json:"nonce"` // tells two claims of one request apart
	Released bool   `json:"released,omitempty"`

	First bool      `json:"-"` // nobody has claimed a part of the cell before: there is nothing to clear away
	taken time.Time // when, by the worker's clock
	at    time.Time // and by the bucket's
}

// claimGrace is how much longer than its holder a claim lives: what the holder
// had sent when it was killed may be executed a little later. It also covers that
// an answer's Date has whole seconds. It is less than a message is usually
// hidden beyond the time of an invocation (60 s).
const claimGrace = 10 * time.Second

// BusyError says that another worker owns a chunk.
type BusyError struct {
	Until  time.Time // the latest moment at which the chunk is free, by the worker's clock
	Holder Holder
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("claimed by request %s until %s", e.Holder.RequestID, e.Until.UTC().Format(time.RFC3339))
}

// busy says how long a claim lives, given the bucket's clock.
func (c *Claim) busy(now time.Time) *BusyError {
	return &BusyError{Until: time.Now().Add(c.Deadline.Sub(now)), Holder: c.Holder}
}

// claimsPrefix is where the claims of a chunk's cell stand. A repair is claimed
// under its own name.
func claimsPrefix(generator string, c task.Chunk) string {
	if c.Indices != nil {
		return task.ClaimPrefix + generator + "/" + c.Name() + "/"
	}
	return task.ClaimsPrefix(generator, c.Cell)
}

// claims are the highest numbers by the places where claims stand (those of cells,
// and of repairs), and what the bucket's clock showed when they were listed.
type claims struct {
	highest map[string]int
	now     time.Time
}

// listClaims lists the claims below a prefix, those after a key and before the
// end; either may be "".
func (s *Store) listClaims(ctx context.Context, prefix, after, end string) (claims, error) {
	list := claims{highest: map[string]int{}}
	for page, err := range s.pages(ctx, prefix, after) {
		if err != nil {
			return list, err
		}
		if t, ok := middleware.GetServerTime(page.ResultMetadata); ok && list.now.IsZero() {
			list.now = t
		}
		for _, o := range page.Contents {
			key := aws.ToString(o.Key)
			if end != "" && key >= end {
				return list, nil
			}
			if n, ok := task.ClaimNumber(key); ok {
				place := key[:strings.LastIndex(key, "/")+1]
				list.highest[place] = max(list.highest[place], n)
			}
		}
	}
	if list.now.IsZero() {
		list.now = time.Now() // no Date in its answers: a bucket of somebody's own
	}
	return list, nil
}

// readClaim reads one claim. One that an expiry rule has taken is long over.
func (s *Store) readClaim(ctx context.Context, place string, number int) (*Claim, error) {
	key := claimKey(place, number)
	claim := &Claim{}
	if err := s.readJSON(ctx, key, claim); err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	claim.Key, claim.Number = key, number
	return claim, nil
}

func claimKey(place string, number int) string { return fmt.Sprintf("%s%08d.json", place, number) }

// Claim takes the chunk's cell for the holder. The claim's number is higher than
// every claim of the cell before it and than above, the highest claim of the
// receipts it would replace. It fails with a *BusyError while another worker's
// claim of the cell, or of one on another grid that overlaps it, is valid, or
// when another worker was quicker.
//
// Whether a claim is valid goes by the bucket's clock alone: workers' clocks may
// differ by any amount. What is taken from the worker's clock is how long the
// holder has left, and that before anything is asked, so that a slow answer makes
// the claim longer and not shorter.
func (s *Store) Claim(ctx context.Context, generator string, c task.Chunk, h Holder, above int) (*Claim, error) {
	if c.Indices != nil {
		return s.Lock(ctx, generator, c, h, above)
	}
	left := time.Until(h.Deadline)
	around, err := s.listAround(ctx, generator, c.Cell)
	if err != nil {
		return nil, err
	}
	if err := s.checkOthers(ctx, c.Cell, around); err != nil {
		return nil, err
	}
	claim, err := s.take(ctx, claimsPrefix(generator, c), around, h, left, above)
	if err != nil {
		return nil, err
	}
	// Who claims an overlapping cell lists after its own put as well, so at least
	// one of two sees the other.
	again, err := s.listAround(ctx, generator, c.Cell)
	if err == nil {
		err = s.checkOthers(ctx, c.Cell, again)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimGrace)
		defer cancel()
		return nil, errors.Join(err, s.Release(ctx, claim, true))
	}
	claim.First = len(around.highest) == 0
	return claim, nil
}

// listAround lists the claims of a cell and of the cells on other grids that
// overlap it. No cell has more than task.MaxSamples indices.
func (s *Store) listAround(ctx context.Context, generator string, cell task.Range) (claims, error) {
	after := ""
	prefix := task.ClaimPrefix + generator + "/"
	if from := cell.Start - task.MaxSamples; from > 0 {
		after = fmt.Sprintf("%s%08d", prefix, from)
	}
	list, err := s.listClaims(ctx, prefix, after, fmt.Sprintf("%s%08d", prefix, cell.End))
	maps.DeleteFunc(list.highest, func(place string, _ int) bool {
		other, repair, ok := task.ClaimRange(place)
		return !ok || repair || !other.Overlaps(cell)
	})
	return list, err
}

// checkOthers fails with a *BusyError if one of the claims, of another cell than
// this one, is valid.
func (s *Store) checkOthers(ctx context.Context, cell task.Range, list claims) error {
	for _, place := range slices.Sorted(maps.Keys(list.highest)) {
		if other, _, _ := task.ClaimRange(place); other == cell {
			continue
		}
		claim, err := s.readClaim(ctx, place, list.highest[place])
		if err != nil {
			return err
		}
		if claim.Deadline.After(list.now) {
			return claim.busy(list.now)
		}
	}
	return nil
}

// Lock takes the claim of a chunk's place as Claim does, but does not look at
// cells of other grids. It is for what is done to receipts and not to objects.
func (s *Store) Lock(ctx context.Context, generator string, c task.Chunk, h Holder, above int) (*Claim, error) {
	return s.lock(ctx, claimsPrefix(generator, c), h, above)
}

func (s *Store) lock(ctx context.Context, place string, h Holder, above int) (*Claim, error) {
	left := time.Until(h.Deadline)
	list, err := s.listClaims(ctx, place, "", "")
	if err != nil {
		return nil, err
	}
	return s.take(ctx, place, list, h, left, above)
}

// take puts the next claim of a place, if the last one is over.
func (s *Store) take(ctx context.Context, place string, list claims, h Holder, left time.Duration, above int) (*Claim, error) {
	claim := &Claim{Holder: h, Nonce: rand.Uint64(), taken: time.Now(), at: list.now}
	if n := list.highest[place]; n > 0 {
		last, err := s.readClaim(ctx, place, n)
		if err != nil {
			return nil, err
		}
		if last.Deadline.After(list.now) {
			return nil, last.busy(list.now)
		}
		above = max(above, n)
	}
	claim.Number = above + 1
	claim.Key = claimKey(place, claim.Number)
	claim.Deadline = list.now.Add(left + claimGrace)
	body, err := json.Marshal(claim)
	if err != nil {
		return nil, err
	}
	switch err := s.put(ctx, claim.Key, body, true); {
	case errors.Is(err, ErrExists): // somebody was quicker: their deadline is not known here
		return nil, &BusyError{Until: time.Now().Add(time.Second)}
	case err != nil:
		return nil, err
	}
	return claim, nil
}

// Release gives a claim up before its deadline. Its number stays taken: numbers
// order receipts and are never used twice. Unless every request of its holder has
// been answered (clean), one may still be executed: then the claim lives on for
// claimGrace.
func (s *Store) Release(ctx context.Context, claim *Claim, clean bool) error {
	released := *claim
	released.Released, released.Deadline = true, time.Unix(0, 0).UTC()
	if !clean {
		soon := claim.at.Add(time.Since(claim.taken) + claimGrace)
		if !soon.Before(claim.Deadline) {
			return nil
		}
		released.Released, released.Deadline = false, soon
	}
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
	place := claimsPrefix(generator, c)
	list, err := s.listClaims(ctx, place, "", "")
	if err != nil || list.highest[place] == 0 {
		return err
	}
	last, err := s.readClaim(ctx, place, list.highest[place])
	if err != nil || last.Released || requestID != "" && last.RequestID != requestID {
		return err
	}
	return s.Release(ctx, last, true)
}
