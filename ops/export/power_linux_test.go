package export_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// mount makes the file system of an image that of a folder.
func mount(t *testing.T, image string) string {
	t.Helper()
	dir := t.TempDir()
	// The journal alone decides when names come to the disk, and the test when the journal does.
	if out, err := exec.Command("mount", "-o", "loop,commit=300", image, dir).CombinedOutput(); err != nil {
		t.Skipf("needs the right to mount an image: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// failure returns what a power failure leaves of an image: names that are in the journal, and
// of the files what was written to the disk.
func failure(t *testing.T, image, mounted string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(mounted, "journal"))
	check(t, err)
	check(t, f.Sync()) // of any file writes the journal
	check(t, f.Close())
	left := filepath.Join(t.TempDir(), "left")
	if out, err := exec.Command("cp", "--sparse=always", image, left).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return mount(t, left)
}

// powerless fails as the sums are written.
type powerless struct{ export.Destination }

var errPower = errors.New("no power")

func (p powerless) Commit(ctx context.Context, name string, write func(io.Writer) error) error {
	if name == "SHA256SUMS" {
		return errPower
	}
	return p.Destination.Commit(ctx, name, write)
}

// What was finished when the power failed is there: the parts of an export that goes on, and
// all of one that has ended.
func TestPowerFails(t *testing.T) {
	t.Parallel()
	image := filepath.Join(t.TempDir(), "image")
	check(t, os.WriteFile(image, nil, 0o644))
	check(t, os.Truncate(image, 64<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
		t.Skipf("needs mkfs.ext4: %v: %s", err, out)
	}
	disk := mount(t, image)
	b := newBucket(t)
	st := b.all(t, "v1", task.Files)
	undisturbed := t.TempDir()
	e := export.Export{Store: st, Format: export.Parquet(), Options: small, Progress: func(export.Progress) {},
		Say: t.Logf}
	_, err := exported(t.Context(), t, e, undisturbed)
	check(t, err)
	want := content(t, undisturbed)

	to, err := export.OpenFolder(filepath.Join(disk, "export"))
	check(t, err)
	defer to.Close()
	e.To = powerless{to}
	if _, err := e.Run(t.Context()); !errors.Is(err, errPower) {
		t.Fatal(err)
	}
	dir := filepath.Join(failure(t, image, disk), "export")
	s, err := exported(t.Context(), t, e, dir)
	if err != nil || s.Resumed != s.Parts {
		t.Errorf("of an export that was under way: %+v, %v", s, err)
	} else if list := differences(want, content(t, dir)); len(list) > 0 {
		t.Errorf("of an export that was under way: %v differ", list)
	}

	e.To = to
	_, err = e.Run(t.Context())
	check(t, err)
	dir = filepath.Join(failure(t, image, disk), "export")
	if list := differences(want, content(t, dir)); len(list) > 0 {
		t.Errorf("of a finished export: %v differ", list)
	}
}
