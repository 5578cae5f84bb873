package plan

import (
	"fmt"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// LargeRun is how many samples of a generator make a run a large one. In it the start of each process is what chunks
// can save: 6.2 % of the CPU of 45 generators with chunks of 20, 2.6 % with 50. In a smaller one a chunk that is not
// asked for in all costs more than that, and so does a CPU that gets none.
const LargeRun = 1000

// What a cut goes by. Lambda gives CPUs in proportion to the memory, so what comes with one is a generator's share; a
// chunk that dies is made again in full, so it should not take long.
const (
	shareOfMemory = MegabytesPerCPU << 20 // bytes
	longChunk     = 300.0                 // seconds
	dearStart     = 0.25                  // part of a chunk's CPU
	largestChunk  = 100
)

// Chunk sizes of a small and of a large run, in samples.
const (
	SmallChunk = task.DefaultChunkSize
	LargeChunk = 50
)

// A task of more samples saves nothing that counts, and loses more when its worker is killed. Nor should it take more
// than this part of the worker's time: what a heavy tail adds must not bring it to the end.
const (
	usualBatch = 600
	partOfTime = 3
	// Workers that have several tasks each are done at about the same time.
	tasksPerWorker = 4
)

// ChunkSize returns how many samples one process should make of so many: 50 of a large run, 20 of a small one; 100 of a
// large one if starting takes more than a quarter of a chunk, and fewer if a chunk would take too long or too much
// memory. because gives the reason if it is neither 50 nor 20. A zero Cost is one that was not measured.
func ChunkSize(c Cost, samples int) (size int, because string) {
	if samples < LargeRun {
		size = SmallChunk
	} else if size = LargeChunk; c.SampleCPU > 0 && // samples that cost nothing were not measured
		c.StartCPU/c.CPU(size) > dearStart && c.fits(largestChunk) {
		return largestChunk, fmt.Sprintf("its start is %.0f %% of a chunk of %d", 100*c.StartCPU/c.CPU(size), size)
	}
	return c.Bearable(size)
}

// fits reports whether a chunk is short and small enough. None is known to take less memory than was seen.
func (c Cost) fits(n int) bool {
	return c.CPU(n) <= longChunk && c.Memory(n) <= max(shareOfMemory, c.PeakRSS)
}

// Bearable returns the chunk size if a chunk of it is neither too long nor takes too
// much memory, else the largest smaller one that fits, and why.
//
// Growth that was seen over a few samples predicts little of many: of one generator 3 and 6 samples foretold 4.0 GB for
// 100, which took 0.5 GB. So it is no reason for smaller chunks beyond five times of what was measured.
func (c Cost) Bearable(size int) (int, string) {
	if c.CPU(size) <= longChunk && c.Memory(min(size, 5*c.Samples)) <= shareOfMemory {
		return size, ""
	}
	because := fmt.Sprintf("a chunk of %d would take %.0f s of CPU and %.1f GB", size, c.CPU(size),
		float64(c.Memory(size))/1e9)
	smaller := []int{size, 50, 25, 20, 10, 5, 2, 1}
	if i := slices.IndexFunc(smaller, func(n int) bool { return n <= size && c.fits(n) }); i >= 0 {
		return smaller[i], because
	}
	return 1, because
}

// Batch returns how many samples a task of a generator should have: as many chunks as run side by side, so that all
// CPUs are at work to its end, and that as often as gives about 600 samples, or as fills a third of the worker's time.
// Of a run of few samples, of all generators together, it is less: so that each worker gets something to do.
func (s Setting) Batch(c Cost, chunk, samples int) int {
	atOnce := max(s.AtOnce(c, chunk), 1)
	wave := chunk * atOnce
	n := max(min(usualBatch, samples/max(tasksPerWorker*s.Concurrency, 1))/wave, 1)
	for n > 1 && s.Task(c, chunk, n*atOnce, int64(chunk)*c.SampleBytes,
		c.objects(task.Files, chunk)) > s.Limit().Seconds()/partOfTime {
		n--
	}
	return min(n*wave, max(task.MaxSamples/chunk, 1)*chunk)
}
