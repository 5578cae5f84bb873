package store_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// receipt is a receipt of some samples of a cell of the generator maze.
func receipt(epoch int, indices ...int) store.Receipt {
	r := store.Receipt{Generator: "maze", ChunkSize: 5, ChunkStart: indices[0], Start: indices[0],
		End: indices[len(indices)-1] + 1, Epoch: epoch, Format: task.Files, Domain: "maze"}
	for _, i := range indices {
		r.Samples = append(r.Samples, store.ReceiptSample{ID: task.SampleID("maze", i), Index: i,
			Files: []store.ReceiptFile{{Name: "file0.bin", Size: 3}}})
	}
	return r
}

func holder(id string) store.Holder {
	return store.Holder{RequestID: id, Deadline: time.Now().Add(time.Hour)}
}

func all(*store.Cell) bool { return true }

// take takes a cell of the generator maze that is free.
func take(t *testing.T, s *store.Store, cell task.Range) *store.Cell {
	t.Helper()
	c, err := s.Take(t.Context(), "maze", cell, holder("r"), all)
	check(t, err)
	return c
}

// commit commits samples of a cell.
func commit(t *testing.T, s *store.Store, cell task.Range, indices ...int) {
	t.Helper()
	c := take(t, s, cell)
	check(t, s.Commit(t.Context(), c, receipt(c.Epoch, indices...), -1, true))
}

func isBusy(err error) (*store.BusyError, bool) { return errors.AsType[*store.BusyError](err) }

// Of many that want a cell at once one gets it, in the next epoch, also when answers
// are lost; what each commits stays.
func TestTakeAtOnce(t *testing.T) {
	t.Parallel()
	s, n := newStore(t)
	n.loseAnswers(5)
	cell := task.Range{Start: 20, End: 40}
	for round := range 5 {
		var mu sync.Mutex
		var won []*store.Cell
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				c, err := s.Take(t.Context(), "maze", cell, holder(fmt.Sprint(round, i)), all)
				if err == nil {
					mu.Lock()
					won = append(won, c)
					mu.Unlock()
				} else if _, busy := isBusy(err); !busy {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if len(won) != 1 || won[0].Epoch != round+1 || len(won[0].Receipts) != round {
			t.Fatalf("round %d: won %+v", round, won)
		}
		check(t, s.Commit(t.Context(), won[0], receipt(won[0].Epoch, 20+round), -1, true))
	}
}

// clock sets the bucket's clock, by which it dates answers and objects: how far it is
// ahead of the worker's.
func (n *network) clock(skew, later time.Duration) {
	n.set(func(_ *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		response, err := send()
		if err == nil {
			response.Header.Set("Date", time.Now().Add(skew+later).UTC().Format(http.TimeFormat))
			if at, e := http.ParseTime(response.Header.Get("Last-Modified")); e == nil {
				response.Header.Set("Last-Modified", at.Add(skew).Format(http.TimeFormat))
			}
		}
		return response, err
	})
}

// A cell is free some seconds after the deadline of its holder, by the bucket's clock,
// whatever the workers' clocks show.
func TestHoldEnds(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{0, -7 * time.Minute, 7 * time.Minute} {
		t.Run(skew.String(), func(t *testing.T) {
			s, n := newStore(t)
			cell := task.Range{End: 5}
			try := func(id string, left time.Duration) (*store.Cell, error) {
				return s.Take(t.Context(), "maze", cell, store.Holder{RequestID: id, Deadline: time.Now().Add(left)}, all)
			}
			n.clock(skew, 0)
			first, err := try("a", time.Minute)
			check(t, err)
			for _, later := range []time.Duration{0, 30 * time.Second, time.Minute + 5*time.Second} {
				n.clock(skew, later)
				_, err = try("b", time.Minute)
				busy, ok := isBusy(err)
				if !ok || busy.RequestID != "a" {
					t.Fatalf("after %s of a minute: %v", later, err)
				}
				if left := time.Until(busy.Until) + later; left < time.Minute+8*time.Second || left > time.Minute+12*time.Second {
					t.Errorf("after %s of a minute it is held for %s", later, left)
				}
			}
			n.clock(skew, 2*time.Minute)
			next, err := try("b", 3*time.Minute)
			if err != nil || next.Epoch != first.Epoch+1 {
				t.Fatalf("after the deadline: %+v, %v", next, err)
			}
			// Who holds it no more can neither commit nor give it up.
			if err := s.Commit(t.Context(), first, receipt(1, 0), -1, true); !errors.Is(err, store.ErrExists) {
				t.Errorf("the first one commits: %v", err)
			}
			check(t, s.Release(t.Context(), first, true))
			check(t, s.EndHold(t.Context(), "maze", cell, "a"))
			n.clock(skew, 0)
			if _, err = try("c", time.Hour); err == nil {
				t.Error("released by another")
			}
			check(t, s.EndHold(t.Context(), "maze", cell, "b"))
			last, err := try("c", time.Hour)
			check(t, err)
			// A holder whose requests may still be on their way keeps it a little.
			check(t, s.Release(t.Context(), last, false))
			_, err = try("d", time.Hour)
			if busy, ok := isBusy(err); !ok || time.Until(busy.Until) > 15*time.Second {
				t.Errorf("just released with requests on the way: %v", err)
			}
			n.clock(skew, 15*time.Second)
			if _, err = try("d", time.Hour); err != nil {
				t.Errorf("released some time ago: %v", err)
			}
		})
	}
}

// Who wants nothing of a cell does not take it, whoever holds it; but what a holder
// left that was killed is cleared away.
func TestNotWanted(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	cell := task.Range{End: 5}
	commit(t, s, cell, 0, 1)
	nothing := func(*store.Cell) bool { return false }
	if c, err := s.Take(t.Context(), "maze", cell, holder("b"), nothing); err != nil || c.Epoch != 1 {
		t.Errorf("free: %+v, %v", c, err)
	}
	held := take(t, s, cell)
	if _, err := s.Take(t.Context(), "maze", cell, holder("b"), nothing); err == nil {
		t.Error("held with the message that is here: it may have been killed")
	}
	other := holder("b")
	other.MessageID = "m"
	if c, err := s.Take(t.Context(), "maze", cell, other, nothing); err != nil || c.Epoch != 2 {
		t.Errorf("held: %+v, %v", c, err)
	}
	check(t, s.PutFiles(t.Context(), "maze", makeSamples(t, 0, 7, 3, 3))) // beyond the cell, too
	_, err := s.PutShard(t.Context(), "maze", task.Chunk{Keep: task.Range{Start: 2, End: 5}}, held.Epoch,
		makeSamples(t, 2, 3, 3))
	check(t, err)
	check(t, s.EndHold(t.Context(), "maze", cell, "")) // it is dead
	c, err := s.Take(t.Context(), "maze", cell, holder("b"), nothing)
	check(t, err)
	check(t, s.Clear(t.Context(), c, nil))
	check(t, s.Release(t.Context(), c, true))
	var want []string
	for i, files := range []int{1, 1, 0, 0, 0, 2, 2} {
		for n := range files {
			want = append(want, task.DefaultDataset.FileKey("maze", task.SampleID("maze", i), fmt.Sprintf("file%d.bin", n)))
		}
	}
	if got := keys(t, s, task.DataKind); !slices.Equal(got, want) {
		t.Errorf("left are %v", got)
	}
}

// What is written over does not count until it is committed again, and what nobody
// names any more is deleted.
func TestReplace(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	cell := task.Range{End: 5}
	commit(t, s, cell, 0, 1, 2, 3, 4)
	check(t, s.PutFiles(t.Context(), "maze", makeSamples(t, 0, 5, 3)))
	c := take(t, s, cell)
	check(t, s.Overwrite(t.Context(), c, []sample.Sample{{Index: 1}, {Index: 3}}))
	there, err := s.Cell(t.Context(), c.Key())
	if err != nil || !slices.Equal(there.Committed(), []int{0, 2, 4}) {
		t.Errorf("while two are written over: %v, %v", there.Committed(), err)
	}
	r := receipt(c.Epoch, 1, 3)
	r.Indices = []int{1, 3}
	for i := range r.Samples {
		r.Samples[i].Files[0].Name = "other.bin"
	}
	check(t, s.Commit(t.Context(), c, r, -1, true))
	check(t, s.Release(t.Context(), c, true))
	there, err = s.Cell(t.Context(), c.Key())
	if err != nil || len(there.Committed()) != 5 || there.Holder != nil || there.Receipts[0].Describes(1) ||
		!there.Receipts[1].Describes(1) || len(there.Replaced(0)) != 2 {
		t.Errorf("%+v, %v", there, err)
	}
	for _, key := range keys(t, s, task.DataKind) {
		if strings.Contains(key, "_00000001/") || strings.Contains(key, "_00000003/") {
			t.Errorf("left is %s", key)
		}
	}
}

// The answer to a conditional put may be lost after the object was written. The
// SDK then sends it again and is told that it exists, or has another ETag: that is our
// own.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(r *http.Response) (*http.Response, error){
		"reset": func(r *http.Response) (*http.Response, error) {
			_ = r.Body.Close()
			return nil, io.ErrUnexpectedEOF
		},
		"internal error": func(r *http.Response) (*http.Response, error) {
			_ = r.Body.Close()
			return &http.Response{StatusCode: 500, Body: io.NopCloser(strings.NewReader("")), Header: http.Header{},
				Request: r.Request}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, n := newStore(t)
			var lost atomic.Int32
			n.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
				response, err := send()
				if err == nil && r.Method == http.MethodPut && lost.Add(1)%2 == 1 {
					return answer(response)
				}
				return response, err
			})
			c := take(t, s, task.Range{End: 5})
			if c.Epoch != 1 {
				t.Errorf("epoch %d", c.Epoch)
			}
			check(t, s.Commit(t.Context(), c, receipt(1, 0, 1), -1, false))
			check(t, s.Commit(t.Context(), c, receipt(1, 2), -1, true))
			if lost.Load() != 6 {
				t.Errorf("%d puts", lost.Load())
			}
			if there, err := s.Cell(t.Context(), c.Key()); err != nil || len(there.Receipts) != 2 || there.Holder != nil {
				t.Errorf("%+v, %v", there, err)
			}
		})
	}
}

// Cells of a range are listed just so, and the listing tells what is committed.
func TestCellNames(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // repeatable
	state := map[task.Range]store.State{}
	for i := range 30 {
		cell := task.Range{Start: 5 * random.IntN(400)}
		cell.End = cell.Start + 5
		if _, there := state[cell]; there {
			continue
		}
		switch state[cell] = store.State(i % 3); state[cell] {
		case store.Complete:
			commit(t, s, cell, task.Chunk{Keep: cell}.Kept()...)
		case store.Empty:
			take(t, s, cell)
		case store.Partial:
			commit(t, s, cell, cell.Start+random.IntN(5))
		}
	}
	check(t, s.Commit(t.Context(), take(t, s.In("maze-2"), task.Range{End: 5}), receipt(1, 0), -1, true))
	for range 50 {
		from := random.IntN(2000)
		whole := task.Range{Start: from, End: from + random.IntN(200)}
		want := map[task.Range]store.State{}
		for cell, state := range state {
			if cell.Overlaps(whole) {
				want[cell] = state
			}
		}
		got := map[task.Range]store.State{}
		names, err := s.CellNames(t.Context(), "maze", whole)
		check(t, err)
		for _, name := range names {
			got[name.Range] = name.State
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%v: %v, want %v", whole, got, want)
		}
	}
}

// An object without a byte in the place of a cell, as a lost write leaves it, is no
// complete cell; who knows that a holder is dead is not stopped by a damaged one.
func TestEmptyObjectIsNoCell(t *testing.T) {
	t.Parallel()
	s, n := newStore(t)
	cell := task.Range{End: 5}
	commit(t, s, cell, 0, 1, 2, 3, 4)
	_, err := n.client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"),
		Key: aws.String(task.DefaultDataset.CellKey("maze", cell)), Body: strings.NewReader("")})
	check(t, err)
	names, err := s.CellNames(t.Context(), "maze", cell)
	check(t, err)
	if len(names) != 1 || names[0].State != store.Empty {
		t.Errorf("%+v", names)
	}
	check(t, s.EndHold(t.Context(), "maze", cell, ""))
	if _, err := s.Take(t.Context(), "maze", cell, holder("r"), all); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("taken: %v", err)
	}
}

// A sample that was being written over when its repair was killed counts no more until
// it is made; to restore an older receipt of it does not make it count.
func TestVoidOutlivesRestoration(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	cell := task.Range{End: 5}
	commit(t, s, cell, 0, 1, 2, 3, 4)
	repair := func(attempt int) store.Receipt {
		r := receipt(0, 3)
		r.Indices, r.FirstAttempt = []int{3}, attempt
		return r
	}
	c := take(t, s, cell)
	r := repair(1)
	r.Epoch = c.Epoch
	check(t, s.Commit(t.Context(), c, r, -1, true))
	c = take(t, s, cell)
	check(t, s.Overwrite(t.Context(), c, []sample.Sample{{Index: 3}})) // and it is killed
	check(t, s.EndHold(t.Context(), "maze", cell, ""))
	c = take(t, s, cell)
	again := receipt(c.Epoch, 0, 1, 2, 3, 4)
	if place := c.Restorable(task.Task{Restore: 1}, task.Chunk{Keep: cell}); place != 0 {
		t.Fatalf("to be restored: %d", place)
	}
	check(t, s.Commit(t.Context(), c, again, 0, true))
	there, err := s.Cell(t.Context(), c.Key())
	check(t, err)
	if got := there.Committed(); !slices.Equal(got, []int{0, 1, 2, 4}) {
		t.Errorf("committed: %v", got)
	}
	// Its next delivery makes it, and another receipt of the same range is told from the first.
	if there.Repaired(task.Task{RunID: "r9"}, task.Chunk{Indices: []int{3}, Attempt: 2}) {
		t.Error("the repair that was killed is taken for done")
	}
}
