package export_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A full disk is one sentence; with room again, the export goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=400k"); err != nil {
		t.Skipf("needs the right to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	b := newBucket(t)
	st := b.all(t, "v1", task.Files)
	check(t, os.WriteFile(filepath.Join(disk, "other"), make([]byte, 200<<10), 0o644))
	for _, format := range []string{"webdataset", "folder"} {
		dir := filepath.Join(disk, format)
		e := export.Export{Store: st, Format: formats[format](), Options: small}
		_, err := exported(t.Context(), t, e, dir)
		if want := fmt.Sprintf("write to %s: no space left on device", dir); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		check(t, syscall.Mount("", disk, "", syscall.MS_REMOUNT, "size=8m"))
		_, err = exported(t.Context(), t, e, dir)
		check(t, err)
		checkSums(t, dir)
		check(t, os.RemoveAll(dir))
		check(t, syscall.Mount("", disk, "", syscall.MS_REMOUNT, "size=400k"))
	}
}
