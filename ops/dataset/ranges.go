package dataset

import (
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Gaps returns the parts of a range that no other range covers, in order.
func Gaps(whole task.Range, covered []task.Range) []task.Range {
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

// Length is the number of indices in ranges that do not overlap.
func Length(ranges []task.Range) int {
	n := 0
	for _, r := range ranges {
		n += r.Len()
	}
	return n
}
