package export

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
)

// output is what formats write through: it notes what was written.
type output struct {
	export *Export
	plan   *Plan // nil while parts are written
	mu     sync.Mutex
	files  []Written
}

func (o *output) Create(ctx context.Context, name string, size int64, write func(io.Writer) error) error {
	if err := checkName(name); err != nil {
		return err
	}
	var h *hashing
	err := o.export.To.Create(ctx, name, size, func(w io.Writer) error {
		h = newHashing(w)
		return cmp.Or(write(h), h.Flush())
	})
	if err == nil {
		o.note(Written{name, h.n, h.sum()})
	}
	return err
}

func (o *output) Copy(ctx context.Context, name string, f *File) error {
	if err := checkName(name); err != nil {
		return err
	}
	err := o.export.To.Create(ctx, name, f.Size, func(w io.Writer) error {
		_, err := io.Copy(w, f.Open())
		return err
	})
	if err == nil {
		o.note(Written{name, f.Size, f.SHA256})
	}
	return err
}

func (o *output) note(w Written) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.files = append(o.files, w)
}

// checkName refuses names that SHA256SUMS cannot have, or that lead out of the export.
func checkName(name string) error {
	if !fs.ValidPath(name) || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "\n\r\\") {
		return fmt.Errorf("an export cannot have a file called %.60q", name)
	}
	return nil
}

func (o *output) sorted() []Written {
	return slices.SortedFunc(slices.Values(o.files), func(a, b Written) int { return cmp.Compare(a.Name, b.Name) })
}

// hashing counts and hashes what is written through it.
type hashing struct {
	*bufio.Writer
	to   io.Writer
	hash hash.Hash
	n    int64
}

func newHashing(to io.Writer) *hashing {
	h := &hashing{to: to, hash: sha256.New()}
	h.Writer = bufio.NewWriterSize(sink{h}, 256<<10)
	return h
}

func (h *hashing) sum() string { return hex.EncodeToString(h.hash.Sum(nil)) }

// sink is where the buffer of a hashing writes.
type sink struct{ *hashing }

func (s sink) Write(p []byte) (int, error) {
	n, err := s.to.Write(p)
	_, _ = s.hash.Write(p[:n])
	s.n += int64(n)
	return n, err
}

func (o *output) Files(ctx context.Context) iter.Seq2[Written, error] {
	return func(yield func(Written, error) bool) {
		for _, p := range o.plan.Parts {
			var r record
			if err := o.export.readJSON(ctx, recordName(p), &r); err != nil {
				yield(Written{}, err)
				return
			}
			for _, f := range r.Files {
				if !yield(f, nil) {
					return
				}
			}
		}
		for _, f := range o.sorted() {
			if !yield(f, nil) {
				return
			}
		}
	}
}

func (o *output) Sample(ctx context.Context, generator string, n int) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		for _, p := range o.plan.Parts {
			if p.Generator != generator {
				continue
			}
			for row, err := range o.export.source.rows(ctx, p) {
				if n <= 0 || !yield(row, err) {
					return
				}
				n--
			}
		}
	}
}

func rowsName(p Part) string { return state + "rows/" + p.Name + ".jsonl.gz" }

// rowWriter notes the rows of a part, for Output.Rows.
type rowWriter struct {
	pipe    *io.PipeWriter
	packed  *gzip.Writer
	encoder *json.Encoder
	written chan error
}

func newRowWriter(ctx context.Context, to Destination, p Part) *rowWriter {
	from, pipe := io.Pipe()
	packed := gzip.NewWriter(pipe)
	w := &rowWriter{pipe, packed, json.NewEncoder(packed), make(chan error, 1)}
	w.encoder.SetEscapeHTML(false)
	go func() {
		err := to.Create(ctx, rowsName(p), 0, func(w io.Writer) error {
			_, err := io.Copy(w, from)
			return err
		})
		_ = from.CloseWithError(err) // who writes on must not wait
		w.written <- err
	}()
	return w
}

// tee notes the rows that pass.
func (w *rowWriter) tee(rows iter.Seq2[*Row, error]) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		for r, err := range rows {
			if err == nil {
				if err = w.encoder.Encode(r); err != nil {
					r = nil
				}
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// end ends the notes, which are dropped if the part has failed.
func (w *rowWriter) end(failed error) error {
	err := failed
	if err == nil {
		err = w.packed.Close()
	}
	_ = w.pipe.CloseWithError(cmp.Or(err, io.EOF))
	if written := <-w.written; failed == nil {
		err = cmp.Or(written, err)
	}
	return err
}

func (o *output) Rows(ctx context.Context) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		for _, p := range o.plan.Parts {
			if err := o.rows(ctx, p, yield); err != nil {
				if !errors.Is(err, errStopped) {
					yield(nil, err)
				}
				return
			}
		}
	}
}

func (o *output) rows(ctx context.Context, p Part, yield func(*Row, error) bool) error {
	done := 0 // that were yielded
	return o.export.To.Read(ctx, rowsName(p), func(from io.Reader) error {
		unpacked, err := gzip.NewReader(from)
		if err != nil {
			return err
		}
		decoder := json.NewDecoder(unpacked)
		for n := 0; ; n++ {
			var r Row
			switch err := decoder.Decode(&r); {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			case n < done:
				continue
			}
			done = n + 1
			if !yield(&r, nil) {
				return errStopped
			}
		}
	})
}
