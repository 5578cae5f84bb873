package contract

import (
	"fmt"
	"math"
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
	c := plan.Cost{Generator: g.Name, Commit: g.Commit, Measured: time.Now().UTC().Truncate(time.Second),
		Machine: plan.Machine(), Samples: 2 * k.Samples}
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

// advise cuts the work as a large run does by default. said is the chunk that the
// catalogue asks for, 0 for none. Whether another batch is cheaper depends on the
// worker, which 'ops plan' knows.
func advise(c plan.Cost, said int) Advice {
	var a Advice
	if said == 0 {
		a.Chunk, a.Because = plan.ChunkSize(c, plan.LargeRun)
	} else {
		a.Chunk, a.Because = c.Bearable(said)
		a.Because = strings.TrimSuffix(fmt.Sprintf("the catalogue says chunks of %d; %s", said, a.Because), "; ")
	}
	a.Batch = plan.DefaultSetting().Batch(c, a.Chunk, math.MaxInt)
	return a
}
