package worker

import (
	"fmt"
	"slices"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// What is left to make of the cell of samples 0 to 9, given its receipts.
func TestRemaining(t *testing.T) {
	holding := func(r store.Receipt, indices ...int) store.Receipt {
		r.Generator, r.ChunkSize, r.Start, r.End = "g", 10, indices[0], indices[len(indices)-1]+1
		for _, i := range indices {
			r.Samples = append(r.Samples, store.ReceiptSample{Index: i})
		}
		return r
	}
	chunk := func(epoch int, run string, seed, start, end int) store.Receipt {
		return holding(store.Receipt{Epoch: epoch, RunID: run, RunSeed: seed},
			task.Chunk{Keep: task.Range{Start: start, End: end}}.Kept()...)
	}
	repair := func(epoch int, run string, attempt int, indices ...int) store.Receipt {
		return holding(store.Receipt{Epoch: epoch, RunID: run, RunSeed: 7, Indices: indices, Attempt: attempt,
			FirstAttempt: attempt}, indices...)
	}
	all := chunk(1, "r1", 7, 0, 10)
	ordinary := task.Task{Generator: "g", NumSamples: 10, Seed: 7, ChunkSize: 10, RunID: "r5"}
	bare, restoring, parts := ordinary, ordinary, ordinary
	bare.RunID, restoring.Restore, parts.PartSize = "", 1, 5
	repairing := task.Task{Generator: "g", Indices: []int{2, 4, 12}, Seed: 7, ChunkSize: 10, RunID: "r5", Attempt: 1000}
	restoringRepair := repairing
	restoringRepair.Restore = 3
	for _, test := range []struct {
		name   string
		task   task.Task
		stored []store.Receipt
		void   []int
		want   string // indices, and the place of the receipt that is made again; processes by semicolon
	}{
		{"nothing", ordinary, nil, nil, "[0 1 2 3 4 5 6 7 8 9]"},
		{"nothing, in parts", parts, nil, nil, "[0 1 2 3 4]; [5 6 7 8 9]"},
		{"done", ordinary, []store.Receipt{all}, nil, ""},
		{"done in part", ordinary, []store.Receipt{chunk(1, "r1", 7, 3, 9)}, nil, "[0 1 2 9]"},
		{"a part done", parts, []store.Receipt{chunk(1, "r1", 7, 3, 10)}, nil, "[0 1 2]"},
		{"being written over when its maker was killed", ordinary, []store.Receipt{all}, []int{4, 5}, "[4 5]"},
		{"done with another seed, of a message with its own", ordinary, []store.Receipt{chunk(1, "", 8, 0, 10)}, nil, ""},
		{"a conflict of a message with its own", bare, []store.Receipt{chunk(1, "r1", 8, 0, 10)}, nil,
			"samples 00000000_00000009 are committed with seed 8, this task has seed 7"},
		{"a repair before", ordinary, []store.Receipt{repair(4, "r1", 1000, 2, 4)}, nil, "[0 1 3 5 6 7 8 9]"},

		{"repairs what is in the cell", repairing, []store.Receipt{all}, nil, "[2 4]"},
		{"repairs again", repairing, []store.Receipt{all, repair(4, "r3", 900, 4, 8)}, nil, "[2 4]"},
		{"has repaired", repairing, []store.Receipt{all, repair(4, "r5", 1000, 2, 4)}, nil, ""},
		{"repairs nothing that a later run has", repairing, []store.Receipt{all, repair(4, "r6", 2000, 4, 8)}, nil, ""},
		{"repairs beside a later run", repairing, []store.Receipt{all, repair(4, "r6", 2000, 3, 8)}, nil, "[2 4]"},

		{"restores", restoring, []store.Receipt{all}, nil, "[0 1 2 3 4 5 6 7 8 9] at 0"},
		{"restores what has a repair", restoring, []store.Receipt{all, repair(4, "r2", 1000, 2, 4)}, nil,
			"[0 1 2 3 4 5 6 7 8 9] at 0"},
		{"goes on to restore", restoring, []store.Receipt{all}, []int{0, 1}, "[0 1 2 3 4 5 6 7 8 9] at 0"},
		{"has restored", restoring, []store.Receipt{chunk(2, "r5", 7, 0, 10)}, nil, ""},
		{"restores nothing that was replaced", restoringRepair, []store.Receipt{all, repair(3, "r3", 1000, 2, 4),
			repair(4, "r4", 2000, 2, 3, 4)}, nil, ""},
		{"restores nothing that is gone", restoring, nil, nil, ""},
		{"restores a repair", restoringRepair, []store.Receipt{all, repair(3, "r3", 1000, 2, 4)}, nil, "[2 4] at 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text, err := (&store.Cell{End: 10, Receipts: test.stored, Void: test.void}).Encode()
			if err != nil {
				t.Fatal(err)
			}
			cell, err := store.ParseCell("k", text)
			if err != nil {
				t.Fatal(err)
			}
			list, err := remaining(test.task, test.task.Chunks()[0], cell)
			got := ""
			for n, x := range list {
				if n > 0 {
					got += "; "
				}
				got += fmt.Sprint(x.keep)
				if x.place >= 0 {
					got += fmt.Sprint(" at ", x.place)
				}
				if !slices.IsSorted(x.keep) {
					t.Errorf("not sorted: %v", x.keep)
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
