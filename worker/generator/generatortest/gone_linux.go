package generatortest

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// Gone waits until a process has ended, which is a matter of milliseconds after it was killed.
func Gone(t *testing.T, pid int) {
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
