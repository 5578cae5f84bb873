package worker

import (
	"cmp"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// deadPart is a part of a task that goes to the DLQ, and why.
type deadPart struct {
	task   task.Task
	failed Failed
}

// deadParts cuts out of a task what failed. Neighbouring chunks that failed for
// the same cause stay together, with the words of the first.
func deadParts(t task.Task, failures []Failed) []deadPart {
	failures = slices.Clone(failures)
	slices.SortStableFunc(failures, func(a, b Failed) int { return cmp.Compare(a.Range.Start, b.Range.Start) })
	var list []deadPart
	for len(failures) > 0 {
		n := 1
		for n < len(failures) && failures[n].Cause == failures[0].Cause &&
			failures[n].Range.Start == failures[n-1].Range.End {
			n++
		}
		whole := task.Range{Start: failures[0].Range.Start, End: failures[n-1].Range.End}
		list = append(list, deadPart{parts(t, []task.Range{whole})[0], failures[0]})
		failures = failures[n:]
	}
	return list
}

// parts are the tasks for ranges of a task; those that touch become one.
func parts(t task.Task, ranges []task.Range) []task.Task {
	ranges = slices.Clone(ranges)
	slices.SortFunc(ranges, func(a, b task.Range) int { return cmp.Compare(a.Start, b.Start) })
	var list []task.Task
	for len(ranges) > 0 {
		whole, n := ranges[0], 1
		for n < len(ranges) && ranges[n].Start == whole.End {
			whole.End = ranges[n].End
			n++
		}
		list = append(list, t.Part(whole))
		ranges = ranges[n:]
	}
	return list
}
