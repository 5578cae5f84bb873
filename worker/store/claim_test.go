package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Of many that want a cell at once, one gets it, and every next claim has a
// higher number, also when answers are lost.
func TestClaims(t *testing.T) {
	s, n := newStore(t)
	var requests atomic.Int64
	n.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		response, err := send()
		if err == nil && requests.Add(1)%5 == 0 {
			_ = response.Body.Close()
			return nil, io.ErrUnexpectedEOF
		}
		return response, err
	})
	chunk := task.Chunk{Cell: task.Range{Start: 20, End: 40}, Keep: task.Range{Start: 20, End: 40}}
	number := 0
	for round := range 5 {
		var mu sync.Mutex
		var won []*store.Claim
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				h := store.Holder{RequestID: fmt.Sprint(round, i), Deadline: time.Now().Add(time.Hour)}
				claim, err := s.Claim(t.Context(), "maze", chunk, h, 0)
				var busy *store.BusyError
				switch {
				case err == nil:
					mu.Lock()
					won = append(won, claim)
					mu.Unlock()
				case !errors.As(err, &busy):
					t.Error(err)
				}
			})
		}
		group.Wait()
		if len(won) != 1 || won[0].Number <= number {
			t.Fatalf("round %d: %d won, the last number was %d", round, len(won), number)
		}
		number = won[0].Number
		check(t, s.Release(t.Context(), won[0], true))
	}
}

// clock sets the bucket's clock: how far it is ahead of the worker's.
func (n *network) clock(ahead time.Duration) {
	n.set(func(_ *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		response, err := send()
		if err == nil {
			response.Header.Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		}
		return response, err
	})
}

// A claim ends some seconds after its deadline, by the bucket's clock, whatever
// the workers' clocks show; it is above the receipts it replaces; another cell is
// free.
func TestClaimDeadline(t *testing.T) {
	for _, skew := range []time.Duration{0, -7 * time.Minute, 7 * time.Minute} {
		t.Run(skew.String(), func(t *testing.T) {
			s, n := newStore(t)
			n.clock(skew)
			chunk := task.Chunk{Cell: task.Range{End: 20}}
			claim := func(c task.Chunk, id string, left time.Duration, above int) (*store.Claim, error) {
				return s.Claim(t.Context(), "maze", c, store.Holder{RequestID: id, Deadline: time.Now().Add(left)}, above)
			}
			first, err := claim(chunk, "a", time.Minute, 41)
			check(t, err)
			if first.Number != 42 || !first.First {
				t.Errorf("above 41: %+v", first)
			}
			var busy *store.BusyError
			for _, later := range []time.Duration{0, 30 * time.Second, time.Minute + 5*time.Second} {
				n.clock(skew + later)
				_, err = claim(chunk, "b", time.Minute, 0)
				left := time.Until(busyUntil(err)) + later
				if !errors.As(err, &busy) || busy.Holder.RequestID != "a" || left < time.Minute+8*time.Second || left > time.Minute+12*time.Second {
					t.Errorf("after %s of a minute: %v", later, err)
				}
			}
			n.clock(skew)
			if _, err := claim(task.Chunk{Cell: task.Range{Start: 20, End: 40}}, "b", time.Minute, 0); err != nil {
				t.Errorf("another cell: %v", err)
			}
			// A repair takes every cell it writes to, or none.
			repair := task.Chunk{Keep: task.Range{Start: 3, End: 69}, Indices: []int{3, 65, 68}, Attempt: 1, Size: 20}
			if _, err = claim(repair, "b", time.Minute, 0); !errors.As(err, &busy) || busy.Holder.RequestID != "a" {
				t.Errorf("a repair beside the holder of one of its cells: %v", err)
			}
			if c, err := claim(task.Chunk{Cell: task.Range{Start: 60, End: 80}}, "b", time.Second, 0); err != nil {
				t.Errorf("a cell that the repair did not get: %v", err)
			} else {
				check(t, s.Release(t.Context(), c, true))
			}
			n.clock(skew + 2*time.Minute)
			both, err := claim(repair, "r", 3*time.Minute, 0)
			if err != nil || both.Number != 43 {
				t.Fatalf("a repair of two free cells: %+v, %v", both, err)
			}
			for _, start := range []int{0, 60} {
				if _, err := claim(task.Chunk{Cell: task.Range{Start: start, End: start + 20}}, "b", time.Minute, 0); !errors.As(err, &busy) || busy.Holder.RequestID != "r" {
					t.Errorf("a cell of the repair, %d: %v", start, err)
				}
			}
			check(t, s.Release(t.Context(), both, true))
			next, err := claim(chunk, "b", 3*time.Minute, 0)
			if err != nil || next.Number != 44 || next.First {
				t.Errorf("after the deadline: %+v, %v", next, err)
			}
			// Who holds it no more cannot release it for the one who does.
			check(t, s.ReleaseHeldBy(t.Context(), "maze", chunk, "a"))
			if _, err = claim(chunk, "c", time.Hour, 0); !errors.As(err, &busy) {
				t.Errorf("released by another: %v", err)
			}
			check(t, s.ReleaseHeldBy(t.Context(), "maze", chunk, "b"))
			last, err := claim(chunk, "c", time.Hour, 0)
			if err != nil {
				t.Fatalf("released: %v", err)
			}
			// A holder whose requests may still be on their way keeps it a little.
			check(t, s.Release(t.Context(), last, false))
			if _, err = claim(chunk, "d", time.Hour, 0); !errors.As(err, &busy) || time.Until(busy.Until) > 15*time.Second {
				t.Errorf("just released with requests on the way: %v", err)
			}
			n.clock(skew + 2*time.Minute + 15*time.Second)
			if _, err = claim(chunk, "d", time.Hour, 0); err != nil {
				t.Errorf("released some time ago: %v", err)
			}
		})
	}
}

func busyUntil(err error) time.Time {
	var busy *store.BusyError
	if errors.As(err, &busy) {
		return busy.Until
	}
	return time.Time{}
}

// Of a repair's cells one is taken by somebody else while the claim of another is
// on its way. Both are free again when the repair has been refused: the one that
// was on its way must not stay claimed until its deadline.
func TestClaimRefusedLeavesNothing(t *testing.T) {
	s, n := newStore(t)
	holder := func(id string) store.Holder {
		return store.Holder{RequestID: id, MessageID: id, Deadline: time.Now().Add(time.Hour)}
	}
	first, second := task.Range{Start: 0, End: 5}, task.Range{Start: 5, End: 10}
	var once sync.Once
	arrived := make(chan struct{}) // the first cell's claim, in the bucket
	n.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		if r.Method != http.MethodPut {
			return send()
		}
		switch {
		case strings.Contains(r.URL.Path, task.DefaultDataset.ClaimsPrefix("maze", first)):
			answer, err := quick.Do(r.WithContext(context.WithoutCancel(r.Context())))
			close(arrived)
			select {
			case <-r.Context().Done(): // nobody waits for the answer
				return nil, r.Context().Err()
			case <-time.After(200 * time.Millisecond): // more than the other refusal takes
			}
			return answer, err
		case strings.Contains(r.URL.Path, task.DefaultDataset.ClaimsPrefix("maze", second)):
			once.Do(func() {
				<-arrived
				n.set(nil)
				_, err := s.Claim(t.Context(), "maze", task.Chunk{Cell: second, Keep: second}, holder("quicker"), 0)
				if err != nil {
					t.Error(err)
				}
			})
		}
		return send()
	})
	repair := task.Chunk{Cell: task.Range{Start: 1, End: 7}, Keep: task.Range{Start: 1, End: 7}, Indices: []int{1, 6}, Attempt: 1, Size: 5}
	_, err := s.Claim(t.Context(), "maze", repair, holder("repair"), 0)
	if busy, ok := errors.AsType[*store.BusyError](err); !ok {
		t.Fatalf("got %v, %v", busy, err)
	}
	n.set(nil)
	if _, err := s.Claim(t.Context(), "maze", task.Chunk{Cell: first, Keep: first}, holder("next"), 0); err != nil {
		t.Errorf("the cell that nobody holds: %v", err)
	}
}
