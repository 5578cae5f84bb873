package plan

import (
	"fmt"
	"math"
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
