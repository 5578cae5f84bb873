package monitor

import (
	"context"
	"errors"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// repaired keeps the ETags of cells in which a run has repairs, and "" for those that
// were seen done.
type repaired map[string]string

// left counts the samples of a run's repairs that are not committed yet, given the
// cells that are there. Those that have changed are read.
func (d repaired) left(ctx context.Context, st *store.Store, repairs []task.Task, names []store.CellName) (int, error) {
	type repair struct {
		task  task.Task
		chunk task.Chunk
	}
	open := map[string][]repair{} // by the key of the cell
	left := 0
	for _, t := range repairs {
		for _, c := range t.Chunks() {
			key := st.Dataset().CellKey(t.Generator, c.Cell)
			if tag, known := d[key]; !known || tag != "" {
				open[key] = append(open[key], repair{t, c})
				left += len(c.Kept())
			}
		}
	}
	names = slices.DeleteFunc(slices.Clone(names), func(n store.CellName) bool {
		return open[n.Key] == nil || len(open[n.Key]) == 1 && d[n.Key] == n.ETag
	})
	for cell, err := range st.Cells(ctx, names) {
		if errors.Is(err, store.ErrDamaged) {
			continue // verify reports it
		}
		if err != nil {
			return 0, err
		}
		done := 0
		for _, r := range open[cell.Key()] {
			if r.task.Restore > 0 && cell.Restorable(r.task, r.chunk) < 0 ||
				r.task.Restore == 0 && cell.Repaired(r.task, r.chunk) {
				done++
				left -= len(r.chunk.Kept())
			}
		}
		if d[cell.Key()] = cell.ETag(); done == len(open[cell.Key()]) {
			d[cell.Key()] = ""
		}
	}
	return left, nil
}

// seen reports whether all of a repair was seen done.
func (d repaired) seen(in task.Dataset, t task.Task) bool {
	return !slices.ContainsFunc(t.Chunks(), func(c task.Chunk) bool {
		tag, known := d[in.CellKey(t.Generator, c.Cell)]
		return !known || tag != ""
	})
}
