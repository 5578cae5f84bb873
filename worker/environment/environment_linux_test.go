package environment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

func TestInterruptedBuild(t *testing.T) {
	root, dir := bare(t, "x"), t.TempDir()
	fakeUV(t, "sleep 600 & echo child $!\nwait\n")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	child := 0
	r := recorder{seen: func(e Event) {
		if n, _ := fmt.Sscanf(e.Detail, "child %d", &child); n == 1 {
			cancel()
		}
	}}
	_, err := (&Builder{Root: root, Dir: dir, Events: r.record}).Build(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if child == 0 {
		t.Fatalf("events %+v", r.events)
	}
	gone(t, child)
	if _, err := os.Stat(filepath.Join(dir, generator.IndexFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an interrupted build wrote an index: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "environments", "*", "*")); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

// gone waits until a process has ended, which is a matter of milliseconds after
// it was killed.
func gone(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
	if n != 1 {
		t.Errorf("process %d lives: %v", pid, err)
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}
