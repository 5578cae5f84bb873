package probe

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

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
	c := plan.Cost{Generator: g.Name, Commit: g.Commit, Options: g.Options, Measured: time.Now().UTC().Truncate(time.Second),
		Machine: cpuModel()}
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

// contention returns for how long any process of this machine has waited for a CPU
// since it was started; 0 if the kernel does not tell.
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
