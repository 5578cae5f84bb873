package worker

import (
	"fmt"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// todo is what one generator process has to make.
type todo struct {
	chunk task.Chunk
	keep  []int // indices of its samples that are stored
	place int   // of the receipt that is made again, or -1
}

// undone returns what is left to make of a chunk: what of it is not committed, or for a
// repair all of it unless it was made, or for a task that restores a receipt what that
// one holds.
//
// A task of no run may have a seed of its own. It is refused where something is
// committed with another.
func undone(t task.Task, c task.Chunk, cell *store.Cell) ([]todo, error) {
	keep := c.Kept()
	place := -1
	switch {
	case t.Restore > 0:
		if place = cell.Restorable(t, c); place < 0 {
			return nil, nil
		}
		keep = nil
		for _, s := range cell.Receipts[place].Samples {
			keep = append(keep, s.Index)
		}
	case c.Indices != nil:
		if cell.Repaired(t, c) {
			return nil, nil
		}
	default:
		for _, r := range cell.Receipts {
			if t.RunID == "" && r.RunSeed != t.Seed && slices.ContainsFunc(keep, r.Describes) {
				return nil, fmt.Errorf("samples %s are committed with seed %d, this task has seed %d", r.Range(), r.RunSeed, t.Seed)
			}
		}
		keep = slices.DeleteFunc(keep, cell.Has)
	}
	var list []todo
	for _, part := range t.Parts(c) {
		x := todo{chunk: part, place: place}
		for _, index := range keep {
			if part.Keep.Start <= index && index < part.Keep.End {
				x.keep = append(x.keep, index)
			}
		}
		if len(x.keep) > 0 {
			list = append(list, x)
		}
	}
	return list, nil
}
