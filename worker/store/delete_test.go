package store_test

import (
	"slices"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Several that delete the same objects at once all have them gone.
func TestDeleteAtOnce(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	check(t, s.PutFiles(t.Context(), "maze", makeSamples(t, 0, 40, 10)))
	there := keys(t, s, task.DataKind)
	if len(there) != 40 {
		t.Fatalf("%d objects", len(there))
	}
	var list []string
	for _, key := range there {
		list = append(list, slices.Repeat([]string{key}, 8)...)
	}
	check(t, s.Delete(t.Context(), list))
	if left := keys(t, s, task.DataKind); len(left) > 0 {
		t.Errorf("%d are left", len(left))
	}
}
