package worker

import (
	"fmt"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// todo is a part of a chunk that has to be made, and the receipts it replaces.
type todo struct {
	chunk    task.Chunk
	replaces []store.Receipt
}

// cell is what is left to make of one cell of the grid: what one claim is for.
type cell []todo

// undone returns what is left to make of a chunk, given the receipts that
// overlap it: usually the whole chunk or nothing, but where a range was
// committed in other cuts it may be several parts.
//
// A receipt of the same seed and chunk size settles its range, also where it was
// made in parts: the grid is the same. One of another
// seed or chunk size is a conflict, unless the task overwrites: then what
// earlier runs committed is replaced, and what this run or a later one
// committed settles its range.
func undone(t task.Task, c task.Chunk, stored []store.Receipt) (cell, error) {
	if c.Indices != nil {
		for _, r := range stored {
			// Its attempt is later than the task's where the first seeds failed.
			if r.RunSeed == t.Seed && r.Attempt >= t.Attempt && slices.Equal(r.Indices, c.Indices) {
				return nil, nil
			}
		}
		return cell{{chunk: c}}, nil
	}
	var settled []task.Range
	var replaced []store.Receipt
	for _, r := range stored {
		switch {
		case !r.Range().Overlaps(c.Keep) || r.Indices != nil && len(r.Part(c.Keep).Samples) == 0:
		case t.Overwrite && r.RunID < t.RunID:
			replaced = append(replaced, r)
		case r.Indices != nil: // a repair settles nothing: what it repaired does
		case t.Overwrite || r.RunSeed == t.Seed && r.ChunkSize == t.ChunkSize:
			settled = append(settled, r.Range())
		default:
			return nil, fmt.Errorf("samples %s are committed with seed %d and chunk size %d (run %s), this task has seed %d and chunk size %d",
				r.Range(), r.RunSeed, r.ChunkSize, orNone(r.RunID), t.Seed, t.ChunkSize)
		}
	}
	slices.SortFunc(settled, func(a, b task.Range) int { return a.Start - b.Start })
	var parts cell
	at := c.Keep.Start
	for _, s := range append(settled, task.Range{Start: c.Keep.End, End: c.Keep.End}) {
		if gap := (task.Range{Start: at, End: min(s.Start, c.Keep.End)}); gap.Len() > 0 {
			part := todo{chunk: c}
			part.chunk.Keep = gap
			for _, r := range replaced {
				if r.Range().Overlaps(gap) {
					part.replaces = append(part.replaces, r)
				}
			}
			parts = append(parts, part)
		}
		at = max(at, s.End)
	}
	return parts, nil
}

func orNone(id string) string {
	if id == "" {
		return "none"
	}
	return id
}
