package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// shown are the types of files that browsers show. They run no code of any: what is SVG, HTML or unknown is downloaded.
var shown = map[string]string{".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp",
	".gif": "image/gif", ".mp4": "video/mp4", ".webm": "video/webm", ".txt": "text/plain; charset=utf-8",
	".json": "text/plain; charset=utf-8"}

// media is the address of a file of a sample. It changes with the file, so browsers may keep what they get.
func (c committed) media(f *sample.File) string { return c.address("/media/", f) }

func (c committed) address(kind string, f *sample.File) string {
	return c.of.To(kind+c.Generator+"/"+fmt.Sprint(c.Index)+"/"+f.Name, "v", f.SHA256)
}

func (d *browsed) requested(r *http.Request) (c committed, f *sample.File, err error) {
	at, err := readAt(r.PathValue("generator"), r.PathValue("index"))
	if err != nil {
		return c, nil, err
	}
	g, err := d.geometry(r.Context(), has(at))
	if err != nil {
		return c, nil, err
	}
	if c, err = d.sample(r.Context(), g, at); err != nil {
		return c, nil, err
	}
	if f = c.file(named(r.PathValue("file"))); f == nil { // so no path leads anywhere else
		err = notFound("sample %d of %s has no file %.100q", at.Index, at.Generator, r.PathValue("file"))
	}
	return c, f, err
}

func (d *browsed) requestedVideo(r *http.Request) (c committed, f *sample.File, err error) {
	if c, f, err = d.requested(r); err == nil && !sample.IsVideo(f.Name) {
		err = badRequest("%s is no video", f.Name)
	}
	return c, f, err
}

// mediaFile answers with a file as it is in the bucket, or with a range of it.
func (s *Server) mediaFile(w http.ResponseWriter, r *http.Request, d *browsed) error {
	c, f, err := d.requested(r)
	if err != nil {
		return err
	}
	file, err := s.fetch(r.Context(), c, f)
	if err != nil {
		return err
	}
	defer file.Close()
	kind, ok := shown[strings.ToLower(path.Ext(f.Name))]
	if !ok || r.FormValue("download") != "" {
		w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment",
			map[string]string{"filename": c.sample.ID + "_" + path.Base(f.Name)}))
	}
	if !ok {
		kind = "application/octet-stream"
	}
	serveMedia(w, r, file, kind, f.SHA256)
	return nil
}

func serveMedia(w http.ResponseWriter, r *http.Request, file *os.File, kind, tag string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy",
		"sandbox; default-src 'none'; style-src 'unsafe-inline'; media-src 'self'; img-src 'self'")
	h.Set("ETag", `"`+tag+`"`)
	h.Set("Cache-Control", "private, no-cache")
	if r.URL.Query().Get("v") != "" && strings.HasPrefix(tag, r.URL.Query().Get("v")) {
		h.Set("Cache-Control", "private, max-age=86400, immutable")
	}
	http.ServeContent(w, r, "", time.Time{}, file)
}

// fetch opens a file of a sample in the cache, or from the bucket if it is not there. Of a shard, which can only
// be read from its beginning, all samples come at once.
func (s *Server) fetch(ctx context.Context, c committed, f *sample.File) (*os.File, error) {
	if file, err := s.cache.open(f.SHA256); err == nil {
		if info, err := file.Stat(); err == nil && info.Size() == f.Size { // else a power failure has cut it
			return file, nil
		}
		file.Close()
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	name := "file " + f.SHA256
	keep, want := func(i int) bool { return i == c.Index }, func(name string) bool { return name == f.Name }
	if c.receipt.Shard != nil {
		name, want = "shard "+c.receipt.Shard.Key, nil
		keep = c.receipt.Describes
	}
	_, err := share(ctx, c.of, name, func(ctx context.Context) (any, error) {
		for row, err := range c.of.reader.Samples(ctx, c.cell, keep, want) {
			if err != nil {
				return nil, err
			}
			for i := range row.Files {
				if err := s.cache.put(row.Files[i].SHA256, row.Files[i].Open()); err != nil {
					return nil, err
				}
			}
		}
		return nil, nil
	})
	if damage, ok := errors.AsType[*export.DamageError](err); ok { // the file is not what its receipt says
		return nil, ui.WithHint(damage, "%s, and then the repair that it prints", s.command(c.of, "verify", "--deep"))
	}
	if err != nil {
		return nil, err
	}
	return s.cache.open(f.SHA256)
}

// text returns a text file of a sample, "" if it has none.
func (s *Server) text(ctx context.Context, c committed, name string) (string, error) {
	f := c.file(named(name))
	if f == nil {
		return "", nil
	}
	text, err := s.contents(ctx, c, f)
	return strings.ToValidUTF8(string(text), "\ufffd"), err
}

// query is an address without what is empty.
func query(path string, values url.Values) string {
	for name := range values {
		if values.Get(name) == "" {
			values.Del(name)
		}
	}
	to := url.URL{Path: path, RawQuery: values.Encode()}
	return to.String()
}

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
