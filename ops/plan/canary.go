package plan

import (
	"bufio"
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// Measure finds out what a generator takes, from two runs of it on this machine as
// a worker would run it: one for a single sample and one for n, at least 2. What
// it writes is checked as a worker does. Blame knows the error if the generator is
// to blame.
func (r *Runs) Measure(ctx context.Context, g *generator.Generator, n int) (Cost, error) {
	c := Cost{Generator: g.Name, Commit: g.Commit, Measured: time.Now().UTC().Truncate(time.Second), Machine: Machine(),
		Samples: n}
	one, err := r.try(ctx, g, 1)
	if err != nil {
		return c, err
	}
	many, err := r.try(ctx, g, n)
	if err != nil {
		return c, err
	}
	c.StartCPU, c.SampleCPU = line(one.CPU, many.CPU, n)
	c.StartWall, c.SampleWall = line(one.Wall, many.Wall, n)
	c.PeakRSS = max(one.PeakRSS, many.PeakRSS)
	c.SampleRSS = max(0, (many.PeakRSS-one.PeakRSS)/int64(n-1))
	c.SampleBytes, c.SampleFiles = many.bytes/int64(n), (many.files+n-1)/n
	return c, nil
}

// line returns what the start and what each sample takes, in seconds, given what
// one and what n take. Neither is negative, and n of them take what n took.
func line(one, many time.Duration, n int) (start, each float64) {
	each = max(0, (many-one).Seconds()/float64(n-1))
	start = many.Seconds() - float64(n)*each
	if start < 0 {
		return 0, many.Seconds() / float64(n)
	}
	return start, each
}

// tried is what one run took and left.
type tried struct {
	generator.Result
	bytes int64
	files int
}

func (r *Runs) try(ctx context.Context, g *generator.Generator, n int) (t tried, err error) {
	err = r.Retry(func() error {
		t, err = r.once(ctx, g, n)
		return err
	})
	return t, err
}

func (r *Runs) once(ctx context.Context, g *generator.Generator, n int) (tried, error) {
	scratch, err := os.MkdirTemp("", "vm-dataset-canary-")
	if err != nil {
		return tried{}, err
	}
	defer os.RemoveAll(scratch)
	const seed = 42 // the same for both, so that they have most of their samples in common
	before := contention()
	result, err := r.Run(ctx, generator.Request{Generator: g, Samples: n, Seed: seed, Scratch: scratch})
	if err != nil {
		return tried{}, err
	}
	_, samples, err := Collect(g, result.Output, n)
	if err != nil {
		return tried{}, err
	}
	t := tried{Result: result}
	t.Wall = max(t.CPU, t.Wall-(contention()-before))
	for _, s := range samples {
		for _, f := range s.Files {
			t.bytes += f.Size
			t.files++
		}
	}
	return t, nil
}

// contention is for how long something on this machine has waited for a CPU since
// it was started; 0 if the kernel does not report it. What a generator took longer
// for that reason is not its own.
func contention() time.Duration {
	text, err := os.ReadFile("/proc/pressure/cpu")
	if err != nil {
		return 0
	}
	_, total, _ := strings.Cut(strings.SplitN(string(text), "\n", 2)[0], "total=")
	micros, _ := strconv.ParseInt(total, 10, 64)
	return time.Duration(micros) * time.Microsecond
}

// Machine is the model of this machine's CPU.
func Machine() string {
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
