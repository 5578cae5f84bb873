package worker_test

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A shard that is replaced bit by bit, by chunks on a finer grid, is there as long
// as a receipt needs it, and no longer.
func TestShardStaysWhileItIsNeeded(t *testing.T) {
	b := newBench(t, 2, worker.Limits{}, map[string]string{"g": ""})
	do := func(x task.Task) {
		t.Helper()
		x.Generator, x.Format = "g", task.Tar
		ctx, cancel := invocation(t.Context(), fmt.Sprint(x.RunID, x.StartIndex))
		defer cancel()
		if _, err := b.Handle(ctx, json.RawMessage(x.Body())); err != nil {
			t.Fatal(err)
		}
	}
	// shards are the objects, each of which must be whole if a receipt names it.
	shards := func() (keys []string) {
		t.Helper()
		for o, err := range b.store.List(t.Context(), task.DataPrefix+"g/", "") {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, o.Key)
		}
		seen := map[int]bool{}
		for _, r := range b.receipts("g") {
			if !slices.Contains(keys, r.Shard.Key) {
				t.Fatalf("%s names %s, there are %v", r.Key(), r.Shard.Key, keys)
			}
			body, _, err := b.store.Get(t.Context(), r.Shard.Key)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, body)
			body.Close()
			if err != nil || n != r.Shard.Size {
				t.Errorf("%s has %d bytes, %v", r.Shard.Key, n, err)
			}
			for _, s := range r.Samples {
				if seen[s.Index] {
					t.Errorf("index %d is committed twice", s.Index)
				}
				seen[s.Index] = true
			}
		}
		if len(seen) != 12 {
			t.Errorf("%d samples are committed", len(seen))
		}
		return keys
	}
	do(task.Task{NumSamples: 12, Seed: 1, RunID: "r1", ChunkSize: 12})
	whole := shards()
	if len(whole) != 1 {
		t.Fatalf("stored %v", whole)
	}
	for _, start := range []int{3, 0, 9} {
		do(task.Task{StartIndex: start, NumSamples: 3, Seed: 2, RunID: "r2", ChunkSize: 3, Overwrite: true})
		if got := shards(); !slices.Contains(got, whole[0]) {
			t.Fatalf("after %d: %v", start, got)
		}
	}
	do(task.Task{NumSamples: 12, Seed: 2, RunID: "r2", ChunkSize: 3, Overwrite: true})
	if got := shards(); len(got) != 4 || slices.Contains(got, whole[0]) {
		t.Errorf("at the end: %v", got)
	}
}
