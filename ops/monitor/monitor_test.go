package monitor

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// putReceipts commits a run's chunks as a worker does that took so long for each:
// five to an invocation.
func putReceipts(t *testing.T, c *cloud, generator, run string, from, to int, seconds float64) {
	t.Helper()
	for start := from; start < to; start += 20 {
		r := store.Receipt{Generator: generator, RunID: run, RunSeed: 42, ChunkSize: 20, Start: start, End: start + 20,
			Format: task.Files, Domain: "d",
			CPUSeconds: seconds, WallSeconds: seconds, PeakRSSBytes: 1 << 20, RequestID: fmt.Sprint(run, start/100)}
		for i := start; i < start+20; i++ {
			r.Samples = append(r.Samples, store.ReceiptSample{Index: i, ID: task.SampleID("d", i),
				Files: []store.ReceiptFile{{Name: "prompt.txt", Size: 1000}}})
		}
		must(t, commitReceipt(t.Context(), c.store, r))
	}
}

// What a run has cost is what its own receipts show, each of them read once; from
// some of many, the rest is taken to be like them.
func TestMonitorCost(t *testing.T) {
	c := newCloud(t)
	putReceipts(t, c, "maze", "before", 0, 200, 1000)
	putReceipts(t, c, "maze", "mine", 200, 600, 10)
	run := task.Run{ID: "mine", Samples: 1000, Batch: 100, ChunkSize: 20,
		Generators: []task.RunGenerator{{Name: "maze"}, {Name: "chess"}}}
	must(t, c.store.PutRun(t.Context(), run))
	m := New(c.store, c.queue, run)
	m.CountCost(plan.DefaultWorker(), false)
	look := func() *RunCost {
		p, err := m.poll(t.Context())
		must(t, err)
		if c := p.Cost; c != nil && p.Committed > 0 {
			if want := c.Dollars / float64(c.Samples) * float64(c.Samples+
				p.Expected-p.Committed); math.Abs(c.Expected-want) > 1e-9 {
				t.Errorf("%g dollars in all, want %g", c.Expected, want)
			}
		}
		return p.Cost
	}
	got := look()
	if got.Samples != 400 || got.Receipts != 20 || got.Read != 20 || got.CPUSeconds != 200 ||
		got.Requests.Invocations != 4 || got.Requests.Put != 4*5*(2+20)+1 {
		t.Errorf("%+v", got)
	}
	// Four invocations of five chunks at once: 10 s each, and some requests.
	if got.BusySeconds < 40 || got.BusySeconds > 44 || math.Abs(got.GBSeconds-10*got.BusySeconds) > 1e-9 {
		t.Errorf("%+v", got)
	}
	if dollars := got.GBSeconds * 0.0000166667; got.Dollars < dollars || got.Dollars > dollars+0.005 {
		t.Errorf("%g dollars for %g GB-seconds", got.Dollars, got.GBSeconds)
	}
	putReceipts(t, c, "chess", "mine", 0, 100, 20)
	if got := look(); got.Samples != 500 || got.CPUSeconds != 300 || got.Read != 25 {
		t.Errorf("after more: %+v", got)
	}
	if m.costs.read != 35 {
		t.Errorf("%d receipts were read", m.costs.read)
	}
	// What a look has left out, a later one does not read: it reads what is new.
	names, err := c.store.CellNames(t.Context(), "maze", run.Range())
	must(t, err)
	if old := m.costs.choose(0, names, run); len(old) > 0 {
		t.Errorf("%d receipts that are not new are read", len(old))
	}

	// One that may read only some of them.
	putReceipts(t, c, "maze", "mine", 600, 1000, 10)
	names, err = c.store.CellNames(t.Context(), "maze", run.Range())
	must(t, err)
	few := newCosts(plan.DefaultWorker(), false, 1)
	few.read = readPerRun - 20
	chosen := few.choose(0, names, run) // 20 for two generators
	tasks := map[int]int{}
	for _, n := range chosen {
		tasks[n.Range.Start/100]++
	}
	if fmt.Sprint(tasks) != "map[0:5 5:5]" {
		t.Errorf("of 50 receipts, those of the tasks %v are read", tasks)
	}
	few = newCosts(plan.DefaultWorker(), false, 1)
	few.read = readPerRun
	if more := few.choose(0, names, run); more != nil {
		t.Errorf("%d are read beyond the limit", len(more))
	}
}

// A look lists what is new, and says the same as one that lists everything. That a
// run is whole a watch says only after it has.
func TestMonitorRefresh(t *testing.T) {
	c := newCloud(t)
	run := task.Run{ID: "mine", Samples: 40_000, Batch: 100, ChunkSize: 10,
		Generators: []task.RunGenerator{{Name: "maze"}}}
	m := New(c.store, c.queue, run)
	receipt := func(start int) store.Receipt {
		r := store.Receipt{Generator: "maze", RunID: "mine", ChunkSize: 500, Start: start, End: start + 500,
			Format: task.Files}
		for i := r.Start; i < r.End; i++ {
			r.Samples = append(r.Samples, store.ReceiptSample{Index: i})
		}
		return r
	}
	committed := 0
	look := func(next string) {
		t.Helper()
		p, err := m.Poll(t.Context())
		must(t, err)
		if p.Committed != committed || p.Whole() != (committed == 40_000) || !p.Whole() &&
			fmt.Sprint(m.stretches(0)) != next {
			t.Errorf("%d are committed, want %d; the next look lists %v, want %s", p.Committed, committed, m.stretches(0), next)
		}
	}
	commit := func(starts ...int) {
		for _, start := range starts {
			must(t, commitReceipt(t.Context(), c.store, receipt(start)))
			committed += 500
		}
	}
	look("[00000000_00039999]")
	for start := 0; start < 30_000; start += 500 {
		if start != 2_000 && start != 5_000 && start != 20_000 {
			commit(start)
		}
	}
	look("[00002000_00005499 00020000_00039999]") // 5,500 to 20,000 is more than a request lists
	commit(31_000, 2_000)
	look("[00005000_00005499 00020000_00039999]")
	commit(20_000)
	look("[00005000_00005499 00030000_00039999]")
	// What was seen is taken back, and the look is not told; when all seems whole it
	// finds out.
	must(t, c.store.Delete(t.Context(), []string{task.DefaultDataset.CellKey("maze",
		task.Range{Start: 10_000, End: 10_500})}))
	look("[00005000_00005499 00030000_00039999]")
	for start := 30_000; start < 40_000; start += 500 {
		if start != 31_000 {
			commit(start)
		}
	}
	commit(5_000)
	committed -= 500
	look("[00010000_00010499]")
	commit(10_000)
	look("")
}

// A run that repairs and makes nothing else is whole when its repairs are.
func TestMonitorOnlyRepairs(t *testing.T) {
	c := newCloud(t)
	repair := func(attempt int, indices ...int) task.Task {
		return task.Task{Generator: "maze", Seed: 1, Format: task.Files, ChunkSize: 20, Attempt: attempt, Indices: indices}
	}
	run := task.Run{ID: "mend", Generators: []task.RunGenerator{{Name: "maze",
		Repairs: []task.Task{repair(3, 7, 9), repair(4, 50_000)}}}}
	m := New(c.store, c.queue, run)
	look := func(committed int) {
		t.Helper()
		p, err := m.Poll(t.Context())
		must(t, err)
		if p.Committed != committed || p.Expected != 3 || p.Whole() != (committed == 3) {
			t.Errorf("%d of %d are committed, want %d of 3", p.Committed, p.Expected, committed)
		}
	}
	commit := func(x task.Task) {
		r := store.Receipt{Generator: "maze", RunID: "mend", ChunkSize: 20, Start: x.Range().Start, End: x.Range().End,
			Indices: x.Indices, FirstAttempt: x.Attempt, Attempt: x.Attempt, Format: task.Files}
		for _, i := range x.Indices {
			r.Samples = append(r.Samples, store.ReceiptSample{Index: i})
		}
		must(t, commitReceipt(t.Context(), c.store, r))
	}
	look(0)
	commit(run.Generators[0].Repairs[0])
	look(2)
	if next := fmt.Sprint(m.stretches(0)); next != "[00050000_00050000]" {
		t.Errorf("the next look lists %s", next)
	}
	commit(run.Generators[0].Repairs[1])
	look(3)
}

// Rate and ETA come from the looks of the last two minutes.
func TestRate(t *testing.T) {
	m := &Monitor{}
	start := time.Now()
	var p *Progress
	for minute := range 10 {
		p = &Progress{Time: start.Add(time.Duration(minute) * time.Minute), Committed: minute * minute * 60, Expected: 10_000}
		m.rate(p, nil, start)
	}
	if p.Rate < 15 || p.Rate > 17 { // (81-49)*60 samples in 120 s
		t.Errorf("%g samples a second", p.Rate)
	}
	if eta := float64(10_000-81*60) / p.Rate; p.ETASeconds != eta {
		t.Errorf("ETA %g s, want %g", p.ETASeconds, eta)
	}
}

// Failures of other runs do not count. A report is read once, of many some in each
// look, and none that is older than the run.
func TestMonitorFailures(t *testing.T) {
	c := newCloud(t)
	report := func(n int, run string) {
		_, err := c.store.PutFailure(t.Context(), store.Failure{Generator: "maze", Name: fmt.Sprintf("%08d_%08d", n, n),
			RunID: run, Cause: task.Crashed, MessageID: fmt.Sprint(n), Receives: 1})
		must(t, err)
	}
	for n, run := range []string{"mine", "mine", "other"} {
		report(n, run)
	}
	run := task.Run{ID: "mine", Samples: 5, Generators: []task.RunGenerator{{Name: "maze"}}}
	m := New(c.store, c.queue, run)
	look := func(failed, unread int) {
		t.Helper()
		p, err := m.poll(t.Context())
		must(t, err)
		if p.Failures[task.Crashed] != failed || p.Unread != unread || p.Committed != 0 || p.Expected != 5 {
			t.Errorf("%+v, want %d failures and %d unread", p, failed, unread)
		}
	}
	look(2, 0)
	look(2, 0)
	for n := range readPerLook + 8 {
		report(3+n, "mine")
	}
	look(2+readPerLook, 8)
	look(2+readPerLook+8, 0)
	run.Created = time.Now().Add(2 * clocks)
	m = New(c.store, c.queue, run)
	look(0, 0)
}
