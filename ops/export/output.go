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
	"hash/maphash"
	"io"
	"io/fs"
	"iter"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

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

// Report says whether an export is as it was written.
type Report struct {
	Files    int      `json:"files"`
	Bytes    int64    `json:"bytes"`
	Wrong    int      `json:"wrong"`              // files
	Problems []string `json:"problems,omitempty"` // the first ones, sorted
}

// maxProblems is how many files a report names.
const maxProblems = 100

type verifier struct {
	from     Destination
	progress func(Progress)
	total    int64 // bytes

	mu     sync.Mutex
	report Report
}

// Verify compares all files of an export with its SHA256SUMS. The error is fs.ErrNotExist if it has none: unfinished.
func Verify(ctx context.Context, from Destination, progress func(Progress)) (*Report, error) {
	v := &verifier{from: from, progress: progress}
	known, err := listSizes(ctx, from)
	if err != nil {
		return nil, err
	}
	for _, size := range known.sizes {
		v.total += size
	}
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(max(4, runtime.NumCPU()))
	for f, err := range sums(limited, from) {
		if err != nil {
			return nil, errors.Join(group.Wait(), err)
		}
		delete(known.sizes, known.key(f.Name))
		group.Go(func() error { return v.file(limited, f) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if len(known.sizes) > 0 {
		for f, err := range from.List(ctx, "") {
			if err != nil {
				return nil, err
			}
			if _, stray := known.of(f.Name); stray && !hidden(f.Name) {
				v.wrong("%s is not of this export", f.Name)
			}
		}
	}
	slices.Sort(v.report.Problems)
	return &v.report, nil
}

// hidden are files of tools, such as git's and the hub's.
func hidden(name string) bool {
	return strings.HasPrefix(name, ".") || strings.Contains(name, "/.cache/") || path.Base(name) == ".gitattributes" ||
		strings.HasSuffix(name, ".tar.idx") // of Energon, beside each tar
}

// fileSizes are the sizes of the files of an export by a hash of the name: there may be millions.
type fileSizes struct {
	seed  maphash.Seed
	sizes map[uint64]int64
}

// listSizes lists a destination without SHA256SUMS and what tools keep in folders of their own.
func listSizes(ctx context.Context, from Destination) (*fileSizes, error) {
	s := &fileSizes{maphash.MakeSeed(), map[uint64]int64{}}
	for f, err := range from.List(ctx, "") {
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(f.Name, ".") && f.Name != sumsFile {
			s.sizes[s.key(f.Name)] = f.Size
		}
	}
	return s, nil
}

func (s *fileSizes) key(name string) uint64 { return maphash.String(s.seed, name) }

func (s *fileSizes) of(name string) (size int64, ok bool) {
	size, ok = s.sizes[s.key(name)]
	return size, ok
}

// errNoSum says that a line of SHA256SUMS is none.
var errNoSum = errors.New("is not a hash and a name")

// sumOfNothing is the hash of an empty file.
const sumOfNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// sums reads SHA256SUMS: first all of it, for a connection breaks if a file is hashed after each line.
func sums(ctx context.Context, from Destination) iter.Seq2[Written, error] {
	return func(yield func(Written, error) bool) {
		f, err := newTemporary(sumsFile)
		if err != nil {
			yield(Written{}, err)
			return
		}
		defer f.Close()
		begin := func() error { _, err := f.Seek(0, io.SeekStart); return err }
		err = from.Read(ctx, sumsFile, func(from io.Reader) error {
			err := cmp.Or(begin(), f.Truncate(0))
			if err == nil {
				_, err = io.Copy(f, from)
			}
			return err
		})
		if err = cmp.Or(err, begin()); err != nil {
			yield(Written{}, err)
			return
		}
		lines := bufio.NewScanner(f)
		for n := 1; lines.Scan(); n++ {
			hash, name, ok := strings.Cut(lines.Text(), "  ")
			if !ok || len(hash) != 2*sha256.Size || !fs.ValidPath(name) {
				yield(Written{}, fmt.Errorf("line %d of %s %w", n, sumsFile, errNoSum))
				return
			}
			if !yield(Written{Name: name, SHA256: hash}, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(Written{}, err)
		}
	}
}

func (v *verifier) file(ctx context.Context, f Written) error {
	h := sha256.New()
	var n int64
	err := v.from.Read(ctx, f.Name, func(from io.Reader) (err error) {
		h.Reset()
		n, err = io.CopyBuffer(h, from, make([]byte, 256<<10))
		return err
	})
	v.mu.Lock()
	v.report.Files++
	v.report.Bytes += n
	v.progress(Progress{Doing: "verifying", Done: v.report.Bytes, Total: v.total, Bytes: true})
	v.mu.Unlock()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.wrong("%s is missing", f.Name)
	case err != nil:
		return err
	case hex.EncodeToString(h.Sum(nil)) != f.SHA256:
		v.wrong("%s was changed", f.Name)
	}
	return nil
}

func (v *verifier) wrong(format string, name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.report.Wrong++; len(v.report.Problems) < maxProblems {
		v.report.Problems = append(v.report.Problems, fmt.Sprintf(format, name))
	}
}
