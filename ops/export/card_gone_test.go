package export_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// finishing does something when all parts are written.
type finishing struct {
	export.Format
	do func()
}

func (f finishing) Finish(ctx context.Context, p *export.Plan, out *export.Output) error {
	f.do()
	return f.Format.Finish(ctx, p, out)
}

// A dataset that is deleted before its card is written fails the export.
func TestCardGone(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze)
	_, err := exported(t.Context(), t,
		export.Export{Store: b.store.In("v1"), Format: finishing{export.Webdataset(), func() {
			check(t, os.RemoveAll(filepath.Join(b.Folder, "receipts")))
		}}}, t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "were changed") {
		t.Errorf("it ends with %v", err)
	}
}
