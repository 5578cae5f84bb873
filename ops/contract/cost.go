package contract

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
)

// measure is one run that was measured.
type measure struct {
	samples   int
	cpu, wall float64 // seconds
	rss       int64   // bytes
}

// Advice is how to cut a generator's work.
type Advice struct {
	Chunk   int    `json:"chunk"` // samples of one process
	Batch   int    `json:"batch"` // samples of one task
	Because string `json:"because,omitempty"`
}

// cost fits what was measured. A few samples tell a few samples' worth: a generator
// whose samples differ much in cost needs more of them.
func (k *check) cost(first *made) {
	g := k.generator
	c := plan.Cost{Generator: g.Name, Commit: g.Commit, Measured: time.Now().UTC().Truncate(time.Second), Machine: plan.Machine(), Samples: 2 * k.Samples}
	var cpu, wall []point
	less, more := int64(0), int64(0)
	for i, m := range k.measured {
		cpu = append(cpu, point{float64(m.samples), m.cpu})
		if i > 0 || len(k.measured) == 1 { // the first reads its packages from the disk
			wall = append(wall, point{float64(m.samples), m.wall})
		}
		if m.samples == k.Samples {
			less = max(less, m.rss)
		} else {
			more = max(more, m.rss)
		}
	}
	c.StartCPU, c.SampleCPU = fit(cpu)
	c.StartWall, c.SampleWall = fit(wall)
	c.PeakRSS = max(less, more)
	if more == 0 {
		c.Samples = k.Samples
	} else if grown := more - less; grown > 0 {
		c.SampleRSS = grown / int64(k.Samples)
	}
	for _, s := range first.samples {
		c.SampleFiles += len(s.Files)
		for _, f := range s.Files {
			c.SampleBytes += f.Size
		}
	}
	n := len(first.samples)
	c.SampleBytes, c.SampleFiles = c.SampleBytes/int64(n), int(math.Round(float64(c.SampleFiles)/float64(n)))
	k.report.Cost = &c
	advice := advise(c, g.ChunkSize)
	k.report.Advice = &advice
}

// SaveCosts keeps what was measured in the folder of the local stack, for ops plan.
// Reports may be nil where a check was interrupted.
func SaveCosts(dir string, reports []*Report) error {
	var costs []plan.Cost
	for _, r := range reports {
		if r != nil && r.Cost != nil {
			costs = append(costs, *r.Cost)
		}
	}
	if len(costs) == 0 {
		return nil
	}
	return plan.SaveCosts(dir, costs...)
}

// point is a run of n samples that took y.
type point struct{ n, y float64 }

// fit fits y = start + n * each by least squares. Neither is negative; one size
// alone tells nothing of the start, and no point tells nothing.
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

// What advice goes by. Lambda gives CPUs in proportion to the memory, so what comes
// with one is a generator's share; a chunk that dies is made again whole, so it
// should not take long; a task should fit well into the 900 s of an invocation.
// Whether another batch is cheaper depends on the worker, which 'ops plan' knows.
const (
	shareOfMemory = plan.MegabytesPerCPU << 20 // bytes
	longChunk     = 300.0                      // seconds
	longTask      = 450.0                      // seconds
	usualChunk    = 20
	usualBatch    = 100
	dearStart     = 0.25 // part of a chunk's CPU
)

// advise cuts the work: the usual chunk unless the start costs too much of it, or
// memory or time are too little for it; the usual batch unless that takes too long.
// said is the chunk that the catalogue asks for, 0 for none.
func advise(c plan.Cost, said int) Advice {
	// A process has a CPU to itself where it counts; here it may have shared one.
	// And no chunk is known to take less memory than was seen.
	fits := func(n int) bool { return c.CPU(n) <= longChunk && c.Memory(n) <= max(shareOfMemory, c.PeakRSS) }
	start := func(n int) float64 { return c.StartCPU / c.CPU(n) }
	var because []string
	a := Advice{Chunk: usualChunk, Batch: usualBatch}
	if said > 0 {
		a.Chunk = said
		because = append(because, fmt.Sprintf("the catalogue says chunks of %d", said))
	}
	if said == 0 && c.SampleCPU > 0 && start(a.Chunk) > dearStart { // samples that cost nothing were not measured
		for _, n := range []int{25, 50, 100} {
			if fits(n) && start(a.Chunk) > dearStart {
				a.Chunk = n
			}
		}
		if a.Chunk > usualChunk {
			because = append(because, fmt.Sprintf("its start is %.0f %% of a chunk of %d", 100*start(usualChunk), usualChunk))
		}
	}
	// Growth that was seen over a few samples says little of many: of one generator 3
	// and 6 samples foretold 4.0 GB for 100, which took 0.5 GB. So it is no reason
	// for smaller chunks beyond five times of what was measured.
	if c.CPU(a.Chunk) > longChunk || c.Memory(min(a.Chunk, 5*c.Samples)) > shareOfMemory {
		because = append(because, fmt.Sprintf("a chunk of %d would take %.0f s of CPU and %.1f GB", a.Chunk, c.CPU(a.Chunk), float64(c.Memory(a.Chunk))/1e9))
		smaller := []int{a.Chunk, 50, 25, 20, 10, 5, 2, 1}
		i := slices.IndexFunc(smaller, func(n int) bool { return n <= a.Chunk && fits(n) })
		if a.Chunk = 1; i >= 0 {
			a.Chunk = smaller[i]
		}
	}
	// Chunks of a task are made side by side, as many as there are CPUs.
	cpus := float64(plan.DefaultWorker().CPUs())
	for a.Batch > a.Chunk && math.Ceil(float64(a.Batch)/float64(a.Chunk)/cpus)*c.CPU(a.Chunk) > longTask {
		a.Batch -= a.Chunk
	}
	a.Batch = max(a.Batch/a.Chunk, 1) * a.Chunk
	a.Because = strings.Join(because, "; ")
	return a
}
