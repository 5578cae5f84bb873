package plan

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Large runs have larger chunks, small ones are as quick as they were, and a task
// keeps all CPUs of its worker at work.
func TestCut(t *testing.T) {
	ours := Cost{Samples: 10, StartCPU: 0.24, SampleCPU: 0.23, PeakRSS: 95 << 20}
	slow := Cost{Samples: 10, StartCPU: 1, SampleCPU: 5, PeakRSS: 95 << 20}
	local := func(cpus, workers int) Setting {
		s := DefaultSetting()
		s.MemoryMB, s.Concurrency = cpus*MegabytesPerCPU, workers
		return s
	}
	for _, test := range []struct {
		name         string
		cost         Cost
		s            Setting
		samples      int // of each generator
		generators   int
		chunk, batch int
	}{
		{"not measured", Cost{}, DefaultSetting(), 10_000, 5, 50, 600},
		{"ours", ours, DefaultSetting(), 10_000, 5, 50, 600},
		{"a first run", ours, DefaultSetting(), 20, 5, 20, 120},
		{"a small run", ours, DefaultSetting(), 999, 1, 20, 120},
		{"just large", ours, DefaultSetting(), LargeRun, 1, 50, 300},
		{"a third of the time", slow, DefaultSetting(), 10_000, 5, 50, 300},
		{"small, of many", ours, DefaultSetting(), 500, 45, 20, 480},
		{"as many workers as there may be", ours, Setting{Worker: DefaultWorker(), Concurrency: 900}, 10_000, 5, 50, 300},
		{"here, a first run", ours, local(1, 2), 20, 5, 20, 20},
		{"here", ours, local(1, 8), 10_000, 5, 50, 600},
		{"here, one generator", ours, local(1, 8), 1000, 1, 50, 50},
		{"two CPUs", ours, local(2, 10), 10_000, 5, 50, 600},
	} {
		chunk, because := ChunkSize(test.cost, test.samples)
		if batch := test.s.Batch(test.cost, chunk, test.samples*test.generators); chunk != test.chunk ||
			batch != test.batch || because != "" {
			t.Errorf("%s: chunks of %d (%s), batches of %d; want %d, %d", test.name, chunk, because, batch, test.chunk,
				test.batch)
		}
	}
}

// A batch is full chunks, and no task exceeds the limits. A small run never
// has larger chunks than by default, however dear a start is.
func TestCuts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cost := Cost{
			Samples: rapid.IntRange(1, 50).Draw(t, "measured"), StartCPU: rapid.Float64Range(0, 500).Draw(t, "start"),
			SampleCPU: rapid.Float64Range(0, 50).Draw(t, "sample"),
			PeakRSS:   rapid.Int64Range(0, 12<<30).Draw(t, "rss"), SampleRSS: rapid.Int64Range(0, 100<<20).Draw(t, "growth"),
		}
		samples := rapid.IntRange(1, task.MaxIndex).Draw(t, "samples")
		s := Setting{Worker: memory(rapid.IntRange(128, 10240).Draw(t, "memory")),
			Concurrency: rapid.IntRange(1, 1000).Draw(t, "concurrency")}
		chunk, because := ChunkSize(cost, samples)
		if usual := map[bool]int{true: 50, false: 20}[samples >= LargeRun]; chunk < 1 || chunk > 100 || chunk > usual &&
			samples < LargeRun || chunk != usual && because == "" {
			t.Errorf("%d samples in chunks of %d: %s", samples, chunk, because)
		}
		chunk = rapid.SampledFrom([]int{chunk, 1, 7, 300, 1000}).Draw(t, "chunk")
		if batch := s.Batch(cost, chunk, samples); batch < chunk || batch%chunk != 0 || batch > task.MaxSamples {
			t.Errorf("batches of %d in chunks of %d", batch, chunk)
		}
	})
}
