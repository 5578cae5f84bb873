package dataset

import (
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Chunks are alike when they hold the same samples in the same order; puzzles that
// come twice do not make them so.
func TestAlike(t *testing.T) {
	for _, test := range []struct {
		name          string
		chunks        []string // a letter is a puzzle
		repairs       map[int]string
		alike, chunk  int
		mostOfThemAre bool
	}{
		{"none", nil, nil, 0, 0, false},
		{"one", []string{"abc"}, nil, 0, 1, false},
		{"distinct", []string{"abc", "def"}, nil, 0, 2, false},
		{"the same puzzles", []string{"abc", "bca", "cab"}, nil, 0, 3, false},
		{"alike", []string{"abc", "abc", "abc"}, nil, 3, 3, true},
		{"some", []string{"abc", "abc", "def", "ghi"}, nil, 2, 4, false},
		{"pairs", []string{"abc", "abc", "def", "def", "xyz"}, nil, 4, 5, true},
		{"single samples", []string{"a", "a", "a"}, nil, 0, 0, false},
		{"the last one is shorter", []string{"abc", "abc", "ab"}, nil, 2, 3, true},
		{"repaired", []string{"abc", "abc", "abc"}, map[int]string{3: "d", 4: "e", 5: "f", 6: "g", 7: "h", 8: "i"}, 0, 1,
			false},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := (&Checker{Store: store.New(nil, "bucket")}).inspect("g", task.Range{Start: 0, End: 100})
			at := 0
			for _, chunk := range test.chunks {
				r := store.Receipt{Generator: "g", Epoch: 1, Start: at, End: at + len(chunk)}
				list := []store.Receipt{}
				for _, letter := range chunk {
					r.Samples = append(r.Samples, store.ReceiptSample{Index: at, Fingerprint: string(letter)})
					if again, ok := test.repairs[at]; ok {
						list = append(list, store.Receipt{Generator: "g", Epoch: 2, Start: at, End: at + 1, Indices: []int{at},
							Samples: []store.ReceiptSample{{Index: at, Fingerprint: again}}})
					}
					at++
				}
				for _, r := range cellOf(t, r.Range(), append([]store.Receipt{r}, list...)...).Receipts {
					i.record(&r)
				}
			}
			report := i.conclude()
			if report.Alike != test.alike || report.Chunks != test.chunk || report.ChunksAlike() != test.mostOfThemAre {
				t.Errorf("%d of %d chunks are alike, want %d of %d; most of them: %t", report.Alike, report.Chunks, test.alike,
					test.chunk, report.ChunksAlike())
			}
		})
	}
}

// cellOf is a cell of the generator g with receipts.
func cellOf(t testing.TB, cell task.Range, receipts ...store.Receipt) *store.Cell {
	t.Helper()
	text, err := (&store.Cell{Version: 1, Generator: "g", Start: cell.Start, End: cell.End, Epoch: len(receipts),
		Receipts: receipts}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	c, err := store.ParseCell(task.DefaultDataset.CellKey("g", cell), text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
