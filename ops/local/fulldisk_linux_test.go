package local

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A full disk is a failure with that cause, and passes when there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	mount(t, filepath.Join(dir, "scratch"), "24m")
	r := up(t, dir, Config{Workers: 1})
	r.sendTask(task.Task{Generator: "full", NumSamples: 5, Seed: 1})
	r.sendTask(task.Task{Generator: "good", NumSamples: 5, Seed: 1})
	eventually(t, "it is reported", func() bool { return len(r.failures("full")) > 0 })
	if f := r.failures("full")[0]; f.Cause != task.DiskFull {
		t.Errorf("reported %s: %s", f.Cause, f.Detail)
	}
	eventually(t, "the other one is committed", func() bool { return len(r.receipts("good")) == 1 })
	r.holds("good", task.Range{Start: 0, End: 5})
	r.holds("full", task.Range{})
}

// A full bucket loses nothing: the task comes again, and is done when there is
// room.
func TestFullBucket(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	mount(t, objectsDir(dir), "2m")
	r := up(t, dir, Config{Workers: 1})
	ballast := filepath.Join(objectsDir(dir), "ballast")
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	r.sendTask(task.Task{Generator: "good", NumSamples: 5, Seed: 1})
	log := filepath.Join(dir, "logs", "worker-0.log")
	eventually(t, "the failure is logged", func() bool {
		text, _ := os.ReadFile(log)
		return bytes.Contains(text, []byte(`"cause":"`+string(task.Storage)+`"`))
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	r.idle()
	r.holds("good", task.Range{Start: 0, End: 5})
}

func mount(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs the right to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
