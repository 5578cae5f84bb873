package atomicfile

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A file is replaced by the whole new one or not at all, and nothing else is left.
func TestStream(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs the right to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	own := errors.New("of its own")
	path := filepath.Join(dir, strings.Repeat("n", 255))
	for _, test := range []struct {
		name string
		fill func(io.Writer) error
		err  error
		text string // that is there afterwards
	}{
		{"new", func(w io.Writer) error { _, err := io.WriteString(w, "old"); return err }, nil, "old"},
		{"a full disk", func(w io.Writer) error { _, err := w.Write(make([]byte, 1<<20)); return err }, syscall.ENOSPC,
			"old"},
		{"an error of its own, late", func(w io.Writer) error { _, _ = io.WriteString(w, "half"); return own }, own, "old"},
		{"another", func(w io.Writer) error { _, err := io.WriteString(w, "new"); return err }, nil, "new"},
	} {
		if err := Stream(path, test.fill); !errors.Is(err, test.err) {
			t.Errorf("%s: %v, want %v", test.name, err, test.err)
		}
		entries, err := os.ReadDir(dir)
		text, readErr := os.ReadFile(path)
		if err := errors.Join(err, readErr); err != nil || len(entries) != 1 || !bytes.Equal(text, []byte(test.text)) {
			t.Errorf("%s: left are %v, and it holds %q, %v", test.name, entries, text, err)
		}
	}
	if err := Write(filepath.Join(dir, "none", "x"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without its folder: %v", err)
	}
}
