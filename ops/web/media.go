package web

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// shown are the types of files that browsers show. They run no code of any: what is SVG, HTML or unknown is downloaded.
var shown = map[string]string{".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp",
	".gif": "image/gif", ".mp4": "video/mp4", ".webm": "video/webm", ".txt": "text/plain; charset=utf-8",
	".json": "text/plain; charset=utf-8"}

func (s *Server) mediaRoutes() {
	s.page("GET /media/{generator}/{index}/{file...}", s.mediaFile)
	s.page("GET /play/{generator}/{index}/{file...}", s.encodedFile)
	s.page("GET /frame/{number}/{generator}/{index}/{file...}", s.stripFrame)
}

// media is the address of a file of a sample. It changes with the file, so browsers may keep what they get.
func (s *Server) media(d task.Dataset, c committed, f *sample.File) string {
	return s.fileAddress("/media/", d, c, f)
}

func (s *Server) fileAddress(kind string, d task.Dataset, c committed, f *sample.File) string {
	file := kind + c.Generator + "/" + fmt.Sprint(c.Index) + "/" + f.Name
	return address(s.Store.Dataset(), d, file, "v", f.SHA256)
}

// requested finds the file that a request names.
func (s *Server) requested(r *http.Request) (d *browsed, c committed, f *sample.File, err error) {
	st, err := s.store(r)
	if err != nil {
		return nil, c, nil, err
	}
	at, err := readAt(r.PathValue("generator"), r.PathValue("index"))
	if err != nil {
		return nil, c, nil, err
	}
	d = s.browsed(st)
	g, err := d.look(r.Context(), has(at))
	if err != nil {
		return nil, c, nil, err
	}
	if c, err = d.sample(r.Context(), g, at); err != nil {
		return nil, c, nil, err
	}
	if f = c.file(r.PathValue("file")); f == nil { // so no path leads anywhere else
		return nil, c, nil, notFound("sample %d of %s has no file %.100q", at.Index, at.Generator,
			r.PathValue("file"))
	}
	return d, c, f, nil
}

// requestedVideo finds the video that a request names.
func (s *Server) requestedVideo(r *http.Request) (d *browsed, c committed, f *sample.File, err error) {
	if d, c, f, err = s.requested(r); err == nil && !sample.IsVideo(f.Name) {
		err = badRequest("%s is no video", f.Name)
	}
	return d, c, f, err
}

// mediaFile answers with a file as it is in the bucket, or with a range of it.
func (s *Server) mediaFile(w http.ResponseWriter, r *http.Request) error {
	d, c, f, err := s.requested(r)
	if err != nil {
		return err
	}
	file, err := s.fetch(r.Context(), d, c, f)
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

// fetch opens a file of a sample in the cache, reading it from the bucket if it is not there. Of a shard, which can only
// be read from its beginning, all samples come at once.
func (s *Server) fetch(ctx context.Context, d *browsed, c committed, f *sample.File) (*os.File, error) {
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
	_, err := share(ctx, d, name, func(ctx context.Context) (any, error) {
		for row, err := range d.reader.Samples(ctx, c.cell, keep, want) {
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
	var damage *export.DamageError
	if errors.As(err, &damage) {
		return nil, s.damaged(d.Dataset(), damage)
	}
	if err != nil {
		return nil, err
	}
	return s.cache.open(f.SHA256)
}

// text returns a text file of a sample, "" if it has none.
func (s *Server) text(ctx context.Context, d *browsed, c committed, name string) (string, error) {
	f := c.file(name)
	if f == nil {
		return "", nil
	}
	text, err := s.contents(ctx, d, c, f)
	return strings.ToValidUTF8(string(text), "\ufffd"), err
}

// damaged adds what to do to the error of a file that is not what its receipt says.
func (s *Server) damaged(d task.Dataset, err error) error {
	return ui.WithHint(err, "%s, and then the repair that it prints", s.command(d, "verify", "--deep"))
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
