package plan

import (
	"math"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/price"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Spent is what receipts show of what was spent. It is an estimate: a receipt tells
// what its generator's process took, not how long the invocation lasted, and
// nothing tells of tries that failed.
type Spent struct {
	Samples     int      `json:"samples"`
	Receipts    int      `json:"receipts"`
	CPUSeconds  float64  `json:"cpu_seconds"`    // of generators
	BusySeconds float64  `json:"worker_seconds"` // of the invocations, as the worker's memory and CPUs let them be
	Bytes       int64    `json:"bytes"`
	Requests    Requests `json:"requests"`
	Dollars     float64  `json:"dollars"` // at AWS
}

// Spent reckons what the tasks took that receipts tell of: those with one request
// id were made by one invocation, side by side as far as the worker's CPUs reach.
func (w Worker) Spent(receipts []store.Receipt) Spent {
	var s Spent
	invocations := map[string][]store.Receipt{}
	for _, r := range receipts {
		invocations[r.RequestID] = append(invocations[r.RequestID], r)
		s.Samples += len(r.Samples)
		s.Receipts++
		s.CPUSeconds += r.CPUSeconds
		s.Bytes += r.Bytes()
	}
	for _, list := range invocations {
		s.BusySeconds += w.invocation(list)
		s.Requests.add(Requests{Invocations: 1, Queue: 2, List: 1}, 1)
		for _, r := range list {
			s.Requests.add(committed(r), 1)
		}
	}
	// A request of the sender carries ten tasks.
	s.Requests.Queue += (len(invocations) + 9) / 10
	s.Dollars = w.dollars(s.BusySeconds) + s.Requests.dollars() + float64(s.Receipts*logOfChunk+len(invocations)*logOfTask)/price.BytesPerGB*price.LogGB.Dollars
	return s
}

// invocation is how long one took at least, in seconds: its chunks in the order in
// which they were committed, each on the first CPU that is free.
func (w Worker) invocation(list []store.Receipt) float64 {
	slices.SortFunc(list, func(a, b store.Receipt) int { return a.Committed.Compare(b.Committed) })
	slots := w.CPUs()
	for _, r := range list {
		slots = min(slots, max(int(w.room()/float64(max(r.PeakRSSBytes, 1))), 1))
	}
	free := make([]float64, slots)
	cpu := 0.0
	for _, r := range list {
		at := slices.Index(free, slices.Min(free))
		free[at] += r.WallSeconds*w.slower() + requestsBefore*requestTime.Seconds()
		cpu += r.CPUSeconds * w.slower()
	}
	last := list[len(list)-1]
	return max(slices.Max(free), cpu/w.Share()) + requestTime.Seconds() + w.store(1, last.Bytes(), len(last.ObjectKeys()))
}

// committed are the requests to S3 that a receipt tells of.
func committed(r store.Receipt) Requests {
	c := Requests{Put: 3, List: 3}
	if r.Format == task.Tar && r.Shard != nil {
		c.Put += shardRequests(r.Shard.Size)
	} else {
		c.Put += len(r.ObjectKeys())
	}
	return c
}

// Scale returns what so many samples took if those that were looked at are like
// the others.
func (s Spent) Scale(samples int) Spent {
	if s.Samples == 0 || s.Samples == samples {
		return s
	}
	factor := float64(samples) / float64(s.Samples)
	times := func(n int) int { return int(math.Round(float64(n) * factor)) }
	return Spent{
		Samples: samples, Receipts: times(s.Receipts), CPUSeconds: s.CPUSeconds * factor, BusySeconds: s.BusySeconds * factor, Bytes: int64(float64(s.Bytes) * factor), Dollars: s.Dollars * factor,
		Requests: Requests{times(s.Requests.Invocations), times(s.Requests.Queue), times(s.Requests.Put), times(s.Requests.List), times(s.Requests.Get)},
	}
}

// Add returns both together.
func (s Spent) Add(o Spent) Spent {
	s.Samples, s.Receipts, s.Bytes = s.Samples+o.Samples, s.Receipts+o.Receipts, s.Bytes+o.Bytes
	s.CPUSeconds, s.BusySeconds, s.Dollars = s.CPUSeconds+o.CPUSeconds, s.BusySeconds+o.BusySeconds, s.Dollars+o.Dollars
	s.Requests.add(o.Requests, 1)
	return s
}
