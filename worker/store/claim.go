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

// Claim is the right of one worker to write a chunk: an object for each cell of
// the grid that the chunk writes to, which is one, and several for a repair.
type Claim struct {
	Holder
	Number   int    `json:"number"`
	Nonce    uint64 `json:"nonce"` // tells two claims of one request apart
	Released bool   `json:"released,omitempty"`

	First bool      `json:"-"` // nobody has claimed a part of the cells before: there is nothing to clear away
	keys  []string  // of the objects
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
	claim.keys, claim.Number = []string{key}, number
	return claim, nil
}

func claimKey(place string, number int) string { return fmt.Sprintf("%s%08d.json", place, number) }

// Claim takes the chunk's cells for the holder, all of them or none. The claim's
// number is higher than every claim before it of a cell that overlaps one of them,
// and than above, the highest claim of the receipts it would replace. It fails with
// a *BusyError while another worker's claim of such a cell is valid, or when another
// worker was quicker.
//
// Whether a claim is valid goes by the bucket's clock alone: workers' clocks may
// differ by any amount. What is taken from the worker's clock is how long the
// holder has left, and that before anything is asked, so that a slow answer makes
// the claim longer and not shorter.
func (s *Store) Claim(ctx context.Context, generator string, c task.Chunk, h Holder, above int) (*Claim, error) {
	left := time.Until(h.Deadline)
	cells := c.Cells()
	around, err := s.listAround(ctx, generator, cells)
	if err != nil {
		return nil, err
	}
	if err := s.checkFree(ctx, around); err != nil {
		return nil, err
	}
	own := map[string]bool{}
	for _, cell := range cells {
		own[task.ClaimsPrefix(generator, cell)] = true
	}
	for _, n := range around.highest { // on other grids, too: a shard is named by its range and this number
		above = max(above, n)
	}
	claim, err := s.take(ctx, slices.Sorted(maps.Keys(own)), above+1, around.now, h, left)
	if err != nil {
		return nil, err
	}
	// Who claims an overlapping cell lists after its own put as well, so at least
	// one of two sees the other.
	again, err := s.listAround(ctx, generator, cells)
	if err == nil {
		maps.DeleteFunc(again.highest, func(place string, _ int) bool { return own[place] })
		err = s.checkFree(ctx, again)
	}
	if err != nil {
		return nil, errors.Join(err, s.giveUp(ctx, claim))
	}
	claim.First = len(around.highest) == 0
	return claim, nil
}

// listAround lists the claims of cells and of cells on other grids that overlap
// them. No cell has more than task.MaxSamples indices.
func (s *Store) listAround(ctx context.Context, generator string, cells []task.Range) (claims, error) {
	after := ""
	prefix := task.ClaimPrefix + generator + "/"
	if from := cells[0].Start - task.MaxSamples; from > 0 {
		after = fmt.Sprintf("%s%08d", prefix, from)
	}
	list, err := s.listClaims(ctx, prefix, after, fmt.Sprintf("%s%08d", prefix, cells[len(cells)-1].End))
	maps.DeleteFunc(list.highest, func(place string, _ int) bool {
		other, lock, ok := task.ClaimRange(place)
		return !ok || lock || !slices.ContainsFunc(cells, other.Overlaps)
	})
	return list, err
}

// checkFree fails with a *BusyError if one of the claims is valid.
func (s *Store) checkFree(ctx context.Context, list claims) error {
	places := slices.Sorted(maps.Keys(list.highest))
	return each(ctx, len(places), func(ctx context.Context, i int) error {
		claim, err := s.readClaim(ctx, places[i], list.highest[places[i]])
		if err == nil && claim.Deadline.After(list.now) {
			return claim.busy(list.now)
		}
		return err
	})
}

// LockReceipt takes, for what is done to a receipt and not to objects, the claim of
// the cell it was made in, or for a repair one in its own name. A worker that
// holds a cell on another grid shuts it out if the receipt's range overlaps that
// cell: it has looked at the receipt, and may be about to take it back under its
// name. A repair's holders take their parts back one by one.
func (s *Store) LockReceipt(ctx context.Context, r Receipt, h Holder) (*Claim, error) {
	left := time.Until(h.Deadline)
	start := r.ChunkStart / max(r.ChunkSize, 1) * r.ChunkSize
	place := task.ClaimsPrefix(r.Generator, task.Range{Start: start, End: start + r.ChunkSize})
	if r.Indices != nil {
		place = task.ClaimPrefix + r.Generator + "/" + r.chunk().Name() + "/"
	}
	list, err := s.listClaims(ctx, place, "", "")
	if err != nil {
		return nil, err
	}
	if err := s.checkFree(ctx, list); err != nil {
		return nil, err
	}
	claim, err := s.take(ctx, []string{place}, max(list.highest[place], r.Claim)+1, list.now, h, left)
	if err != nil || r.Indices != nil {
		return claim, err
	}
	around, err := s.listAround(ctx, r.Generator, []task.Range{r.Range()})
	if err == nil {
		delete(around.highest, place)
		err = s.checkFree(ctx, around)
	}
	if err != nil {
		return nil, errors.Join(err, s.giveUp(ctx, claim))
	}
	return claim, nil
}

// take puts a claim in all places or in none.
func (s *Store) take(ctx context.Context, places []string, number int, now time.Time, h Holder, left time.Duration) (*Claim, error) {
	claim := &Claim{Holder: h, Number: number, Nonce: rand.Uint64(), taken: time.Now(), at: now}
	claim.Deadline = now.Add(left + claimGrace)
	body, err := json.Marshal(claim)
	if err != nil {
		return nil, err
	}
	put := make([]string, len(places))
	// One that is refused must not cut the others off: a put without an answer may be
	// executed all the same, and nobody would release what it left.
	err = each(ctx, len(places), func(_ context.Context, i int) error {
		key := claimKey(places[i], number)
		err := s.put(ctx, key, body, true)
		if err == nil {
			put[i] = key
		}
		return err
	})
	claim.keys = slices.DeleteFunc(put, func(key string) bool { return key == "" })
	switch {
	case errors.Is(err, ErrExists): // somebody was quicker: their deadline is not known here
		return nil, errors.Join(&BusyError{Until: time.Now().Add(time.Second)}, s.giveUp(ctx, claim))
	case err != nil:
		return nil, errors.Join(err, s.giveUp(ctx, claim))
	}
	return claim, nil
}

// giveUp releases a claim of which no use was made. What cannot be released ends
// with its deadline.
func (s *Store) giveUp(ctx context.Context, claim *Claim) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimGrace)
	defer cancel()
	return s.Release(ctx, claim, true)
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
	return each(ctx, len(claim.keys), func(ctx context.Context, i int) error { return s.put(ctx, claim.keys[i], body, false) })
}

// ReleaseHeldBy releases the claims of a chunk's cells that a request holds, or
// whoever holds them if requestID is empty. It is for who knows that the holder is
// dead: the local stack.
func (s *Store) ReleaseHeldBy(ctx context.Context, generator string, c task.Chunk, requestID string) error {
	cells := c.Cells()
	return each(ctx, len(cells), func(ctx context.Context, i int) error {
		place := task.ClaimsPrefix(generator, cells[i])
		list, err := s.listClaims(ctx, place, "", "")
		if err != nil || list.highest[place] == 0 {
			return err
		}
		last, err := s.readClaim(ctx, place, list.highest[place])
		if err != nil || last.Released || requestID != "" && last.RequestID != requestID {
			return err
		}
		return s.Release(ctx, last, true)
	})
}
