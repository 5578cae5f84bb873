package store_test

import (
	"errors"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Many change a run at once, and answers get lost: every change is there once.
func TestChangeRun(t *testing.T) {
	t.Parallel()
	st, network := newStore(t)
	if err := st.ChangeRun(t.Context(), "r", func(*task.Run) bool { return true }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a run that is not there: %v", err)
	}
	check(t, st.PutRun(t.Context(), task.Run{ID: "r", Samples: 7}))
	network.loseAnswers(3)
	const writers = 8
	var group errgroup.Group
	for i := range writers {
		group.Go(func() error {
			p := task.RunPart{Generator: "g", Range: task.Range{Start: i, End: i + 1}, PartSize: 1}
			return st.ChangeRun(t.Context(), "r", func(r *task.Run) bool { return r.Note(p) })
		})
	}
	check(t, group.Wait())
	run, err := st.Run(t.Context(), "r")
	check(t, err)
	seen := map[int]bool{}
	for _, p := range run.Parts {
		seen[p.Start] = true
	}
	if len(run.Parts) != writers || len(seen) != writers || run.Samples != 7 {
		t.Errorf("the run is %+v", run)
	}
}
