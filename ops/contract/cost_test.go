package contract

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
)

// What lies on a line is found again; nothing ever costs less than nothing, and
// the fit goes through the middle of what was measured.
func TestFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start, each := rapid.Float64Range(0, 100).Draw(t, "start"), rapid.Float64Range(0, 100).Draw(t, "each")
		noise := rapid.SampledFrom([]float64{0, 0.5, 5}).Draw(t, "noise")
		var points []point
		var n, y float64
		for _, size := range []float64{3, 3, 3, 6} {
			p := point{size, max(start+each*size+noise*rapid.Float64Range(-1, 1).Draw(t, "off"), 0.001)}
			points = append(points, p)
			n, y = n+p.n/4, y+p.y/4
		}
		s, e := fit(points)
		if noise == 0 && (math.Abs(s-start) > 0.01 || math.Abs(e-each) > 0.01) {
			t.Errorf("%g + n*%g was fitted as %g + n*%g", start, each, s, e)
		}
		if s < 0 || e < 0 || math.Abs(s+n*e-y) > 1e-6 {
			t.Errorf("the fit is %g + n*%g, the middle is %g at %g", s, e, y, n)
		}
	})
	if start, each := fit([]point{{3, 6}, {3, 12}}); start != 0 || each != 3 {
		t.Errorf("of one size alone: %g + n*%g, want 0 + n*3", start, each)
	}
	if start, each := fit(nil); start != 0 || each != 0 {
		t.Errorf("of nothing: %g + n*%g, want 0", start, each)
	}
}

func TestAdvise(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name         string
		cost         plan.Cost
		said         int
		chunk, batch int
		because      string
	}{
		{"as usual", plan.Cost{StartCPU: 1, SampleCPU: 0.5, Samples: 6, PeakRSS: 300 * mb}, 0, 50, 600, ""},
		{"a dear start", plan.Cost{StartCPU: 5, SampleCPU: 0.2, Samples: 6, PeakRSS: 300 * mb}, 0, 100, 600,
			"its start is 33 % of a chunk of 50"},
		{"a dear start and much memory", plan.Cost{StartCPU: 5, SampleCPU: 0.2, Samples: 6, PeakRSS: 300 * mb,
			SampleRSS: 40 * mb}, 0, 50, 600, ""},
		{"much memory", plan.Cost{StartCPU: 1, SampleCPU: 1, Samples: 6, PeakRSS: 1000 * mb, SampleRSS: 100 * mb}, 0, 10, 600,
			"a chunk of 50 would take 51 s of CPU and 5.7 GB"},
		{"slow", plan.Cost{StartCPU: 1, SampleCPU: 40, Samples: 6, PeakRSS: 300 * mb}, 0, 5, 30,
			"a chunk of 50 would take 2001 s of CPU and 0.3 GB"},
		{"more than there is", plan.Cost{StartCPU: 1, SampleCPU: 1, Samples: 6, PeakRSS: 9000 * mb}, 0, 50, 250,
			"a chunk of 50 would take 51 s of CPU and 9.4 GB"},
		{"no less than was seen", plan.Cost{StartCPU: 1, SampleCPU: 1, Samples: 6, PeakRSS: 2000 * mb, SampleRSS: 300 * mb},
			0, 5, 600, "a chunk of 50 would take 51 s of CPU and 15.9 GB"},
		{"far from what was measured", plan.Cost{SampleCPU: 1, Samples: 6, PeakRSS: 350 * mb, SampleRSS: 39 * mb}, 100, 100,
			400, "the catalogue says chunks of 100"},
		{"the catalogue's", plan.Cost{StartCPU: 1, SampleCPU: 1, Samples: 6, PeakRSS: 300 * mb}, 50, 50, 600,
			"the catalogue says chunks of 50"},
	} {
		a := advise(c.cost, c.said)
		if a.Chunk != c.chunk || a.Batch != c.batch || a.Because != c.because {
			t.Errorf("%s: %+v, want chunk %d, batch %d, because %q", c.name, a, c.chunk, c.batch, c.because)
		}
		if a.Batch%a.Chunk != 0 {
			t.Errorf("%s: %d is no multiple of %d", c.name, a.Batch, a.Chunk)
		}
	}
}
