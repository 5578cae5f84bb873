package worker

import (
	"fmt"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// todo is a part of a chunk that has to be made.
type todo struct {
	chunk    task.Chunk
	restores *store.Receipt  // its bytes are made again, in its place
	above    []store.Receipt // what they hold of the chunk stays as it is
}

// taken returns the indices of the chunk that are not to be written.
func (x todo) taken() map[int]bool {
	taken := map[int]bool{}
	for _, r := range x.above {
		for _, s := range r.Samples {
			taken[s.Index] = true
		}
	}
	return taken
}

// order is the claim number that the receipt gets, for a claim that was taken:
// below everything that stays as it is.
func (x todo) order(claim int) int {
	if x.restores != nil {
		return x.restores.Claim
	}
	for _, r := range x.above {
		claim = min(claim, r.Claim-1)
	}
	return claim
}

// cell is what is left to make of one cell of the grid: what one claim is for.
type cell []todo

// undone returns what is left to make of a chunk, given the receipts that
// overlap it: usually the whole chunk or nothing, but where a range was
// committed in other cuts, or in parts of chunks, it may be several parts.
//
// A receipt settles its range: the dataset has one grid. Only a task of no run, with
// a seed of its own, is refused where something is committed with another. A repair
// settles no range, because others count on a receipt for it, but what makes one
// leaves the repaired samples alone.
func undone(t task.Task, c task.Chunk, stored []store.Receipt) (cell, error) {
	if t.Restore > 0 {
		for i, r := range stored {
			if r.Key() == t.Dataset.ReceiptKey(t.Generator, c) {
				return restored(t, c, stored, i), nil
			}
		}
	}
	if c.Indices != nil {
		for _, r := range stored {
			// A later run has looked at these samples again: what it made stays.
			if r.Key() == t.Dataset.ReceiptKey(t.Generator, c) || t.RunID != "" && r.Indices != nil && r.RunID > t.RunID && holds(r, c.Indices) {
				return nil, nil
			}
		}
		return cell{{chunk: c}}, nil
	}
	var settled []task.Range
	var repairs []store.Receipt
	for _, r := range stored {
		switch {
		case !r.Range().Overlaps(c.Keep):
		case r.Indices != nil:
			repairs = append(repairs, r)
		case t.RunID == "" && r.RunSeed != t.Seed:
			return nil, fmt.Errorf("samples %s are committed with seed %d, this task has seed %d", r.Range(), r.RunSeed, t.Seed)
		default:
			settled = append(settled, r.Range())
		}
	}
	slices.SortFunc(settled, func(a, b task.Range) int { return a.Start - b.Start })
	var parts cell
	at := c.Keep.Start
	for _, s := range append(settled, task.Range{Start: c.Keep.End, End: c.Keep.End}) {
		if gap := (task.Range{Start: at, End: min(s.Start, c.Keep.End)}); gap.Len() > 0 {
			part := todo{chunk: c}
			part.chunk.Keep = gap
			for _, r := range repairs {
				if holds(r, part.chunk.Kept()) {
					part.above = append(part.above, r)
				}
			}
			parts = append(parts, part)
		}
		at = max(at, s.End)
	}
	return parts, nil
}

// restored is what is left to make when a task restores one of the stored
// receipts: nothing when its run has done so, or the receipt is another by now.
func restored(t task.Task, c task.Chunk, stored []store.Receipt, place int) cell {
	r := stored[place]
	if r.RunID == t.RunID || r.Claim != t.Restore {
		return nil
	}
	x := todo{chunk: c, restores: &r}
	for _, other := range stored {
		if other.Claim > r.Claim && holds(other, c.Kept()) {
			x.above = append(x.above, other)
		}
	}
	return cell{x}
}

// holds reports whether a receipt describes one of the indices, which are sorted.
func holds(r store.Receipt, indices []int) bool {
	return slices.ContainsFunc(r.Samples, func(s store.ReceiptSample) bool {
		_, found := slices.BinarySearch(indices, s.Index)
		return found
	})
}
