package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// repaired keeps which repairs of a run were seen committed, and the ETags of the cells
// of the others.
type repaired map[string]string

const isRepaired = "committed"

// left counts the samples of a run's repairs that are not committed yet, given the
// cells that are there. A task that restores is done when the receipt is the run's; a
// repair when its receipt is there. A cell is read when it has changed.
func (d repaired) left(ctx context.Context, st *store.Store, run string, repairs []task.Task,
	names []store.CellName) (int, error) {
	there := map[string]store.CellName{}
	for _, n := range names {
		there[n.Key] = n
	}
	left := 0
	for _, t := range repairs {
		for _, c := range t.Chunks() {
			id, cell := repairID(t, c), there[st.Dataset().CellKey(t.Generator, c.Cell)]
			if d[id] == isRepaired {
				continue
			}
			left += len(c.Kept())
			if cell.Key == "" || d[id] == cell.ETag {
				continue
			}
			now, err := st.Cell(ctx, cell.Key)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return 0, err
			}
			d[id] = cell.ETag
			if at := now.Find(c); at >= 0 && (t.Restore == 0 || now.Receipts[at].RunID == run) {
				d[id] = isRepaired
				left -= len(c.Kept())
			}
		}
	}
	return left, nil
}

// seen reports whether all of a repair was seen committed.
func (d repaired) seen(t task.Task) bool {
	return !slices.ContainsFunc(t.Chunks(), func(c task.Chunk) bool { return d[repairID(t, c)] != isRepaired })
}

func repairID(t task.Task, c task.Chunk) string {
	return fmt.Sprint(t.Generator, " ", c.Name(), " ", t.Restore)
}
