package worker

import (
	"fmt"
	"slices"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// What is left to make of the chunk of samples 0 to 9, given receipts, and where
// what is made stands among them.
func TestUndone(t *testing.T) {
	holding := func(r store.Receipt, indices ...int) store.Receipt {
		for _, i := range indices {
			r.Samples = append(r.Samples, store.ReceiptSample{Index: i})
		}
		return r
	}
	chunk := func(claim int, run string, seed, start, end int) store.Receipt {
		r := store.Receipt{Generator: "g", RunID: run, RunSeed: seed, ChunkSize: 10, Start: start, End: end, Claim: claim}
		return holding(r, task.Chunk{Keep: r.Range()}.Kept()...)
	}
	repair := func(claim int, run string, attempt int, indices ...int) store.Receipt {
		r := store.Receipt{Generator: "g", RunID: run, RunSeed: 7, ChunkSize: 10, Start: indices[0], End: indices[len(indices)-1] + 1, Indices: indices, Attempt: attempt, FirstAttempt: attempt, Claim: claim}
		return holding(r, indices...)
	}
	ordinary := task.Task{Generator: "g", NumSamples: 10, Seed: 7, ChunkSize: 10, RunID: "r5"}
	bare, restoring := ordinary, ordinary
	bare.RunID, restoring.Restore = "", 3
	repairing := task.Task{Generator: "g", Indices: []int{2, 4}, Seed: 7, ChunkSize: 10, RunID: "r5", Attempt: 1000}
	restoringRepair := repairing
	restoringRepair.Restore = 3
	for _, test := range []struct {
		name   string
		task   task.Task
		stored []store.Receipt
		want   string // range, what is left alone, order for claim 9; parts by semicolon
	}{
		{"nothing", ordinary, nil, "0-9 [] 9"},
		{"done", ordinary, []store.Receipt{chunk(1, "r1", 7, 0, 10)}, ""},
		{"done in part", ordinary, []store.Receipt{chunk(1, "r1", 7, 3, 5)}, "0-2 [] 9; 5-9 [] 9"},
		{"done with another seed, of a message with its own", ordinary, []store.Receipt{chunk(1, "", 8, 0, 10)}, ""},
		{"a conflict of a message with its own", bare, []store.Receipt{chunk(1, "r1", 8, 0, 10)}, "samples 00000000_00000009 are committed with seed 8, this task has seed 7"},
		{"beneath a repair", ordinary, []store.Receipt{repair(4, "r1", 1000, 2, 4)}, "0-9 [2 4] 3"},
		{"beneath the lowest of two", ordinary, []store.Receipt{repair(4, "r1", 1000, 2, 4), repair(6, "r2", 2000, 4, 8)}, "0-9 [2 4 8] 3"},
		{"beside a repair that spans it", ordinary, []store.Receipt{repair(4, "r1", 1000, 0, 12), repair(5, "r1", 1001, 11, 13)}, "0-9 [0] 3"},

		{"repairs", repairing, []store.Receipt{chunk(1, "r1", 7, 0, 10)}, "2-4 [] 9"},
		{"repairs again", repairing, []store.Receipt{chunk(1, "r1", 7, 0, 10), repair(4, "r3", 900, 4, 8)}, "2-4 [] 9"},
		{"has repaired", repairing, []store.Receipt{chunk(1, "r1", 7, 0, 10), repair(4, "r5", 1000, 2, 4)}, ""},
		{"repairs nothing that a later run has", repairing, []store.Receipt{chunk(1, "r1", 7, 0, 10), repair(4, "r6", 2000, 4, 8)}, ""},
		{"repairs beside a later run", repairing, []store.Receipt{chunk(1, "r1", 7, 0, 10), repair(4, "r6", 2000, 3, 8)}, "2-4 [] 9"},

		{"restores", restoring, []store.Receipt{chunk(3, "r1", 7, 0, 10)}, "0-9 [] 3 restores"},
		{"restores beneath a repair", restoring, []store.Receipt{chunk(3, "r1", 7, 0, 10), repair(4, "r2", 1000, 2, 4)}, "0-9 [2 4] 3 restores"},
		{"restores above what it replaced", restoring, []store.Receipt{chunk(1, "r0", 7, 3, 5), chunk(3, "r1", 7, 0, 10)}, "0-9 [] 3 restores"},
		{"has restored", restoring, []store.Receipt{chunk(3, "r5", 7, 0, 10)}, ""},
		{"restores nothing that was replaced", restoring, []store.Receipt{chunk(4, "r6", 7, 0, 10)}, ""},
		{"restores what is gone", restoring, nil, "0-9 [] 9"},
		{"restores a repair", restoringRepair, []store.Receipt{repair(3, "r3", 1000, 2, 4)}, "2-4 [] 3 restores"},
		{"restores a repair half of which was repaired", restoringRepair, []store.Receipt{repair(3, "r3", 1000, 2, 4), repair(4, "r4", 2000, 4, 5)}, "2-4 [4] 3 restores"},
	} {
		t.Run(test.name, func(t *testing.T) {
			parts, err := undone(test.task, test.task.Chunks()[0], test.stored)
			got := ""
			for n, x := range parts {
				if n > 0 {
					got += "; "
				}
				var left []int
				for index, taken := range x.taken() {
					if taken && slices.Contains(x.chunk.Kept(), index) {
						left = append(left, index)
					}
				}
				slices.Sort(left)
				got += fmt.Sprintf("%d-%d %v %d", x.chunk.Keep.Start, x.chunk.Keep.End-1, left, x.order(9))
				if x.restores != nil {
					got += " restores"
				}
			}
			if err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}
