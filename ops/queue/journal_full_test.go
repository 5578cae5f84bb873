package queue

import (
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// full lets no file grow beyond a size while something is done, as a disk does that
// is full.
func full(t *testing.T, size int64, do func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE,
		&syscall.Rlimit{Cur: uint64(size), Max: math.MaxUint64}); err != nil {
		t.Fatal(err)
	}
	do()
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
}

// A full disk costs a journal nothing that is in it: neither when it is made
// shorter, nor by half a line.
func TestJournalOnFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "replay.journal")
	var text strings.Builder
	line := func(id string, at time.Time) {
		fmt.Fprintf(&text, `{"time":%q,"id":%q,"first":"f","body":"a body"}`+"\n", at.UTC().Format(time.RFC3339), id)
	}
	line("old", time.Now().Add(-2*journalKeeps))
	const entries = 100
	for i := range entries {
		line(fmt.Sprint("m", i), time.Now())
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	open := func() *Journal {
		j, err := OpenJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	full(t, 1000, func() {
		if j, err := OpenJournal(path); err == nil {
			_ = j.Close()
		}
	})
	j := open()
	if len(j.entries) != entries {
		t.Errorf("%d entries are left of %d", len(j.entries), entries)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() >= int64(text.Len()) {
		t.Error("what is too old was not dropped when there was room again")
	}
	if _, err := OpenJournal(path); err == nil {
		t.Error("two have the journal open")
	}
	full(t, info.Size()+10, func() {
		if err := j.Confirm("m1"); err == nil {
			t.Error("a full disk took a line")
		}
	})
	if err := j.Confirm("m2"); err != nil {
		t.Fatal(err)
	}
	_ = j.Close()
	j = open()
	defer j.Close()
	if j.IsSent("m1") || !j.IsSent("m2") {
		t.Errorf("m1 is sent: %v, m2: %v", j.IsSent("m1"), j.IsSent("m2"))
	}
}
