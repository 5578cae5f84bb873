package export

import (
	"bufio"
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

// verifier reads the files of an export.
type verifier struct {
	from     Destination
	progress func(Progress)
	total    int64 // bytes

	mu     sync.Mutex
	report Report
	read   int64
}

// Verify reads all files of an export and compares them with its SHA256SUMS. The error is
// fs.ErrNotExist if it has none: then the export is not finished.
func Verify(ctx context.Context, from Destination, progress func(Progress)) (*Report, error) {
	v := &verifier{from: from, progress: progress}
	known := map[uint64]int64{} // sizes by a hash of the name: there may be millions
	seed := maphash.MakeSeed()
	for f, err := range from.List(ctx, "") {
		if err != nil {
			return nil, err
		}
		if !hidden(f.Name) && f.Name != sumsFile {
			known[maphash.String(seed, f.Name)] = f.Size
			v.total += f.Size
		}
	}
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(max(4, runtime.NumCPU()))
	for f, err := range v.sums(limited) {
		if err != nil {
			return nil, errors.Join(group.Wait(), err)
		}
		delete(known, maphash.String(seed, f.Name))
		group.Go(func() error { return v.file(limited, f) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if len(known) > 0 {
		for f, err := range from.List(ctx, "") {
			if err != nil {
				return nil, err
			}
			if _, stray := known[maphash.String(seed, f.Name)]; stray && !hidden(f.Name) && f.Name != sumsFile {
				v.wrong("%s is not of this export", f.Name)
			}
		}
	}
	slices.Sort(v.report.Problems)
	return &v.report, nil
}

// hidden are files of tools, such as git's and the hub's.
func hidden(name string) bool {
	return strings.HasPrefix(name, ".") || strings.Contains(name, "/.cache/") || path.Base(name) == ".gitattributes"
}

// sums reads SHA256SUMS.
func (v *verifier) sums(ctx context.Context) iter.Seq2[Written, error] {
	return func(yield func(Written, error) bool) {
		done := 0
		err := v.from.Read(ctx, sumsFile, func(from io.Reader) error {
			lines := bufio.NewScanner(from)
			for n := 0; lines.Scan(); n++ {
				hash, name, ok := strings.Cut(lines.Text(), "  ")
				if !ok || len(hash) != 2*sha256.Size || !fs.ValidPath(name) {
					return fmt.Errorf("line %d of %s is not a hash and a name", n+1, sumsFile)
				}
				if n < done {
					continue
				}
				done = n + 1
				if !yield(Written{Name: name, SHA256: hash}, nil) {
					return errStopped
				}
			}
			return lines.Err()
		})
		if err != nil && !errors.Is(err, errStopped) {
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
	v.read += n
	v.progress(Progress{Doing: "verifying", Done: v.read, Total: v.total, Bytes: true})
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
