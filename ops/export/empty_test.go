package export_test

import (
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Files without a byte, such as the list of a split that has no rows, are in a bucket, too.
func TestEmptySplitInBucket(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze)
	to := export.OpenPrefix(store.New(b.Client(nil), "bucket"), "exports")
	e := export.Export{Store: b.store, Format: export.Manifest(), To: to, Say: t.Logf, Progress: func(export.Progress) {},
		Options: export.Options{Split: "train=0.999999,test=0.000001"}}
	s, err := e.Run(t.Context())
	check(t, err)
	r, err := export.Verify(t.Context(), to, func(export.Progress) {})
	if err != nil || r.Wrong != 0 || r.Files != s.Files || s.Splits["test"] != 0 {
		t.Errorf("%+v, %v of %+v", r, err, s)
	}
}
