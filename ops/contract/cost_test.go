package contract

import (
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
)

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
