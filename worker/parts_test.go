package worker_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// ranges are the ranges of receipts, and which of them were made in parts.
func ranges(list []store.Receipt) (all []task.Range, parts []int) {
	for _, r := range list {
		all, parts = append(all, r.Range()), append(parts, r.PartSize)
	}
	return all, parts
}

// A chunk that takes too long for one process is made in parts beside chunks
// that were not. Both belong to the same grid: neither is a conflict for the
// other, also where part of the cell is committed already.
func TestPartsBesideWholeChunks(t *testing.T) {
	t.Parallel()
	b := newBench(t, worker.Config{CPUs: 2}, map[string]string{"g": ""})
	whole := task.Task{Generator: "g", NumSamples: 6, Seed: 1, ChunkSize: 6}
	if _, err := b.do(whole, time.Minute); err != nil {
		t.Fatal(err)
	}
	middle := whole // a hand-written one, that keeps some of a cell
	middle.StartIndex, middle.NumSamples = 8, 1
	if _, err := b.do(middle, time.Minute); err != nil {
		t.Fatal(err)
	}
	replay := whole
	replay.NumSamples, replay.PartSize, replay.Attempt = 12, 2, 3
	s, err := b.do(replay, time.Minute)
	if err != nil || s.Samples != 5 || s.Skipped != 7 {
		t.Fatalf("%+v, %v", s, err)
	}
	list := b.receipts("g")
	got, parts := ranges(list)
	if want := []task.Range{{Start: 0, End: 6}, {Start: 6, End: 8}, {Start: 8, End: 9}, {Start: 9, End: 10},
		{Start: 10, End: 12}}; !slices.Equal(got, want) || !slices.Equal(parts, []int{0, 2, 0, 2, 2}) {
		t.Fatalf("committed %v in parts of %v", got, parts)
	}
	// A part has the seed of a run with that chunk size, and says how it was made.
	fine := replay
	fine.ChunkSize, fine.PartSize = 2, 0
	for _, r := range list {
		if r.PartSize == 0 {
			continue
		}
		number := r.Start / 2
		if r.Seed != task.Seed("g", 1, 2, number, 3) || r.ChunkStart != number*2 || r.ChunkSize != 6 || r.Made() != 2 ||
			!slices.Contains(r.Command, "2") || len(r.Samples) != r.Range().Len() {
			t.Errorf("receipt %s: %+v", r.Range(), r)
		}
	}
	// However it comes again, in parts or whole, all is done. Another grid is none
	// of ours, whatever its parts.
	replay.Attempt = 6
	for _, again := range []task.Task{replay, {Generator: "g", NumSamples: 12, Seed: 1, ChunkSize: 6},
		{Generator: "g", NumSamples: 12, Seed: 1, ChunkSize: 6, PartSize: 3}} {
		if s, err := b.do(again, time.Minute); err != nil || s.Samples != 0 || s.Skipped != 12 {
			t.Errorf("%+v: %+v, %v", again, s, err)
		}
	}
	for _, other := range []task.Task{fine, {Generator: "g", NumSamples: 12, Seed: 1, ChunkSize: 4, PartSize: 2}} {
		other.Format = task.Files
		if _, err := b.do(other, time.Minute); err == nil || !strings.Contains(err.Error(), "conflict") {
			t.Errorf("%+v: %v", other, err)
		}
	}
}

// What a part could not do for lack of time is the rest of the task, and each part
// has its own receipt.
func TestPartsOneByOne(t *testing.T) {
	t.Parallel()
	b := newBench(t, worker.Config{CPUs: 1}, map[string]string{"g": "", "slow": "time.sleep(2)"})
	x := task.Task{Generator: "slow", NumSamples: 8, Seed: 1, ChunkSize: 8, PartSize: 2}
	s, err := b.do(x, 8*time.Second) // 2 s of it are kept back
	if err != nil || s.Samples == 0 || s.Samples == 8 || len(s.Remaining) != 1 ||
		s.Remaining[0] != (task.Range{Start: s.Samples, End: 8}) {
		t.Errorf("%+v, %v", s, err)
	}

	next := task.Task{Generator: "g", NumSamples: 8, Seed: task.DefaultSeed, ChunkSize: 8, RunID: "r1", PartSize: 4}
	if s, err := b.do(next, time.Minute); err != nil || s.Samples != 8 {
		t.Fatalf("%+v, %v", s, err)
	}
	if got, parts := ranges(b.receipts("g")); len(got) != 2 || !slices.Equal(parts, []int{4, 4}) {
		t.Errorf("committed %v in parts of %v", got, parts)
	}
	// One worker at a time has the cell, also if the other does not know of parts.
	cell, err := b.store.Take(t.Context(), "g", task.Range{Start: 8, End: 16},
		store.Holder{RequestID: "other", Deadline: time.Now().Add(time.Hour)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	next.StartIndex = 8
	if _, err := b.do(next, 5*time.Second); err == nil || !strings.Contains(err.Error(), "another worker") {
		t.Errorf("in epoch %d: %v", cell.Epoch, err)
	}
}

// A damaged part is made again as it was, and no more than it.
func TestPartsRestored(t *testing.T) {
	t.Parallel()
	b := newBench(t, worker.Config{CPUs: 2}, map[string]string{"g": ""})
	x := task.Task{Generator: "g", NumSamples: 4, Seed: 1, ChunkSize: 4, PartSize: 2}
	if _, err := b.do(x, time.Minute); err != nil {
		t.Fatal(err)
	}
	before := b.receipts("g")
	damaged := before[1]
	if err := b.store.Delete(t.Context(), damaged.Objects()[:1]); err != nil {
		t.Fatal(err)
	}
	restore := x.Part(damaged.Range())
	restore.RunID, restore.Restore = "r2", damaged.Epoch
	if s, err := b.do(restore, time.Minute); err != nil || s.Samples != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	after := b.receipts("g")
	if len(after) != 2 || after[1].RunID != "r2" || after[0].RunID != "" ||
		!reflect.DeepEqual(after[1].Samples, damaged.Samples) {
		t.Errorf("restored as %+v, was %+v", after, damaged)
	}
	for _, key := range damaged.Objects() {
		if _, err := b.store.Read(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
}
