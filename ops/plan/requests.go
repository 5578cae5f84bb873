package plan

import (
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/price"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Requests are the requests that are paid for.
type Requests struct {
	Invocations int `json:"invocations"`
	Queue       int `json:"queue"`
	Put         int `json:"put"` // S3: PUT, and the parts of a shard
	List        int `json:"list"`
	Get         int `json:"get"`
}

func (r *Requests) add(o Requests, times int) {
	r.Invocations += o.Invocations * times
	r.Queue += o.Queue * times
	r.Put += o.Put * times
	r.List += o.List * times
	r.Get += o.Get * times
}

const page = 1000 // how many keys S3 lists at a time

// work are the requests of one task that is delivered once and for which nothing is committed yet, by a worker that
// knows the dataset. TestRequests holds it to what a worker does.
func work(t task.Task, c Cost) Requests {
	r := Requests{Invocations: 1, Queue: 2} // received, deleted
	for _, chunk := range t.Chunks() {
		r.Put += 2 // the cell is taken, and committed
		if t.Format == task.Tar {
			r.Put += shardRequests(c.SampleBytes * int64(len(chunk.Kept())))
		} else {
			r.Put += c.SampleFiles * len(chunk.Kept())
		}
	}
	return r
}

// send are the requests that bring tasks into the queue.
func send(tasks int) Requests {
	const batch = 10
	return Requests{Queue: (tasks + batch - 1) / batch, Put: 1} // the run
}

// verify are the requests of one ops verify of a generator: every receipt is read, every object listed.
func verify(receipts, objects int) Requests {
	return Requests{Get: receipts, List: pages(receipts) + pages(objects)}
}

func shardRequests(bytes int64) int {
	if bytes < store.PartSize {
		return 1
	}
	const create, complete = 1, 1
	return create + int((bytes+store.PartSize-1)/store.PartSize) + complete
}

func pages(keys int) int { return max(1, (keys+page-1)/page) }

// Spent is what receipts show of what was spent. It is an estimate: a receipt has what its generator's process took,
// not how long the invocation lasted, and failed tries have no receipt.
type Spent struct {
	Samples     int      `json:"samples"`
	Receipts    int      `json:"receipts,omitempty"`
	CPUSeconds  float64  `json:"cpu_seconds"`    // of generators
	BusySeconds float64  `json:"worker_seconds"` // of the invocations, as the worker's memory and CPUs let them be
	Bytes       int64    `json:"bytes"`
	Requests    Requests `json:"requests,omitzero"`
	Dollars     float64  `json:"dollars"` // at AWS
}

// Add adds what so many samples cost that are like those of another one.
func (s *Spent) Add(other Spent, samples int) {
	share := float64(samples) / float64(max(other.Samples, 1))
	s.Samples += samples
	s.Receipts += other.Receipts
	s.CPUSeconds += other.CPUSeconds * share
	s.BusySeconds += other.BusySeconds * share
	s.Bytes += int64(float64(other.Bytes) * share)
	s.Dollars += other.Dollars * share
}

// Trace is what a receipt shows of its cost.
type Trace struct {
	RequestID string
	RunID     string
	Samples   int
	CPU, Wall float64 // seconds
	RSS       int64   // bytes
	Bytes     int64
	Objects   int
	Shard     int64 // bytes; 0 for none
	Committed time.Time
}

// TraceOf takes from a receipt what an estimate needs.
func TraceOf(r store.Receipt) Trace {
	t := Trace{RequestID: r.RequestID, RunID: r.RunID, Samples: len(r.Samples), CPU: r.CPUSeconds, Wall: r.WallSeconds,
		RSS: r.PeakRSSBytes, Committed: r.Committed}
	t.Objects, t.Bytes = r.Size()
	if r.Shard != nil {
		t.Shard = r.Shard.Size
	}
	return t
}

// Spent estimates what the tasks took that receipts are of: those with one request
// id were made by one invocation, side by side as far as the worker's CPUs reach.
func (w Worker) Spent(traces []Trace) Spent {
	var s Spent
	invocations := map[string][]Trace{}
	for _, t := range traces {
		invocations[t.RequestID] = append(invocations[t.RequestID], t)
		s.Samples += t.Samples
		s.Receipts++
		s.CPUSeconds += t.CPU
		s.Bytes += t.Bytes
		s.Requests.add(t.requests(), 1)
	}
	for _, list := range invocations {
		s.BusySeconds += w.invocation(list)
		s.Requests.add(Requests{Invocations: 1, Queue: 2}, 1)
	}
	s.Requests.add(send(len(invocations)), 1)
	logs := float64(s.Receipts*logOfChunk+len(invocations)*logOfTask) / price.BytesPerGB
	s.Dollars = w.dollars(s.BusySeconds) + s.Requests.dollars() + logs*price.LogGB.Dollars
	return s
}

// invocation is how long one took at least, in seconds: its chunks in the order in
// which they were committed, each on the first CPU that is free.
func (w Worker) invocation(list []Trace) float64 {
	slices.SortFunc(list, func(a, b Trace) int { return a.Committed.Compare(b.Committed) })
	slots := w.CPUs()
	for _, t := range list {
		slots = min(slots, max(int(w.room()/float64(max(t.RSS, 1))), 1))
	}
	free := make([]float64, slots)
	cpu := 0.0
	for _, t := range list {
		at := slices.Index(free, slices.Min(free))
		free[at] += t.Wall*w.slower() + requestsBefore*requestTime.Seconds()
		cpu += t.CPU * w.slower()
	}
	last := list[len(list)-1]
	return max(slices.Max(free), cpu/w.Share()) + w.store(1, last.Bytes, last.Objects)
}

func (t Trace) requests() Requests {
	r := Requests{Put: 2 + t.Objects}
	if t.Shard > 0 {
		r.Put = 2 + shardRequests(t.Shard)
	}
	return r
}

// Part is what so many of the run's samples take.
func (e *Estimate) Part(samples int) Spent {
	share := float64(samples) / float64(max(e.Samples, 1))
	return Spent{Samples: samples, CPUSeconds: e.CPUSeconds * share, BusySeconds: e.BusySeconds * share,
		Bytes: int64(float64(e.Bytes) * share), Dollars: e.Make * share}
}
