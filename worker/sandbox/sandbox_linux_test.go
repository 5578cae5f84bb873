package sandbox

import (
	"syscall"
	"testing"
)

// A worker that had no descriptor left for a moment starts generators again.
func TestAliveIsTriedAgain(t *testing.T) {
	read, write := alive.read, alive.write
	t.Cleanup(func() { alive.read, alive.write = read, write })
	alive.read, alive.write = nil, nil
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, refused := aliveEnd()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if refused == nil {
		t.Error("a pipe without descriptors")
	}
	if end, err := aliveEnd(); err != nil || end == nil {
		t.Errorf("then: %v, %v", end, err)
	}
}
