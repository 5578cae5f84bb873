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

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Output is where a format writes: it notes what was written.
type Output struct {
	export *Export
	plan   *Plan // nil while parts are written
	mu     sync.Mutex
	files  []Written
}

// Create writes one file, which has its name only once write has returned nil. The size is an estimate in bytes.
func (o *Output) Create(ctx context.Context, name string, size int64, write func(io.Writer) error) error {
	if err := checkName(name); err != nil {
		return err
	}
	h := &hashing{hash: sha256.New()}
	err := o.export.To.Create(ctx, name, size, func(w io.Writer) error {
		h.to = w
		buffer := bufio.NewWriterSize(h, 64<<10)
		return cmp.Or(write(buffer), buffer.Flush())
	})
	if err == nil {
		o.note(Written{name, h.n, hex.EncodeToString(h.hash.Sum(nil))})
	}
	return err
}

// Copy writes a file of a sample as it is.
func (o *Output) Copy(ctx context.Context, name string, f *File) error {
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

func (o *Output) note(w Written) {
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

// sorted returns what was written by its names, and export.json last: with it SHA256SUMS is complete.
func (o *Output) sorted() []Written {
	return slices.SortedFunc(slices.Values(o.files), func(a, b Written) int {
		switch {
		case a.Name == manifestFile:
			return 1
		case b.Name == manifestFile:
			return -1
		}
		return cmp.Compare(a.Name, b.Name)
	})
}

// hashing counts and hashes what is written through it.
type hashing struct {
	to   io.Writer
	hash hash.Hash
	n    int64
}

func (h *hashing) Write(p []byte) (int, error) {
	hashed := make(chan struct{})
	go func() { // while another CPU writes
		_, _ = h.hash.Write(p)
		close(hashed)
	}()
	n, err := h.to.Write(p)
	h.n += int64(n)
	<-hashed
	return n, err
}

// Files returns the files that have been written, in the order of the plan; there may be millions. Only for Finish.
func (o *Output) Files(ctx context.Context) iter.Seq2[Written, error] {
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

// First has use read the first row of a generator, if there is one, with its files. Only for Finish.
func (o *Output) First(ctx context.Context, generator string, use func(*Row) error) error {
	at := slices.IndexFunc(o.plan.Parts, func(p Part) bool { return p.Generator == generator })
	if at < 0 {
		return nil
	}
	p := o.plan.Parts[at]
	p.Ranges = []task.Range{{Start: p.Ranges[0].Start, End: p.Ranges[0].Start + 1}} // nothing is read ahead
	for row, err := range o.export.source.rows(ctx, p) {
		if err == nil {
			err = use(row)
		}
		return err
	}
	return nil
}

// rowsName is the file that has the rows of a part, for Output.Rows.
func rowsName(p Part) string { return state + "rows/" + p.Name + ".jsonl.gz" }

// Rows returns all rows of the export without the bytes of their files, part by part, as Part was given them. Only for
// Finish.
func (o *Output) Rows(ctx context.Context) iter.Seq2[*Row, error] {
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

func (o *Output) rows(ctx context.Context, p Part, yield func(*Row, error) bool) error {
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

// finishedPlan is the manifest of an export: the plan that was carried out.
type finishedPlan struct {
	Version int    `json:"version"`
	ID      string `json:"id"` // equal for exports of the same samples in the same form
	*Plan
}

// finish writes what all parts have in common, and the sums last: an export that has them is finished.
func (e *Export) finish(ctx context.Context, plan *Plan, s *Summary) error {
	out := &Output{export: e, plan: plan}
	if err := e.Format.Finish(ctx, plan, out); err != nil {
		return err
	}
	if err := writeCard(ctx, plan, out); err != nil {
		return err
	}
	err := out.Create(ctx, manifestFile, 0, func(w io.Writer) error {
		return encodeJSON(w, finishedPlan{1, plan.id(), plan})
	})
	if err != nil {
		return err
	}
	if err := writeCroissant(ctx, plan, out); err != nil {
		return err
	}
	return e.To.Commit(ctx, sumsFile, func(w io.Writer) error {
		s.Files, s.Bytes = 0, 0
		return writeSums(w, out.Files(ctx), func(f Written) bool {
			s.Files++
			s.Bytes += f.Size
			return true
		})
	})
}

// writeSums writes the hashes and names of some files as sha256sum has them.
func writeSums(w io.Writer, files iter.Seq2[Written, error], some func(Written) bool) error {
	lines := bufio.NewWriter(w)
	for f, err := range files {
		if err != nil {
			return err
		}
		if !some(f) {
			continue
		}
		if _, err := fmt.Fprintf(lines, "%s  %s\n", f.SHA256, f.Name); err != nil {
			return err
		}
	}
	return lines.Flush()
}
