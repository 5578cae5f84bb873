package export

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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
)

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

// Verify reads all files of an export and compares them with its SHA256SUMS. The error is
// fs.ErrNotExist if it has none: then the export is not finished.
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
