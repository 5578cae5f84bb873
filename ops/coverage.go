package main

import (
	"context"
	"errors"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// gaps returns the parts of a range that no other range covers, in order.
func gaps(whole task.Range, covered []task.Range) []task.Range {
	sorted := slices.SortedFunc(slices.Values(covered), func(a, b task.Range) int { return a.Start - b.Start })
	var missing []task.Range
	at := whole.Start
	for _, r := range append(sorted, task.Range{Start: whole.End, End: whole.End}) {
		if gap := (task.Range{Start: at, End: min(r.Start, whole.End)}); gap.Len() > 0 {
			missing = append(missing, gap)
		}
		at = max(at, r.End)
	}
	return missing
}

// ranges are those of receipts that are no repairs: others count on a receipt beneath
// a repair.
func ranges(names []store.ReceiptName) (list []task.Range) {
	for _, n := range names {
		if !n.Repair {
			list = append(list, n.Range)
		}
	}
	return list
}

// length is the number of indices in ranges that do not overlap.
func length(ranges []task.Range) int {
	n := 0
	for _, r := range ranges {
		n += r.Len()
	}
	return n
}

// repaired keeps which repairs of a run were seen committed.
type repaired map[string]bool

// left counts the samples of a run's repairs that are not committed yet, given the
// receipts that are there. A task that restores is done when the receipt is the
// run's; a repair when its receipt is there.
func (d repaired) left(ctx context.Context, st *store.Store, run string, repairs []task.Task, names []store.ReceiptName) (int, error) {
	there := map[string]bool{}
	for _, n := range names {
		there[n.Key] = true
	}
	left := 0
	for _, t := range repairs {
		key := st.Dataset().ReceiptKey(t.Generator, t.Chunks()[0])
		switch {
		case d[key]:
		case !there[key]:
			left += t.Count()
		case t.Restore > 0:
			r, err := st.Receipt(ctx, key)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return 0, err
			}
			if d[key] = r.RunID == run; !d[key] {
				left += t.Count()
			}
		default:
			d[key] = true
		}
	}
	return left, nil
}
