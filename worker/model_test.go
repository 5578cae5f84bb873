package worker

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// TestProtocol drives the queue, up to three workers and the bucket through
// generated interleavings: which request is executed next, which one breaks
// before or after it is executed, who is killed with what on the way, how the
// clock moves, what is delivered twice. After every request each receipt must
// vouch for what is there; at the end every index must be there once, with the
// bytes its seeds make, and nothing else.
//
// Only the generator is not real, and the bucket is a model in memory.
func TestProtocol(t *testing.T) {
	t.Parallel()
	dir := memoryDir(t)
	rapid.Check(t, func(rt *rapid.T) {
		own, err := os.MkdirTemp(dir, "case-")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(own)
		modelIndex(rt, own)
		rapid.SyncTest(rt, func(rt *rapid.T) { oneCase(context.Background(), rt, own) })
	})
}

// memoryDir is a temporary folder that costs no disk, where there is one: the
// queue syncs its journal for every case.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "vm-dataset-model-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func oneCase(ctx context.Context, t *rapid.T, dir string) {
	pageSize := rapid.SampledFrom([]int{1000, 2}).Draw(t, "page size")
	ahead := time.Duration(rapid.IntRange(-10, 10).Draw(t, "minutes that the bucket's clock is ahead")) * time.Minute
	w, err := newWorld(dir, pageSize, ahead)
	if err != nil {
		t.Fatal(err)
	}
	defer w.stop(t)
	runs := drawRuns(t, w.datasets(t))
	for _, r := range runs {
		for _, x := range r.Plan() {
			w.send(inParts(t, x))
		}
	}
	w.disturb(ctx, t, runs)
	w.settle(ctx, t, runs)
	w.check(t, runs)
	if rapid.Bool().Draw(t, "repair") {
		w.repair(ctx, t, runs)
	}
	if rapid.Bool().Draw(t, "restore") {
		w.restore(ctx, t, runs)
	}
}

// datasets pins two datasets, as a submit does, whose samples are made by the same
// workers.
func (w *world) datasets(t *rapid.T) []task.Manifest {
	var list []task.Manifest
	for n, name := range []task.Dataset{"v1", "v2"} {
		m := task.NewManifest(name, n+1, rapid.SampledFrom([]task.Format{task.Files, task.Tar}).Draw(t, "format"))
		m.Add(task.PinnedGenerator{Name: "model", ChunkSize: rapid.IntRange(1, 4).Draw(t, "chunk")})
		w.pin(t, m)
		list = append(list, m)
	}
	return list
}

// disturb lets things happen for a while.
func (w *world) disturb(ctx context.Context, t *rapid.T, runs []task.Run) {
	for range rapid.IntRange(0, 150).Draw(t, "steps") {
		w.step(ctx, t, runs)
		if w.broken != nil {
			t.Fatalf("%v", w.broken)
		}
	}
}

// repair replaces some of the samples of one dataset, in as many cells as they lie in.
func (w *world) repair(ctx context.Context, t *rapid.T, runs []task.Run) {
	var x task.Task
	var there []int
	all := w.bucket.receipts()
	for _, r := range all {
		if r.Dataset.String() != all[0].Dataset.String() {
			continue
		}
		x = task.Task{Dataset: r.Dataset, Generator: r.Generator, Seed: r.RunSeed, Format: r.Format, RunID: "r1",
			ChunkSize: r.ChunkSize, Attempt: 1}
		for _, s := range r.Samples {
			there = append(there, s.Index)
		}
	}
	for _, i := range slices.Compact(slices.Sorted(slices.Values(there))) {
		if rapid.Bool().Draw(t, fmt.Sprintf("index %d", i)) {
			x.Indices = append(x.Indices, i)
		}
	}
	if len(x.Indices) == 0 {
		return
	}
	w.again(ctx, t, runs, x)
	for _, c := range x.Chunks() {
		if !slices.ContainsFunc(w.bucket.receipts(),
			func(r store.Receipt) bool { return slices.Equal(r.Indices, c.Indices) }) {
			t.Fatalf("there is no receipt of the repair of %v", c.Indices)
		}
	}
}

// restore loses objects of a receipt, or their bytes, and has them made again in its
// place. Until that is done it vouches for what is not there.
func (w *world) restore(ctx context.Context, t *rapid.T, runs []task.Run) {
	all := w.bucket.receipts()
	r := all[rapid.IntRange(0, len(all)-1).Draw(t, "receipt")]
	x := task.Task{Dataset: r.Dataset, Generator: r.Generator, Seed: r.RunSeed, Format: r.Format, RunID: "r9",
		ChunkSize: r.ChunkSize, PartSize: r.PartSize,
		Restore: r.Epoch, Attempt: r.Attempt, StartIndex: r.Start, NumSamples: r.Range().Len()}
	if r.Indices != nil {
		x.Indices, x.StartIndex, x.NumSamples, x.PartSize, x.Attempt = r.Indices, 0, 0, 0, r.FirstAttempt
	}
	w.bucket.unsure = map[place]bool{}
	for _, s := range r.Current {
		w.bucket.unsure[place{r.Dataset.String(), s.Index}] = true
	}
	for _, key := range r.Objects() {
		if rapid.Bool().Draw(t, "lost") {
			delete(w.bucket.objects, key)
		} else {
			w.bucket.objects[key] = []byte("damaged")
		}
	}
	for _, run := range runs {
		if run.Dataset.String() == r.Dataset.String() {
			run.ID, run.Start, run.Samples = "r9", r.Start, r.Range().Len()
			runs = append(slices.Clone(runs), run)
			break
		}
	}
	w.again(ctx, t, runs, x)
}

// again has a task done, sent once or twice, and checks what comes of it.
func (w *world) again(ctx context.Context, t *rapid.T, runs []task.Run, x task.Task) {
	for range rapid.IntRange(1, 2).Draw(t, "copies") {
		w.send(x)
	}
	w.disturb(ctx, t, runs)
	w.settle(ctx, t, runs)
	w.bucket.unsure = nil
	w.check(t, runs)
}

// drawRuns are what an operator might submit over one another, in the order of
// their ids: each makes samples of one of the datasets.
func drawRuns(t *rapid.T, datasets []task.Manifest) []task.Run {
	var runs []task.Run
	for n := range rapid.IntRange(1, 3).Draw(t, "runs") {
		m := rapid.SampledFrom(datasets).Draw(t, "dataset")
		runs = append(runs, task.Run{
			ID: fmt.Sprintf("r%d", n+1), Dataset: m.Dataset, Seed: m.Seed, ChunkSize: m.Generators[0].ChunkSize,
			Format:     m.Format,
			Generators: []task.RunGenerator{{Name: "model"}}, Samples: rapid.IntRange(1, 5).Draw(t, "samples"),
			Batch: rapid.IntRange(1, 5).Draw(t, "batch"),
			Start: rapid.IntRange(0, 3).Draw(t, "start"),
		})
	}
	return runs
}

// inParts may have a task made in parts of chunks, as a replay does.
func inParts(t *rapid.T, x task.Task) task.Task {
	if size := rapid.IntRange(1, 4).Draw(t, "part"); size < x.ChunkSize && x.ChunkSize%size == 0 {
		x.PartSize = size
	}
	return x
}

// step does one thing that the test draws.
func (w *world) step(ctx context.Context, t *rapid.T, runs []task.Run) {
	w.rest()
	waiting, late := w.waiting(true), w.waiting(false)
	visible, _, _ := w.queue.Counts("tasks")
	pick := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "which") }
	action := rapid.IntRange(0, 99).Draw(t, "action")
	switch {
	case action >= 97:
		var all []task.Task
		for _, r := range runs {
			all = append(all, r.Plan()...)
		}
		w.send(inParts(t, all[pick(len(all))]))
	case action >= 92 && len(late) > 0:
		w.end(late[pick(len(late))], executed)
	case action >= 87 && len(w.alive) > 0:
		w.kill(w.alive[pick(len(w.alive))])
	case action >= 81 && len(w.alive) > 0: // one's time is up with requests on the way, and another one has its task
		p := w.alive[pick(len(w.alive))]
		x, err := task.Parse([]byte(p.message.Body), p.message.MessageId)
		if err != nil {
			t.Fatal(err)
		}
		w.send(x)
		time.Sleep(time.Until(p.deadline))
	case action >= 77:
		time.Sleep(rapid.SampledFrom([]time.Duration{time.Second, 6 * time.Second, modelTimeout / 3, modelTimeout}).Draw(t,
			"sleep"))
	case (action >= 67 || len(waiting) == 0) && visible > 0 && len(w.alive) < 3:
		// Where some have less time, others live to see what the platform leaves of them.
		if err := w.play(ctx, rapid.SampledFrom([]time.Duration{modelTimeout, modelTimeout / 3}).Draw(t,
			"timeout")); err != nil {
			t.Fatal(err)
		}
	case len(waiting) == 0:
		time.Sleep(500 * time.Millisecond)
	case action >= 61:
		w.end(waiting[pick(len(waiting))], unheard)
	case action >= 56:
		w.end(waiting[pick(len(waiting))], refused)
	default:
		w.end(waiting[pick(len(waiting))], executed)
	}
}

// calm lets everything run undisturbed until the queue is empty.
func (w *world) calm(ctx context.Context, t interface{ Fatalf(string, ...any) }) {
	for range 40_000 { // a worker that waits for a cell asks twice a second, for a minute
		w.rest()
		waiting := w.waiting(true)
		visible, hidden, delayed := w.queue.Counts("tasks")
		switch {
		case w.broken != nil:
			t.Fatalf("%v", w.broken)
		case len(waiting) > 0:
			w.end(waiting[0], w.faults(waiting[0]))
		case visible > 0 && len(w.alive) < 2:
			if err := w.play(ctx, modelTimeout); err != nil {
				t.Fatalf("%v", err)
			}
		case len(w.alive) > 0:
			time.Sleep(100 * time.Millisecond)
		case visible+hidden+delayed > 0:
			time.Sleep(time.Second)
		default:
			return
		}
	}
	t.Fatalf("it does not come to rest")
}

// settle does what an operator does: replays what died, sends what is missing.
func (w *world) settle(ctx context.Context, t *rapid.T, runs []task.Run) {
	w.log("now undisturbed")
	for range 8 {
		w.calm(ctx, t)
		again := 0
		for visible, _, _ := w.queue.Counts("dead"); visible > 0; visible-- {
			d, err := w.queue.Receive(ctx, "dead")
			if err != nil {
				t.Fatal(err)
			}
			_ = w.queue.Delete("dead", d.ReceiptHandle)
			x, err := task.Parse([]byte(d.Body), d.MessageId)
			if err != nil {
				t.Fatalf("the DLQ has %s: %v", d.Body, err)
			}
			cause := task.Lost
			if a := d.MessageAttributes[task.AttributeCause]; a.StringValue != nil {
				cause = task.Cause(*a.StringValue)
			}
			w.log("dead of %s: %s", cause, d.Body)
			if cause.Policy().NextSeed {
				x.Attempt += task.SeedTries
			}
			w.send(x)
			again++
		}
		for i := len(runs) - 1; i >= 0; i-- {
			for _, x := range w.bucket.missing(runs[i]).Plan() {
				w.send(x)
				again++
			}
			if again > 0 {
				break // what is missing of the others may be that as well
			}
		}
		if again == 0 {
			return
		}
	}
	t.Fatalf("not whole after eight rounds")
}

// check checks what must hold at the end.
func (w *world) check(t *rapid.T, runs []task.Run) {
	if err := w.bucket.truthful(); err != nil {
		t.Errorf("%v", err)
	}
	named := map[string]bool{}
	at := map[place]store.Receipt{}
	for _, c := range w.bucket.cells() {
		// A holder whose time ended with its last request, which gives the cell up, may stay in it.
		if c.Void != nil {
			t.Errorf("%s: void are %v", c.Key(), c.Void)
		}
	}
	for _, r := range w.bucket.receipts() {
		for _, key := range r.Objects() {
			named[key] = true
		}
		for _, s := range r.Current {
			at[place{r.Dataset.String(), s.Index}] = r
			files, err := w.bucket.files(r, s)
			if err != nil || r.Indices != nil {
				continue // told above
			}
			attempt, size := 0, r.Made()
			for crashes(task.Seed("model", r.RunSeed, size, r.ChunkStart/size, attempt)) {
				attempt++
			}
			want := fmt.Sprintf("seed %d offset %d nonce", task.Seed("model", r.RunSeed, size, r.ChunkStart/size, attempt),
				s.Index-r.ChunkStart)
			if got := string(files["prompt.txt"]); !strings.HasPrefix(got, want) || r.Attempt != attempt {
				t.Errorf("index %d is %q at attempt %d, want %q at %d", s.Index, got, r.Attempt, want, attempt)
			}
		}
	}
	for key := range w.bucket.objects {
		// A shard that was completed minutes later is in nobody's way: 'ops verify' tells of it.
		stray := w.strays[key] && strings.HasSuffix(key, ".tar.gz")
		if strings.HasPrefix(key, task.DataKind) && !named[key] && !stray {
			t.Errorf("%s is there without a receipt", key)
		}
	}
	for _, name := range []string{"v1", "v2"} {
		for i := range 10 {
			r, there := at[place{name, i}]
			var may []string
			for _, run := range runs {
				if run.Dataset.String() == name && run.Start <= i && i < run.Start+run.Samples {
					may = append(may, run.ID)
				}
			}
			if there != (len(may) > 0) || there && r.Indices == nil && !slices.Contains(may, r.RunID) {
				t.Errorf("index %d of %s was made by run %q, want one of %v", i, name, r.RunID, may)
			}
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}
