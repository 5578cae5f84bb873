package plan

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/price"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Place is where a run could be made, and what it takes there.
type Place struct {
	Name     string        `json:"name"`
	Workers  int           `json:"workers"` // at once: invocations, containers or instances
	CPUs     float64       `json:"cpus"`    // of all of them
	Seconds  float64       `json:"seconds"` // from the first task on
	Compute  float64       `json:"dollars_compute"`
	Dollars  float64       `json:"dollars"` // to make the run, compute included
	Prices   []price.Price `json:"prices,omitzero"`
	Problems []string      `json:"problems,omitempty"` // why it cannot work there
}

// What a spot machine is: the size of Fargate's containers and of EC2's instances (c7i.xlarge) in the
// fleet of a stack, each with one worker.
const (
	SpotCPUs = 4
	spotGB   = 8
)

// What could not be measured here and is assumed of a fleet.
const (
	fargateStart = 3 * time.Minute // from the first task to the first container at work: the alarm, the image
	ec2Start     = 5 * time.Minute // and an instance that starts
	fleetIdle    = 5 * time.Minute // paid after the last task, until the fleet is gone
)

// Names of the places.
const (
	OnLambda  = "Lambda, x86_64"
	OnARM     = "Lambda, arm64"
	OnFargate = "Fargate spot"
	OnEC2     = "EC2 spot"
	Here      = "this machine"
)

// Compare estimates a run in the places where it could be made: Lambda with both instruction sets,
// fleets of spot machines that have at least as many CPUs together, or MostWorkers, and this machine with so many
// CPUs, which costs nothing with the local stack. ARM is taken to be as fast as x86_64, and a CPU of a
// spot machine as one of Lambda. Costs must be known.
func Compare(run task.Run, costs map[string]Cost, s Setting, cpus int) ([]Place, error) {
	var list []Place
	for _, l := range []struct {
		name, architecture string
		memory             price.Price
	}{{OnLambda, price.X86, price.GBSecondX86}, {OnARM, price.ARM, price.GBSecondARM}} {
		s := s
		s.Architecture = l.architecture
		e, err := Of(run, costs, s)
		if err != nil {
			return nil, err
		}
		list = append(list, Place{Name: l.name, Workers: s.Concurrency, CPUs: s.Share() * float64(s.Concurrency),
			Seconds: e.takes(s.Concurrency), Compute: e.compute(), Dollars: e.Make, Problems: e.Problems,
			Prices: []price.Price{l.memory, price.DiskGBSecond, price.Invocation}})
	}
	fleet := s
	fleet.MemoryMB = SpotCPUs * MegabytesPerCPU // a little less than it has: as many CPUs' share
	fleet.Concurrency = min(max(int(math.Ceil(s.Share()*float64(s.Concurrency)/SpotCPUs)), 1), MostWorkers)
	e, err := Of(run, costs, fleet)
	if err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name   string
		start  time.Duration
		hour   float64 // USD of one machine
		prices []price.Price
	}{
		{OnFargate, fargateStart, SpotCPUs*price.FargateSpotCPU.Dollars + spotGB*price.FargateSpotGB.Dollars,
			[]price.Price{price.FargateSpotCPU, price.FargateSpotGB, price.Address}},
		{OnEC2, ec2Start, SpotCPUs * price.EC2Spot.Dollars, []price.Price{price.EC2Spot, price.Address}},
	} {
		p := Place{Name: f.name, Workers: fleet.Concurrency, CPUs: float64(SpotCPUs * fleet.Concurrency),
			Prices: f.prices, Problems: e.Problems}
		if e.Tasks > 0 {
			work := e.shared(fleet.Concurrency)
			p.Seconds = f.start.Seconds() + work
			paid := (p.Seconds + fleetIdle.Seconds()) / 3600
			p.Compute = float64(min(fleet.Concurrency, e.Tasks)) * paid * (f.hour + price.Address.Dollars)
		}
		p.Dollars = p.Compute + e.Make - e.compute()
		list = append(list, p)
	}
	here := Place{Name: Here, Workers: 1, CPUs: float64(cpus), Seconds: e.CPUSeconds / float64(cpus)}
	return append(list, here), nil
}

// compute is what a run's workers cost in Lambda: the first items of the bill.
func (e *Estimate) compute() float64 {
	return e.Items[0].Dollars + e.Items[1].Dollars + e.Items[2].Dollars
}

// shared is how long so many workers take together that all begin at once, in seconds. At the end
// some wait for the last.
func (e *Estimate) shared(workers int) float64 {
	if e.Tasks <= workers {
		return e.longest
	}
	return max(e.BusySeconds/float64(workers)+e.longest/2, e.longest)
}

// What a recommendation of a place keeps to.
const (
	soonHere   = time.Hour // this machine is recommended if it takes no longer: nothing is to be set up
	worthSetup = 1.0       // USD that a place must save against the first, beside a tenth of it
)

// Recommend returns the best of the places that Compare returned, and why. It is the zero Place if the
// run can work nowhere.
func Recommend(list []Place) (best Place, why string) {
	var first Place // that works: what a stack has unless it is configured otherwise
	for _, p := range list {
		saves := first.Dollars - p.Dollars
		switch {
		case len(p.Problems) > 0:
		case p.Name == Here:
			if best.Name == "" || p.Seconds <= soonHere.Seconds() {
				return p, "it costs nothing"
			}
		case first.Name == "":
			first, best = p, p
		case p.Dollars < best.Dollars && saves >= max(worthSetup, worthMore*first.Dollars):
			best = p
		}
	}
	if best.Name == first.Name {
		return best, "no other saves a tenth of it and a dollar"
	}
	return best, fmt.Sprintf("it saves %.0f %% of %s", 100*(1-best.Dollars/first.Dollars), first.Name)
}

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

// Advise searches for the memory and the batch with which a run is cheapest, and for the chunk size if that saves much
// more. Of equals it takes what the run has, else the smaller batch. The first result keeps the chunk size; the second
// does not, and is nil if that is not worth it.
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

// memories are the sizes that are tried: what the stack has, what there is at most, and full CPUs.
func memories(now int) []int {
	list := []int{now, 10240}
	for n := maxCPUs - 1; n > 0; n-- {
		list = append(list, n*MegabytesPerCPU)
	}
	return list
}

type choice struct{ memory, batch, chunk int }

func (c choice) advice(before, dollars float64) Advice {
	a := Advice{MemoryMB: c.memory, Batch: c.batch, ChunkSize: c.chunk, Dollars: dollars}
	if before > 0 {
		a.Saves = 1 - dollars/before
	}
	return a
}

// dollars is what the samples of a run cost with a choice, by the cost of one task; 0 if it cannot work.
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
