package web

import (
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// However many lengths videos have, runs and commits are found.
func TestManyLengths(t *testing.T) {
	t.Parallel()
	cell := &store.Cell{Receipts: make([]store.Receipt, 1<<16+1)}
	for i := range cell.Receipts {
		r := &cell.Receipts[i]
		r.RunID, r.Commit = "early", "c"
		r.Current = []store.ReceiptSample{{Index: i, Files: []store.ReceiptFile{{Name: "ground_truth.mp4",
			SHA256: "00", Media: sample.Media{Frames: i + 1, FPS: 16}}}}}
	}
	cell.Receipts[1<<16].RunID = "late"
	list := records(cell)
	if last := list[1<<16]; last.run != "late" || last.commit != "c" {
		t.Errorf("the last sample is of run %q, commit %q", last.run, last.commit)
	}
}

// What nearly all samples have is known once all are read.
func TestHintsOfAll(t *testing.T) {
	t.Parallel()
	x := newIndex(nil)
	cell := indexedCell{}
	for i := range 20 {
		s := store.ReceiptSample{Files: []store.ReceiptFile{{Name: "prompt.txt"}, {Name: "notes.txt"}}}
		if i == 7 {
			s.Files = s.Files[:1]
		}
		cell.records = append(cell.records, record{Made: dataset.Made{Index: int32(i)}, marks: inspect.MarksOf(&s)})
	}
	x.generators["maze"] = &indexed{cells: map[int32]indexedCell{0: cell}}
	g := &geometry{generators: []extent{{Name: "maze"}}}
	for read, found := range []int{0, 0, 1} {
		hits := x.hits(&search{hint: "files", hints: inspect.Files.Set()}, &result{geometry: g, Read: read, Of: 2}, nil, nil)
		if len(hits) != found || found == 1 && hits[0].index != 7 {
			t.Errorf("%d of 2 cells are read: %+v", read, hits)
		}
	}
}
