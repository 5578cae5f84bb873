package main

import (
	"math"
	"os/signal"
	"syscall"
	"testing"
)

// A full disk takes half of a line: the next one must not become another number,
// that of a task which was never sent.
func TestSubmitJournalOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir, "dev", "r1")
	must(t, err)
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before))
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1, Max: math.MaxUint64}))
	if err := j.add(17); err == nil {
		t.Error("a full disk took a line")
	}
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before))
	must(t, j.add(25))
	j.close()
	j, err = openJournal(dir, "dev", "r1")
	must(t, err)
	defer j.close()
	if len(j.sent) != 1 || !j.sent[25] {
		t.Errorf("sent: %v", j.sent)
	}
}
