package web

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

const (
	cacheLimit = 2 << 30  // bytes of the files of samples that are kept
	readLimit  = 64 << 20 // bytes of a file that is read into memory: texts, and videos to be re-encoded
)

// cache keeps files of samples on the disk, by the SHA-256 of what they are or were made from, and drops those that
// were longest not used when there are more than cacheLimit bytes.
type cache struct {
	dir   string
	limit int64

	mu    sync.Mutex
	files map[string]*cached
	bytes int64
}

type cached struct {
	size int64
	used time.Time
}

func openCache(dir string, limit int64) (*cache, error) {
	c := &cache{dir: dir, limit: limit, files: map[string]*cached{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			continue
		}
		if strings.HasSuffix(entry.Name(), ".part") {
			if time.Since(info.ModTime()) > time.Hour { // of a process that was killed
				_ = os.Remove(filepath.Join(dir, entry.Name()))
			}
			continue
		}
		c.files[entry.Name()] = &cached{info.Size(), info.ModTime()}
		c.bytes += info.Size()
	}
	return c, nil
}

// isHash reports whether a name is that of a file of a sample, and not of what was made from one.
func isHash(name string) bool { return !strings.Contains(name, ".") }

// open opens a file, or fails with fs.ErrNotExist. It can be read to the end, even if it is dropped meanwhile.
func (c *cache) open(name string) (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := os.Open(filepath.Join(c.dir, name))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if there := c.files[name]; there == nil { // another process has put it there
		c.files[name] = &cached{size: info.Size()}
		c.bytes += info.Size()
	}
	now := time.Now()
	if there := c.files[name]; now.Sub(there.used) > time.Minute {
		there.used = now
		_ = os.Chtimes(f.Name(), now, now) // for the next process
	}
	return f, nil
}

// put stores a file in one step.
func (c *cache) put(name string, from io.Reader) error {
	f, err := os.CreateTemp(c.dir, "*.part")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	size, err := io.Copy(f, from)
	if err == nil && !isHash(name) {
		err = f.Sync() // a power failure could cut it, and no receipt says how long it is
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("keep a file in %s: %w", c.dir, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := os.Rename(f.Name(), filepath.Join(c.dir, name)); err != nil {
		return err
	}
	if old := c.files[name]; old != nil {
		c.bytes -= old.size
	}
	c.files[name] = &cached{size, time.Now()}
	c.bytes += size
	if c.bytes > c.limit {
		c.shrink(name)
	}
	return nil
}

// shrink drops files until a tenth of the limit is free, but not the one that was just put there.
func (c *cache) shrink(but string) {
	names := slices.SortedFunc(maps.Keys(c.files),
		func(a, b string) int { return c.files[a].used.Compare(c.files[b].used) })
	for _, name := range names {
		if c.bytes <= c.limit*9/10 {
			return
		}
		if name != but {
			_ = os.Remove(filepath.Join(c.dir, name))
			c.bytes -= c.files[name].size
			delete(c.files, name)
		}
	}
}

// readAll reads a file of at most readLimit bytes.
func readAll(f *os.File) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(f, readLimit+1))
	if err == nil && len(text) > readLimit {
		err = fmt.Errorf("it has more than %s: download it", ui.Size(readLimit))
	}
	return text, err
}
