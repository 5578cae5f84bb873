package local

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/workers"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Every way in which a generator goes wrong ends in whole data or in a failure
// report with the right cause, and leaves nothing in the temporary folders.
func TestEveryFault(t *testing.T) {
	r := up(t, folder(t), Config{Workers: 4, retryDelays: "1"}) // no second delivery: TestRetriesEnd has those
	for _, test := range []struct {
		name  string
		cause task.Cause // "" for whole data
	}{
		{"good", ""}, {"restless", ""}, {"crash-odd", ""}, {"daemon", ""}, {"noisy", ""}, {"peek", ""}, {"shared-tmp", ""},
		{"outside", ""},
		{"crash", task.Crashed}, {"no-module", task.Environment}, {"usage", task.Environment}, {"memory", task.OutOfMemory},
		{"killed", task.OutOfMemory},
		{"few", task.IncompleteOutput}, {"many", task.IncompleteOutput}, {"none", task.IncompleteOutput},
		{"no-video", task.IncompleteOutput},
		{"truncated", task.CorruptOutput}, {"bad-picture", task.CorruptOutput}, {"link", task.UnsafeOutput},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := &rig{Stack: r.Stack, store: r.store, t: t, sqs: r.sqs, dir: r.dir, seen: r.seen}
			x := task.Task{Generator: test.name, NumSamples: 10, Seed: 7}
			if test.cause != "" {
				x.NumSamples = 5 // a chunk that fails is made up to six times
			}
			id := r.sendTask(x)
			if test.cause == "" {
				eventually(t, "both chunks are committed", func() bool { return len(r.receipts(test.name)) == 2 })
				r.holds(test.name, task.Range{Start: 0, End: 10})
				return
			}
			eventually(t, "there is a failure report", func() bool { return len(r.failures(test.name)) > 0 })
			for _, f := range r.failures(test.name) {
				if f.Cause != test.cause || f.Detail == "" || len(f.Command) == 0 {
					t.Errorf("reported %s (%s), command %v; want %s", f.Cause, f.Detail, f.Command, test.cause)
				}
			}
			if got := r.receipts(test.name); len(got) > 0 {
				t.Errorf("%d receipts were written", len(got))
			}
			if len(r.stored(test.name)) > 0 {
				t.Errorf("%d objects were stored", len(r.stored(test.name)))
			}
			if !test.cause.Policy().Retry {
				eventually(t, "the task is in the DLQ", func() bool { return r.dead(id) != nil })
			}
		})
	}
	t.Cleanup(func() {
		// Some of them may be delivered again.
		eventually(t, "nothing is left in the temporary folders", func() bool { return len(r.leftovers()) == 0 })
		if out, _ := exec.Command("pgrep", "-f", "sleep 765[45]").Output(); len(out) > 0 {
			t.Errorf("a generator's daemon is alive: %s", out)
		}
		if found, _ := filepath.Glob(filepath.Join(r.dir, "*", "outside_task")); len(found) > 0 {
			t.Errorf("a generator wrote outside its folder: %v", found)
		}
	})
}

// What is tried again comes into the DLQ after its third delivery, as it was sent.
func TestRetriesEnd(t *testing.T) {
	t.Parallel()
	r := up(t, folder(t), Config{Workers: 2})
	id := r.sendTask(task.Task{Generator: "crash", NumSamples: 10, Seed: 7})
	eventually(t, "the task is in the DLQ", func() bool { return r.dead(id) != nil })
	d := r.dead(id)
	if d[task.AttributeCause] != string(task.Crashed) || d[task.AttributeReceives] != "3" ||
		!strings.Contains(d["detail"], "no puzzle for seed") {
		t.Errorf("the DLQ has %v", d)
	}
	if back, err := task.Parse([]byte(d["body"]), id); err != nil || back.Seed != 7 || back.NumSamples != 10 {
		t.Errorf("the dead task is %s, %v", d["body"], err)
	}
	if len(r.receipts("crash")) > 0 || len(r.stored("crash")) > 0 {
		t.Errorf("something was stored")
	}
}

// A stack can require more of samples than their generators do.
func TestRequiredFiles(t *testing.T) {
	t.Parallel()
	r := up(t, folder(t), Config{Workers: 1, Required: []string{"rubric.txt"}})
	r.sendTask(task.Task{Generator: "good", NumSamples: 5, Seed: 7})
	eventually(t, "there is a failure report", func() bool { return len(r.failures("good")) > 0 })
	if f := r.failures("good")[0]; f.Cause != task.IncompleteOutput || !strings.Contains(f.Detail, "has no rubric.txt") {
		t.Errorf("reported %s (%s)", f.Cause, f.Detail)
	}
}

// A message that is no task is refused by name on its first delivery and lies in
// the DLQ as it was sent.
func TestInvalidTasks(t *testing.T) {
	t.Parallel()
	r := up(t, folder(t), Config{})
	bodies := map[string]string{
		`{"type":"good","num_samples":1,"sed":7}`:                    "sed",
		`{"type":"../good","num_samples":1}`:                         "type",
		`{"type":"good","num_samples":-1}`:                           "num_samples",
		`{"type":"good","num_samples":1,"start_index":99999999999}`:  "start_index",
		`{"type":"good","num_samples":"1"}`:                          "num_samples",
		`not JSON`:                                                   "not JSON",
		`{"type":"nobody","num_samples":1}`:                          "nobody",
		`{"type":"good","num_samples":1,"seed":1,"overwrite":"yes"}`: "overwrite",
	}
	ids := map[string]string{}
	for body := range bodies {
		ids[body] = r.send(body)
	}
	r.idle()
	for body, word := range bodies {
		d := r.dead(ids[body])
		if d == nil { // there were more than ten
			d = r.dead(ids[body])
		}
		cause := task.InvalidTask
		if word == "nobody" {
			cause = task.UnknownGenerator
		}
		if d == nil || d[task.AttributeCause] != string(cause) || !strings.Contains(d[task.AttributeDetail], word) ||
			d[task.AttributeReceives] != "1" {
			t.Errorf("%s lies in the DLQ as %v", body, d)
		}
		if cause == task.InvalidTask && d["body"] != body {
			t.Errorf("%s became %s", body, d["body"])
		}
	}
	if n := len(r.failures(task.InvalidFailure)); n != len(bodies)-1 {
		t.Errorf("%d reports of invalid tasks, want %d", n, len(bodies)-1)
	}
}

// Two copies of a task at once, and a task delivered three times, make each
// sample once, also when the bytes differ each time.
func TestDoubleDelivery(t *testing.T) {
	t.Parallel()
	r := up(t, folder(t), Config{Workers: 3})
	for range 3 {
		r.sendTask(task.Task{Generator: "restless", NumSamples: 15, Seed: 9})
		r.sendTask(task.Task{Generator: "slow", NumSamples: 10, Seed: 9})
	}
	eventually(t, "all is committed", func() bool {
		return len(r.receipts("restless")) == 3 &&
			len(r.receipts("slow")) == 2
	})
	r.idle()
	r.holds("restless", task.Range{Start: 0, End: 15})
	r.holds("slow", task.Range{Start: 0, End: 10})
}

// proxy stands between workers and bucket and may swallow requests.
func proxy(t *testing.T, intercept func(w http.ResponseWriter,
	r *http.Request) bool) func(stack.Outputs) stack.Outputs {
	var mu sync.Mutex
	var server *httptest.Server
	return func(o stack.Outputs) stack.Outputs {
		mu.Lock()
		defer mu.Unlock()
		if server != nil {
			o.S3Endpoint = server.URL
			return o
		}
		target, err := url.Parse(o.S3Endpoint)
		if err != nil {
			t.Error(err)
			return o
		}
		forward := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host // it is signed
		}, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) }}
		server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !intercept(w, r) {
				forward.ServeHTTP(w, r)
			}
		}))
		t.Cleanup(server.Close)
		o.S3Endpoint = server.URL
		return o
	}
}

// A worker that is killed between its objects and its receipt, new or one that it
// restores, leaves nothing that counts; the next delivery makes it whole.
func TestWorkerKilledBeforeItsReceipt(t *testing.T) {
	for _, run := range []struct {
		name    string
		restore bool
	}{{"new", false}, {"restore", true}} {
		t.Run(run.name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t)
			var kills atomic.Int32
			var armed atomic.Bool
			armed.Store(!run.restore)
			front := proxy(t, func(w http.ResponseWriter, r *http.Request) bool {
				if !armed.Load() || r.Method != http.MethodPut ||
					!strings.Contains(r.URL.Path, task.DefaultDataset.Prefix(task.ReceiptKind)) {
					return false
				}
				text, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				r.Body = io.NopCloser(bytes.NewReader(text))
				if commits := !bytes.Contains(text, []byte(`"holder"`)); commits && kills.Add(1) <= 2 {
					killWorkers(t, dir)
					return true
				}
				return false
			})
			r := up(t, dir, Config{Workers: 1, front: front})
			x := task.Task{Generator: "restless", NumSamples: 5, Seed: 1}
			if run.restore {
				r.sendTask(x)
				r.idle()
				x.RunID, x.Restore = "r2", r.receipts("restless")[0].Epoch
				armed.Store(true)
			}
			r.sendTask(x)
			eventually(t, "the worker was killed", func() bool { return kills.Load() >= 1 })
			r.idle()
			r.holds("restless", task.Range{Start: 0, End: 5})
			list := r.receipts("restless")
			if len(list) != 1 || list[0].RunID != x.RunID || list[0].RunSeed != x.Seed || !run.restore && list[0].Epoch < 2 {
				t.Errorf("committed: %+v", list)
			}
		})
	}
}

// killWorkers kills the worker processes of the stack in a folder.
func killWorkers(t *testing.T, dir string) {
	out, _ := exec.Command("pgrep", "-P", fmt.Sprint(os.Getpid())).Output()
	for _, pid := range strings.Fields(string(out)) {
		env, err := os.ReadFile("/proc/" + pid + "/environ")
		if err == nil && bytes.Contains(env, []byte(workers.Variable+"=")) && bytes.Contains(env, []byte(dir+"/")) {
			var n int
			_, _ = fmt.Sscan(pid, &n)
			if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
				t.Log(err)
			}
		}
	}
}

// The first message makes the dataset. One that says less goes by it, and one that
// contradicts it, or what is committed, is refused with the way out.
func TestContradictions(t *testing.T) {
	t.Parallel()
	r := up(t, folder(t), Config{})
	r.sendTask(task.Task{Generator: "good", NumSamples: 10, Seed: 1, Format: task.Tar, ChunkSize: 5})
	r.idle()
	r.sendTask(task.Task{Generator: "good", StartIndex: 10, NumSamples: 10, Seed: 2})
	r.idle()
	r.holds("good", task.Range{Start: 0, End: 20})
	for _, receipt := range r.receipts("good") {
		if receipt.ChunkSize != 5 || receipt.Format != task.Tar || receipt.RunSeed != 1+receipt.Start/10 {
			t.Errorf("committed: %+v", receipt)
		}
	}
	for _, test := range []struct {
		task task.Task
		want string
	}{
		{task.Task{Generator: "good", NumSamples: 5, Seed: 1, ChunkSize: 20},
			"dataset v1 has chunks of 5, not of 20, of good: ops submit --dataset v2 makes another dataset"},
		{task.Task{Generator: "good", NumSamples: 5, Seed: 1, Format: task.Files},
			"dataset v1 has the format tar, not files: ops submit --dataset v2 makes another dataset"},
		{task.Task{Generator: "good", NumSamples: 5, Seed: 1, RunID: "r"},
			"dataset v1 has the seed 42, not 1: ops submit --dataset v2 makes another dataset"},
		{task.Task{Generator: "good", NumSamples: 5, Seed: 9}, "are committed with seed 1, this task has seed 9"},
		{task.Task{Dataset: "gone", Generator: "good", NumSamples: 5, Seed: 42, RunID: "r"},
			"dataset gone has no manifest: it was deleted"},
	} {
		id := r.sendTask(test.task)
		r.idle()
		if d := r.dead(id); d[task.AttributeCause] != string(task.Conflict) || !strings.Contains(d[task.AttributeDetail],
			test.want) {
			t.Errorf("%s: the DLQ has %v, want %s", test.task.Body(), d, test.want)
		}
	}
}

// When the time of an invocation runs out, what is finished is committed and the
// rest sent on; when nothing is ever finished, the cause is timed_out.
func TestDeadline(t *testing.T) {
	t.Parallel()
	const timeout = 7 * time.Second // of which 2 s are kept back
	const chunks = 12               // of more than 0.5 s: at most ten in an invocation, for a worker makes one at a time
	r := up(t, folder(t), Config{Workers: max(2, runtime.NumCPU()), Timeout: timeout, Visibility: timeout + 5*time.Second})
	r.sendTask(task.Task{Generator: "slow", NumSamples: 2 * chunks, Seed: 5, ChunkSize: 2})
	r.sendTask(task.Task{Generator: "hang", NumSamples: 5, Seed: 5})
	eventually(t, "the hanging chunk is reported", func() bool { return len(r.failures("hang")) > 0 })
	if f := r.failures("hang")[0]; f.Cause != task.TimedOut {
		t.Errorf("reported %s: %s", f.Cause, f.Detail)
	}
	eventually(t, "every chunk is committed", func() bool { return len(r.receipts("slow")) == chunks })
	r.holds("slow", task.Range{Start: 0, End: 2 * chunks})
	requests := map[string]bool{}
	for _, receipt := range r.receipts("slow") {
		requests[receipt.RequestID] = true
	}
	if len(requests) < 2 {
		t.Errorf("all was done in %d invocations of %s", len(requests), timeout)
	}
	if f := r.failures("slow"); len(f) > 0 {
		t.Errorf("sending the rest on was reported as %s: %s", f[0].Cause, f[0].Detail)
	}
	// The hanging one is being delivered again.
	eventually(t, "nothing is left in the temporary folders", func() bool { return len(r.leftovers()) == 0 })
}

// A bucket that fails and resets connections changes nothing in the end.
func TestFaultyBucket(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	front := proxy(t, func(w http.ResponseWriter, r *http.Request) bool {
		switch n.Add(1) % 7 {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		case 4:
			panic(http.ErrAbortHandler)
		}
		return false
	})
	r := up(t, folder(t), Config{front: front})
	r.sendTask(task.Task{Generator: "good", NumSamples: 20, Seed: 1})
	shards := r.in("shards")
	r.sendTask(task.Task{Dataset: "shards", Generator: "restless", NumSamples: 20, Seed: 1, Format: task.Tar})
	eventually(t, "all is committed", func() bool { return len(r.receipts("good"))+len(shards.receipts("restless")) == 8 })
	r.idle()
	r.holds("good", task.Range{Start: 0, End: 20})
	shards.holds("restless", task.Range{Start: 0, End: 20})
}
