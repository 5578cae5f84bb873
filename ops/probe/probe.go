// Package probe runs one generator on this machine as a worker does, and measures it.
package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// Runner runs generators within the limits of a worker. It is safe for concurrent use.
type Runner struct {
	Guard   *generator.Guard // watches all runs together; nil: no limits
	Timeout time.Duration    // of one run; 0: none

	alone sync.RWMutex // read-locked by each run, write-locked by one that must run alone
}

// New returns a Runner with a worker's limits.
func New(timeout time.Duration) *Runner {
	return &Runner{Guard: worker.Limits{}.Filled().Guard(), Timeout: timeout}
}

// Made is what a run took and wrote.
type Made struct {
	generator.Result
	Waited  time.Duration // for a CPU, because others were at work; part of Wall
	Domain  string
	Samples []sample.Sample
}

// Run runs a generator once, as generator.Run does.
func (r *Runner) Run(ctx context.Context, q generator.Request) (generator.Result, error) {
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Timeout)
		defer cancel()
	}
	limits := worker.Limits{}.Filled()
	q.Guard, q.MaxBytes, q.MaxFiles = r.Guard, limits.Bytes, limits.Files*(q.Samples+1)
	return generator.Run(ctx, q)
}

// Make runs a generator once and checks its samples as a worker does. Blame
// recognizes the error if the generator is at fault; the result is valid with it.
func (r *Runner) Make(ctx context.Context, q generator.Request) (m Made, err error) {
	before := contention()
	m.Result, err = r.Run(ctx, q)
	m.Waited = contention() - before
	if ctx.Err() != nil {
		return m, context.Cause(ctx)
	}
	if err == nil {
		m.Domain, m.Samples, err = Collect(q.Generator, m.Output, q.Samples)
	}
	return m, err
}

// Retry calls do, which runs a generator, while others may run beside it. If memory or disk were too short, it calls do
// once more, alone, as a worker would: only then the generator counts as too large.
func (r *Runner) Retry(do func() error) error {
	r.alone.RLock()
	err := do()
	r.alone.RUnlock()
	if f := Blame(err); f == nil || !f.Cause.Policy().Fewer {
		return err
	}
	r.alone.Lock()
	defer r.alone.Unlock()
	return do()
}

// Collect checks what a run of so many samples wrote, as a worker does, and returns
// the samples at the places: all of them, from index 0, if none is given.
func Collect(g *generator.Generator, output string, samples int,
	places ...sample.Place) (domain string, list []sample.Sample, err error) {
	if places == nil {
		for i := range samples {
			places = append(places, sample.Place{Offset: i, Index: i})
		}
	}
	return sample.Collect(output, samples, places, sample.Rules{Required: g.Required, Videoless: g.Videoless,
		FilesVary: g.FilesVary})
}

// Blame returns the failure that an error of Run, Make or Collect is, or nil if the generator is not at fault.
func Blame(err error) *generator.Failure {
	if f, ok := errors.AsType[*generator.Failure](err); ok {
		return f
	}
	if bad, ok := errors.AsType[*sample.Error](err); ok {
		return &generator.Failure{Cause: bad.Cause, Detail: bad.Detail}
	}
	return nil
}

// Keep copies the files of a generator's output to a folder, at most as many bytes as a worker allows: a file with
// holes is larger than what it takes on the disk. It returns the names of what it did not copy. A link could lead to
// any file of this machine, and reading a pipe could block for ever.
func Keep(output, to string) (left []string, err error) {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return nil, err
	}
	remaining := worker.Limits{}.Filled().Bytes
	err = filepath.WalkDir(output, func(file string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(output, file)
		target := filepath.Join(to, name)
		switch {
		case name == "." && errors.Is(err, fs.ErrNotExist):
			return nil // the generator was not started
		case err == nil && e.IsDir():
			return os.MkdirAll(target, 0o755)
		case err == nil && e.Type().IsRegular():
			n, ok, err := copyFile(target, file, remaining)
			if remaining -= n; ok || err != nil {
				return err
			}
		}
		if name == "." {
			name = "all, for its output is no folder"
		}
		left = append(left, filepath.ToSlash(name))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("keep the output: %w", err)
	}
	return left, nil
}

// copyFile copies a file of at most so many bytes to a new one. ok is false if it
// is larger or cannot be read; the error is that of the copy.
func copyFile(to, from string, most int64) (n int64, ok bool, err error) {
	f, err := os.Open(from)
	if err != nil {
		return 0, false, nil //nolint:nilerr // the generator may have removed the right to read it
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() > most {
		return 0, false, nil //nolint:nilerr // as above
	}
	err = atomicfile.Stream(to, func(w io.Writer) (err error) { n, err = io.Copy(w, f); return err })
	return n, true, err
}
