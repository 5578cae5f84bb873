package store_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

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
		case strings.Contains(r.URL.Path, task.ClaimsPrefix("maze", first)):
			answer, err := quick.Do(r.WithContext(context.WithoutCancel(r.Context())))
			close(arrived)
			select {
			case <-r.Context().Done(): // nobody waits for the answer
				return nil, r.Context().Err()
			case <-time.After(200 * time.Millisecond): // more than the other refusal takes
			}
			return answer, err
		case strings.Contains(r.URL.Path, task.ClaimsPrefix("maze", second)):
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
