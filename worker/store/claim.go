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
	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Holder says who owns a claim, and until when.
type Holder struct {
	RequestID string    `json:"request_id"`
	MessageID string    `json:"message_id,omitempty"`
	Deadline  time.Time `json:"deadline"` // after it the platform has killed the holder; in a claim, by the bucket's clock and with claimGrace
}

// Claim is the right of one worker to write a chunk: an object for each cell of
// the grid that the chunk writes to, which is one; for a repair several, and one
// under its own name.
type Claim struct {
	Holder
	Number   int    `json:"number"`
	Nonce    uint64 `json:"nonce"` // tells two claims of one request apart
	Released bool   `json:"released,omitempty"`

	First bool      `json:"-"` // nobody has claimed a part of the cells before: there is nothing to clear away
	keys  []string  // where it stands
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

// claims are the highest numbers by the places where claims stand, and what the bucket's clock showed when they were listed.
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
// number is higher than every claim of the cells before it and than above, the
// highest claim of the receipts it would replace. It fails with a *BusyError while
// another worker's claim of one of the cells, or of one on another grid that
// overlaps them, is valid, or when another worker was quicker.
//
// Whether a claim is valid goes by the bucket's clock alone: workers' clocks may
// differ by any amount. What is taken from the worker's clock is how long the
// holder has left, and that before anything is asked, so that a slow answer makes
// the claim longer and not shorter.
func (s *Store) Claim(ctx context.Context, generator string, c task.Chunk, h Holder, above int) (*Claim, error) {
	left := time.Until(h.Deadline)
	own := places(generator, c)
	around, err := s.listAround(ctx, generator, c)
	if err != nil {
		return nil, err
	}
	if err := s.checkOthers(ctx, own, around); err != nil {
		return nil, err
	}
	claim, err := s.take(ctx, own, around, h, left, above)
	if err != nil {
		return nil, err
	}
	// Who claims an overlapping cell lists after its own put as well, so at least
	// one of two sees the other.
	again, err := s.listAround(ctx, generator, c)
	if err == nil {
		err = s.checkOthers(ctx, own, again)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimGrace)
		defer cancel()
		return nil, errors.Join(err, s.Release(ctx, claim, true))
	}
	claim.First = len(around.highest) == 0
	return claim, nil
}

// places are where the claims of a chunk stand.
func places(generator string, c task.Chunk) []string {
	var list []string
	for _, cell := range c.Cells() {
		list = append(list, task.ClaimsPrefix(generator, cell))
	}
	if c.Indices != nil {
		list = append(list, repairPlace(generator, c.Name()))
	}
	return list
}

// listAround lists the claims of a chunk and those of cells on other grids that
// overlap its own. No cell has more than task.MaxSamples indices.
func (s *Store) listAround(ctx context.Context, generator string, c task.Chunk) (claims, error) {
	after := ""
	cells, own := c.Cells(), places(generator, c)
	prefix := task.ClaimPrefix + generator + "/"
	if from := cells[0].Start - task.MaxSamples; from > 0 {
		after = fmt.Sprintf("%s%08d", prefix, from)
	}
	list, err := s.listClaims(ctx, prefix, after, fmt.Sprintf("%s%08d", prefix, cells[len(cells)-1].End))
	maps.DeleteFunc(list.highest, func(place string, _ int) bool {
		other, isCell := task.ClaimRange(place)
		return !slices.Contains(own, place) && !(isCell && slices.ContainsFunc(cells, other.Overlaps))
	})
	return list, err
}

// checkOthers fails with a *BusyError if one of the claims, of another place than
// the chunk's own, is valid.
func (s *Store) checkOthers(ctx context.Context, own []string, list claims) error {
	for _, place := range slices.Sorted(maps.Keys(list.highest)) {
		if slices.Contains(own, place) {
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

// LockReceipt takes the right to change a receipt, not its objects: the claim of
// its cell, or for a repair the one under its own name. It does not look at the
// cells of other grids.
func (s *Store) LockReceipt(ctx context.Context, r Receipt, h Holder) (*Claim, error) {
	place := task.ClaimsPrefix(r.Generator, task.Range{Start: r.ChunkStart, End: r.ChunkStart + r.ChunkSize})
	if r.Indices != nil {
		place = repairPlace(r.Generator, r.chunk().Name())
	}
	return s.lock(ctx, place, h, r.Claim)
}

func (s *Store) lock(ctx context.Context, place string, h Holder, above int) (*Claim, error) {
	left := time.Until(h.Deadline)
	list, err := s.listClaims(ctx, place, "", "")
	if err != nil {
		return nil, err
	}
	return s.take(ctx, []string{place}, list, h, left, above)
}

// repairPlace is where the claims of a repair itself stand, beside those of its
// cells: of its receipt and its shard.
func repairPlace(generator, name string) string {
	return task.ClaimPrefix + generator + "/" + name + "/"
}

// take puts the next claim of each place, if the last ones are over.
func (s *Store) take(ctx context.Context, places []string, list claims, h Holder, left time.Duration, above int) (*Claim, error) {
	claim := &Claim{Holder: h, Nonce: rand.Uint64(), taken: time.Now(), at: list.now}
	lasts := make([]*Claim, len(places))
	if err := each(ctx, len(places), func(ctx context.Context, i int) (err error) {
		if n := list.highest[places[i]]; n > 0 {
			lasts[i], err = s.readClaim(ctx, places[i], n)
		}
		return err
	}); err != nil {
		return nil, err
	}
	for _, last := range lasts {
		if last == nil {
			continue
		}
		if last.Deadline.After(list.now) {
			return nil, last.busy(list.now)
		}
		above = max(above, last.Number)
	}
	claim.Number = above + 1
	claim.Deadline = list.now.Add(left + claimGrace)
	body, err := json.Marshal(claim)
	if err != nil {
		return nil, err
	}
	put := make([]string, len(places))
	var group errgroup.Group // a put that is given up half-way may still be executed: each is waited for
	group.SetLimit(parallel)
	for i, place := range places {
		group.Go(func() error {
			key := claimKey(place, claim.Number)
			err := s.put(ctx, key, body, true)
			if err == nil {
				put[i] = key
			}
			return err
		})
	}
	err = group.Wait()
	claim.keys = slices.DeleteFunc(put, func(key string) bool { return key == "" })
	if err == nil {
		return claim, nil
	}
	if len(claim.keys) > 0 { // what cannot be released ends with its deadline
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimGrace)
		defer cancel()
		_ = s.Release(ctx, claim, true)
	}
	if errors.Is(err, ErrExists) { // somebody was quicker: their deadline is not known here
		return nil, &BusyError{Until: time.Now().Add(time.Second)}
	}
	return nil, err
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

// ReleaseHeldBy releases the claims of a chunk that a request holds, or
// whoever holds them if requestID is empty. It is for who knows that the holder is
// dead: the local stack.
func (s *Store) ReleaseHeldBy(ctx context.Context, generator string, c task.Chunk, requestID string) error {
	own := places(generator, c)
	return each(ctx, len(own), func(ctx context.Context, i int) error {
		place := own[i]
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
