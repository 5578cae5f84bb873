// Package probe runs one generator on this machine as a worker does, and measures it.
package probe

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
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

// copyFile copies a file to a new one; ok is false if it has more than most bytes or cannot be read.
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

// Measured is the result of measuring one generator.
type Measured struct {
	Cost    plan.Cost
	Failure *generator.Failure // nil unless the generator is at fault
}

// MeasureAll measures generators, at most one for each two CPUs at once, so that each has a CPU for itself. done is
// called after each, and may be called concurrently. The error is ctx's or this machine's.
func (r *Runner) MeasureAll(ctx context.Context, list []generator.Generator, n int, done func()) ([]Measured, error) {
	results := make([]Measured, len(list))
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(max(1, runtime.NumCPU()/2))
	for i := range list {
		group.Go(func() error {
			cost, err := r.Measure(limited, &list[i], n)
			if results[i] = (Measured{cost, Blame(err)}); err != nil && results[i].Failure == nil {
				return fmt.Errorf("measure %s: %w", list[i].Name, err)
			}
			done()
			return nil
		})
	}
	return results, group.Wait()
}

// Measure measures a generator by two runs, of one sample and of n, at least 2. Blame
// recognizes the error if the generator is at fault.
func (r *Runner) Measure(ctx context.Context, g *generator.Generator, n int) (plan.Cost, error) {
	if g.Problem != "" {
		return plan.Cost{}, &generator.Failure{Cause: task.Environment, Detail: g.Problem}
	}
	var runs []Made
	for _, samples := range []int{1, n} {
		err := r.Retry(func() error {
			scratch, err := os.MkdirTemp("", "vm-dataset-canary-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(scratch)
			const seed = 42 // the same for both, so that they have most of their samples in common
			m, err := r.Make(ctx, generator.Request{Generator: g, Samples: samples, Seed: seed, Scratch: scratch})
			if err == nil {
				runs = append(runs, m)
			}
			return err
		})
		if err != nil {
			return plan.Cost{}, err
		}
	}
	return CostOf(g, runs), nil
}

// CostOf fits a cost to runs that succeeded, at least one, in the order in which they ran. The wall time of the first
// counts only if there are few: it reads the packages from the disk.
func CostOf(g *generator.Generator, runs []Made) plan.Cost {
	c := plan.Cost{Generator: g.Name, Commit: g.Commit, Options: g.Options, Machine: cpuModel(),
		Measured: time.Now().UTC().Truncate(time.Second)}
	size := func(m Made) int { return len(m.Samples) }
	bySize := func(a, b Made) int { return cmp.Compare(size(a), size(b)) }
	few, many := size(slices.MinFunc(runs, bySize)), size(slices.MaxFunc(runs, bySize))
	var cpu, wall []point
	peaks := map[int]int64{}
	samples, files := 0, 0
	for i, m := range runs {
		cpu = append(cpu, point{float64(size(m)), m.CPU.Seconds()})
		if i > 0 || len(runs) < 3 {
			wall = append(wall, point{float64(size(m)), max(m.CPU, m.Wall-m.Waited).Seconds()})
		}
		peaks[size(m)] = max(peaks[size(m)], m.PeakRSS)
		c.PeakRSS = max(c.PeakRSS, m.PeakRSS)
		for _, s := range m.Samples {
			samples, files = samples+1, files+len(s.Files)
			for _, f := range s.Files {
				c.SampleBytes += f.Size
			}
		}
	}
	c.Samples = many
	c.StartCPU, c.SampleCPU = fit(cpu)
	c.StartWall, c.SampleWall = fit(wall)
	if many > few {
		c.SampleRSS = max(0, peaks[many]-peaks[few]) / int64(many-few)
	}
	c.SampleBytes /= int64(samples)
	c.SampleFiles = int(math.Round(float64(files) / float64(samples)))
	return c
}

// point is a run of n samples that took y seconds.
type point struct{ n, y float64 }

// fit fits y = start + n * each by least squares. Neither is negative. Points of one size have no start.
func fit(points []point) (start, each float64) {
	if len(points) == 0 {
		return 0, 0
	}
	var n, y, nn, ny float64
	for _, p := range points {
		n, y = n+p.n, y+p.y
	}
	count := float64(len(points))
	n, y = n/count, y/count
	for _, p := range points {
		nn += (p.n - n) * (p.n - n)
		ny += (p.n - n) * (p.y - y)
	}
	if nn == 0 {
		return 0, y / n
	}
	each = max(ny/nn, 0)
	if start = y - each*n; start < 0 {
		return 0, y / n
	}
	return start, each
}

// contention returns for how long processes here have waited for a CPU; 0 if the kernel does not tell.
func contention() time.Duration {
	text, err := os.ReadFile("/proc/pressure/cpu")
	if err != nil {
		return 0
	}
	_, total, _ := strings.Cut(strings.SplitN(string(text), "\n", 2)[0], "total=")
	micros, _ := strconv.ParseInt(total, 10, 64)
	return time.Duration(micros) * time.Microsecond
}

// cpuModel is the model of this machine's CPU.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if name, model, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(model)
			}
		}
	}
	return runtime.GOOS + "/" + runtime.GOARCH
}
