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
// is committed yet. TestRequests holds it to what a worker does.
//
// A receipt is looked for from task.MaxSpan before the first index on, so a worker
// lists that many indices' receipts, too: a page of them with chunks of 20.
func work(t task.Task, c Cost) Requests {
	chunks := t.Chunks()
	span := min(t.Range().Start, task.MaxSpan)
	look := pages(span/t.ChunkSize + len(chunks))
	r := Requests{Invocations: 1, Queue: 2, List: look} // received, deleted
	for _, chunk := range chunks {
		const claim, receipt, release = 1, 1, 1
		r.Put += claim + receipt + release
		r.List += 1 + look // the cell's claims, the receipts
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
