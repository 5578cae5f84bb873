package journal

import (
	"errors"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
)

var errBusy = errors.New("busy")

func reopen(t *testing.T, path string) (*Journal, string) {
	t.Helper()
	j, text, err := Open(path, errBusy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j, string(text)
}

// Only complete lines count, wherever the file was cut off, and the next one is a line of
// its own.
func TestCutOff(t *testing.T) {
	const text = "one\ntwo\n"
	for cut := range len(text) + 1 {
		path := filepath.Join(t.TempDir(), "folder", "j")
		j, _ := reopen(t, path)
		if err := errors.Join(j.Append([]byte(text)), j.Close(), os.Truncate(path, int64(cut))); err != nil {
			t.Fatal(err)
		}
		want := []string{"", "one\n", text}[min(cut/4, 2)]
		j, got := reopen(t, path)
		if got != want {
			t.Errorf("cut off at %d: %q, want %q", cut, got, want)
		}
		if err := errors.Join(j.Append([]byte("next\n")), j.Close()); err != nil {
			t.Fatal(err)
		}
		if _, got := reopen(t, path); got != want+"next\n" {
			t.Errorf("cut off at %d, and one more: %q", cut, got)
		}
	}
}

// One process has it, also after it was rewritten; who waited for the old file does not
// take that for the journal.
func TestBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := reopen(t, path)
	for range 2 {
		if _, _, err := Open(path, errBusy); !errors.Is(err, errBusy) {
			t.Errorf("opened twice: %v", err)
		}
		if err := errors.Join(j.Rewrite([]byte("new\n")), j.Append([]byte("more\n"))); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, text := reopen(t, path)
	if text != "new\nmore\n" {
		t.Errorf("%q", text)
	}
	if err := errors.Join(j.Rewrite(nil), j.Remove()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// Who opens it while another one rewrites it gets the new file.
func TestRewrittenMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	const writers, lines = 4, 25
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for n := 0; n < lines; {
				j, text, err := Open(path, errBusy)
				if errors.Is(err, errBusy) {
					runtime.Gosched()
					continue
				}
				if err == nil {
					err = errors.Join(j.Rewrite(text), j.Append([]byte("x\n")), j.Close())
				}
				if err != nil {
					t.Error(err)
					return
				}
				n++
			}
		})
	}
	group.Wait()
	if _, text := reopen(t, path); len(text) != writers*lines*len("x\n") {
		t.Errorf("%d bytes of %d", len(text), writers*lines*len("x\n"))
	}
}

// A full disk takes nothing that is there, nor leaves half a line.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := reopen(t, path)
	if err := errors.Join(j.Append([]byte("one\nmore\n")), j.Rewrite([]byte("one\n"))); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 6, Max: math.MaxUint64}); err != nil {
		t.Fatal(err)
	}
	appended, rewritten := j.Append([]byte("two\n")), j.Rewrite([]byte("longer\n"))
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if appended == nil || rewritten == nil {
		t.Errorf("a full disk took it: %v, %v", appended, rewritten)
	}
	if err := errors.Join(j.Append([]byte("three\n")), j.Close()); err != nil {
		t.Fatal(err)
	}
	if _, text := reopen(t, path); text != "one\nthree\n" {
		t.Errorf("%q", text)
	}
}
