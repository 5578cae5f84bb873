package web

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The cache stays below its limit, drops what was longest not used, and continues in the next process.
func TestCache(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := openCache(dir, 1000)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string) {
		t.Helper()
		if err := c.put(name, strings.NewReader(strings.Repeat("x", 100))); err != nil {
			t.Fatal(err)
		}
	}
	has := func(name string) bool {
		t.Helper()
		f, err := c.open(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err == nil {
			f.Close()
		}
		return err == nil
	}
	for i := range 10 {
		put(fmt.Sprint(i))
		c.files[fmt.Sprint(i)].used = time.Now().Add(time.Duration(i-100) * time.Minute)
	}
	if !has("0") { // which makes it the last used
		t.Fatal("0 is gone")
	}
	reading, err := c.open("1")
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()
	c.files["1"].used = time.Time{}
	put("10")
	if c.bytes > 900 || !has("0") || has("1") || has("2") || !has("9") || !has("10") {
		t.Errorf("it has %d bytes in %v", c.bytes, c.files)
	}
	if text, err := io.ReadAll(reading); err != nil || len(text) != 100 {
		t.Errorf("a file that was dropped while it was read has %d bytes: %v", len(text), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "old.part"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "old.part"), long, long); err != nil {
		t.Fatal(err)
	}
	bytes := c.bytes
	if c, err = openCache(dir, 1000); err != nil || c.bytes != bytes || !has("0") || has("old.part") {
		t.Errorf("the next process has %d bytes of %d: %v", c.bytes, bytes, err)
	}
}
