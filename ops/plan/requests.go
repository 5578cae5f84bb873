package plan

import (
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

// page is how many keys S3 lists at a time.
const page = 1000

// work are the requests of one task that is delivered once and for which nothing
// is committed yet, by a worker that knows the dataset. TestRequests holds it to what a
// worker does.
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

// verify are the requests of one ops verify of a generator: every receipt is read,
// every object listed.
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
