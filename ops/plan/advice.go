package plan

import (
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Advice is how a run would be cheaper.
type Advice struct {
	MemoryMB  int     `json:"memory_mb"`
	Batch     int     `json:"batch"`
	ChunkSize int     `json:"chunk_size"`
	Dollars   float64 `json:"dollars"` // of the run with them
	Saves     float64 `json:"saves"`   // part of the dollars without
}

// What advice keeps to.
const (
	// A task that takes longer than this loses much when its worker is killed, and a
	// heavy tail may bring it to the end of its time.
	longTask = 5 * time.Minute
	// Another batch has to save so much: what is measured is no better.
	worthIt = 0.03
	// Less memory is fewer CPUs, so as many more workers are needed to be as quick;
	// another chunk size makes other samples. They have to save more.
	worthMore = 0.1
	// More waves of chunks than this make no difference.
	mostWaves = 6
)

// Advise searches for the memory and the batch with which a run is cheapest, and for
// the chunk size if that saves much more. Of equals it takes what the run has,
// else the smaller batch. The first result keeps the chunk size; the second does not,
// and is nil if that is not worth it.
//
// Lambda's price is for memory and time together, and CPUs come with the memory.
// So what differs is how much of the CPUs a task uses: its last wave of chunks
// leaves some idle, and chunks that need much memory leave them idle all the time.
func Advise(run task.Run, costs map[string]Cost, s Setting) (same Advice, other *Advice) {
	now := choice{s.MemoryMB, run.Batch, run.ChunkSize}
	before := now.dollars(run, costs, s)
	best := func(sizes []int) (choice, float64) {
		top, least := now, before
		for _, memory := range memories(s.MemoryMB) {
			worth := worthIt
			if memory != s.MemoryMB {
				worth = worthMore
			}
			for _, size := range sizes {
				for n := 1; n*size <= task.MaxSamples && n <= mostWaves*maxCPUs; n++ {
					c := choice{memory, n * size, size}
					if d := c.dollars(run, costs, s); d > 0 && (least == 0 || d < least*(1-worth)) {
						top, least = c, d
					}
				}
			}
		}
		return top, least
	}
	top, least := best([]int{run.ChunkSize})
	same = top.advice(before, least)
	sizes := slices.DeleteFunc([]int{5, 10, 20, 25, 50, 100}, func(n int) bool { return n == run.ChunkSize })
	if c, d := best(sizes); d > 0 && (least == 0 || d < least*(1-worthMore)) {
		a := c.advice(before, d)
		other = &a
	}
	return same, other
}

// memories are the sizes that are tried: what the stack has, what there is at most,
// and full CPUs.
func memories(now int) []int {
	list := []int{now, 10240}
	for n := maxCPUs - 1; n > 0; n-- {
		list = append(list, n*MegabytesPerCPU)
	}
	return list
}

// choice is one combination.
type choice struct{ memory, batch, chunk int }

func (c choice) advice(before, dollars float64) Advice {
	a := Advice{MemoryMB: c.memory, Batch: c.batch, ChunkSize: c.chunk, Dollars: dollars}
	if before > 0 {
		a.Saves = 1 - dollars/before
	}
	return a
}

// dollars is what the samples of a run cost with a choice, by the cost of one task; 0
// if it cannot work.
func (c choice) dollars(run task.Run, costs map[string]Cost, s Setting) float64 {
	w := s.Worker
	w.MemoryMB = c.memory
	total := 0.0
	for _, g := range run.Generators {
		size, batch := c.chunk, c.batch
		if g.ChunkSize > 0 { // the catalogue's own
			size = g.ChunkSize
		}
		if c.batch == run.Batch && c.chunk == run.ChunkSize {
			batch = run.BatchOf(g)
		}
		cost := costs[g.Name]
		t := task.Task{Generator: g.Name, NumSamples: min(batch, run.Samples), Format: run.Format, ChunkSize: size}
		k := w.AtOnce(cost, size)
		if k == 0 || w.chunk(cost, size, k) > w.Limit().Seconds() {
			return 0
		}
		one := w.task(t, cost)
		if long := min(longTask, w.Limit()).Seconds(); one.TaskSeconds > long && one.Chunks > k {
			return 0
		}
		total += (w.dollars(one.BusySeconds) + one.requests.dollars()) * float64(run.Samples) / float64(one.Samples)
	}
	return total
}
