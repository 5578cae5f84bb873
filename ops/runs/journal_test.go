package runs

import (
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// TestJournal cuts a journal off anywhere, as a full disk or a dead machine
// does, goes on writing, and reads: it may have forgotten, but it must not name
// a task that was never sent.
func TestJournal(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "submits", "dev", "r1.journal")
		written := map[int]bool{}
		for range rapid.IntRange(1, 4).Draw(rt, "sessions") {
			j, err := openJournal(dir, "dev", "r1")
			if err != nil {
				rt.Fatal(err)
			}
			for place := range j.sent {
				if !written[place] {
					rt.Fatalf("task %d is in the journal and was never sent", place)
				}
			}
			for _, place := range rapid.SliceOfN(rapid.IntRange(0, 9999), 0, 5).Draw(rt, "places") {
				if err := j.add(place); err != nil {
					rt.Fatal(err)
				}
				written[place] = true
			}
			j.closeFile()
			info, err := os.Stat(path)
			if err != nil {
				rt.Fatal(err)
			}
			if err := os.Truncate(path, rapid.Int64Range(0, info.Size()).Draw(rt, "size")); err != nil {
				rt.Fatal(err)
			}
		}
	})
	dir := t.TempDir()
	j, err := openJournal(dir, "a/b", "r1")
	if err != nil {
		t.Fatal(err)
	}
	for place := range 5 {
		if err := j.add(place); err != nil {
			t.Fatal(err)
		}
	}
	j.closeFile()
	if j, err = openJournal(dir, "a/b", "r1"); err != nil || len(j.sent) != 5 {
		t.Errorf("a complete journal is read as %v, %v", j, err)
	}
}

// A full disk takes half of a line: the next one must not become another number,
// that of a task which was never sent.
func TestSubmitJournalOnFullDisk(t *testing.T) {
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	j, err := openJournal(dir, "dev", "r1")
	check(err)
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	check(syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before))
	check(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1, Max: math.MaxUint64}))
	if err := j.add(17); err == nil {
		t.Error("a full disk took a line")
	}
	check(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before))
	check(j.add(25))
	j.closeFile()
	j, err = openJournal(dir, "dev", "r1")
	check(err)
	defer j.closeFile()
	if len(j.sent) != 1 || !j.sent[25] {
		t.Errorf("sent: %v", j.sent)
	}
}
