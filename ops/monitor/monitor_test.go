package monitor

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
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

// Until a run is complete it has cost the plan's figure times its progress, and no poll reads receipts that are complete
// for that. Of what was not measured, some receipts show it. Then it has cost what its own receipts show.
func TestMonitorCost(t *testing.T) {
	c := newCloud(t)
	putReceipts(t, c, "maze", "before", 0, 200, 1000)
	run := task.Run{ID: "mine", Samples: 1000, Batch: 100, ChunkSize: 20, Missing: true,
		Generators: []task.RunGenerator{{Name: "maze", Missing: []task.Range{{Start: 200, End: 1000}}}}}
	measured := map[string]plan.Cost{"maze": {SampleCPU: 1, SampleWall: 1, PeakRSS: 1 << 20, SampleBytes: 1000,
		SampleFiles: 1}}
	all, err := plan.Of(run, measured, plan.Setting{Worker: plan.DefaultWorker(), Concurrency: plan.MostWorkers})
	must(t, err)
	m, unmeasured := New(c.store, c.queue, run), New(c.store, c.queue, run)
	m.CountCost(plan.DefaultWorker(), measured, false)
	unmeasured.CountCost(plan.DefaultWorker(), nil, false)
	poll := func(m *Monitor, reads int64) *RunCost {
		t.Helper()
		before := c.cellReads.Load()
		p, err := m.Poll(t.Context())
		must(t, err)
		if n := c.cellReads.Load() - before; n != reads {
			t.Errorf("%d cells were read, want %d", n, reads)
		}
		return p.Cost
	}
	for _, x := range []struct {
		upTo  int
		part  float64
		reads int64 // of what was not measured
	}{{200, 0, 10}, {400, 0.25, 10}, {600, 0.5, 0}} {
		putReceipts(t, c, "maze", "mine", max(200, x.upTo-200), x.upTo, 10)
		got := poll(m, 0)
		if !got.Planned || math.Abs(got.Dollars-x.part*all.Make) > 1e-9 || got.Expected != all.Make ||
			math.Abs(got.CPUSeconds-x.part*all.CPUSeconds) > 1e-9 {
			t.Errorf("%d are committed: %+v, want %g of %g dollars", x.upTo, got, x.part, all.Make)
		}
		// Of what was not measured, ten receipts show it, which are read once; the first ones are of another run.
		got = poll(unmeasured, x.reads)
		if (got != nil) != (x.part > 0) {
			t.Errorf("%d are committed: what was not measured costs %+v", x.upTo, got)
		}
		if got != nil && (!got.Sampled || got.Planned || math.Abs(got.CPUSeconds-0.5*float64(x.upTo-200)) > 1e-9 ||
			!strings.Contains(got.String(), "so far, by 10 receipts")) {
			t.Errorf("%d are committed: what was not measured costs %+v: %s", x.upTo, got, got)
		}
	}
	putReceipts(t, c, "maze", "mine", 600, 1000, 10)
	for _, m := range []*Monitor{m, unmeasured} {
		got := poll(m, 50)
		if got.Planned || got.Samples != 800 || got.Receipts != 40 || got.CPUSeconds != 400 ||
			got.Requests.Invocations != 8 || got.Requests.Put != 8*5*(2+20)+1 || got.Expected != got.Dollars {
			t.Errorf("%+v", got)
		}
		// Eight invocations of five chunks at once: 10 s each, and some requests.
		if got.BusySeconds < 80 || got.BusySeconds > 88 || math.Abs(got.GBSeconds-10*got.BusySeconds) > 1e-9 {
			t.Errorf("%+v", got)
		}
		if dollars := got.GBSeconds * 0.0000166667; got.Dollars < dollars || got.Dollars > dollars+0.01 {
			t.Errorf("%g dollars for %g GB-seconds", got.Dollars, got.GBSeconds)
		}
	}
}

// A run costs what it makes itself: its repairs, and not what was committed before it. A receipt that cannot be read
// leaves the poll as it is, and is read by the next one.
func TestMonitorCostOfItsOwn(t *testing.T) {
	c := newCloud(t)
	cpu := func(m *Monitor) float64 {
		t.Helper()
		p, err := m.Poll(t.Context())
		must(t, err)
		if p.Complete() {
			t.Error("it is complete")
		}
		if p.Cost == nil {
			return -1
		}
		return p.Cost.CPUSeconds
	}
	unmeasured := func(run task.Run) *Monitor {
		m := New(c.store, c.queue, run)
		m.CountCost(plan.DefaultWorker(), nil, false)
		return m
	}
	putReceipts(t, c, "maze", "before", 0, 200, 1000)
	must(t, filepath.WalkDir(c.folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		old := time.Now().Add(-24 * time.Hour)
		return os.Chtimes(path, old, old)
	}))

	// The clock of the machine that submits it is ahead.
	run := task.Run{ID: "again", Samples: 400, Batch: 100, ChunkSize: 20, Created: time.Now().Add(clockSkew / 2),
		Generators: []task.RunGenerator{{Name: "maze"}}}
	m, planned := unmeasured(run), New(c.store, c.queue, run)
	planned.CountCost(plan.DefaultWorker(), map[string]plan.Cost{"maze": {SampleCPU: 1, SampleWall: 1,
		PeakRSS: 1 << 20, SampleBytes: 1000, SampleFiles: 1}}, false)
	if got := cpu(m); got != -1 {
		t.Errorf("nothing is made: %g s", got)
	}
	if got := cpu(planned); got != 0 {
		t.Errorf("nothing is made, and planned: %g s", got)
	}
	putReceipts(t, c, "maze", "again", 200, 300, 10)
	c.refuses.Store(true)
	if got := cpu(m); got != -1 {
		t.Errorf("no receipt can be read: %g s", got)
	}
	c.refuses.Store(false)
	if got := cpu(m); got != 50 {
		t.Errorf("100 samples were made in 50 s: %g s", got)
	}
	of400, err := plan.Of(run, map[string]plan.Cost{"maze": {SampleCPU: 1, SampleWall: 1, PeakRSS: 1 << 20,
		SampleBytes: 1000, SampleFiles: 1}}, plan.Setting{Worker: plan.DefaultWorker(), Concurrency: plan.MostWorkers})
	must(t, err)
	if got := cpu(planned); math.Abs(got-of400.CPUSeconds/4) > 1e-9 {
		t.Errorf("100 of 200 samples are made by a plan of 400 in %g s: %g s", of400.CPUSeconds, got)
	}

	repair := func(indices ...int) task.Task {
		return task.Task{Generator: "maze", Seed: 1, Format: task.Files, ChunkSize: 20, Attempt: 3, Indices: indices}
	}
	first := repair(7, 9)
	m = unmeasured(task.Run{ID: "repair", Missing: true, Created: time.Now(), Generators: []task.RunGenerator{{Name: "maze",
		Repairs: []task.Task{first, repair(207)}}}})
	if got := cpu(m); got != -1 { // reads the cell of 207, which is new, and not of this run
		t.Errorf("nothing is repaired: %g s", got)
	}
	r := store.Receipt{Generator: "maze", RunID: "repair", ChunkSize: 20, Start: first.Range().Start,
		End: first.Range().End, Indices: first.Indices, FirstAttempt: 3, Attempt: 3, Format: task.Files, CPUSeconds: 6,
		WallSeconds: 6}
	for _, i := range first.Indices {
		r.Samples = append(r.Samples, store.ReceiptSample{Index: i})
	}
	must(t, commitReceipt(t.Context(), c.store, r))
	if got := cpu(m); got != 6 {
		t.Errorf("2 of 3 samples are repaired in 6 s: %g s", got)
	}
}

// A poll lists what is new, and reports the same as one that lists everything. It reports
// that a run is complete only after it has listed everything.
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
	poll := func(next string) {
		t.Helper()
		p, err := m.Poll(t.Context())
		must(t, err)
		if p.Committed != committed || p.Complete() != (committed == 40_000) || !p.Complete() &&
			fmt.Sprint(m.stretches(m.generators[0])) != next {
			t.Errorf("%d are committed, want %d; the next poll lists %v, want %s", p.Committed, committed,
				m.stretches(m.generators[0]), next)
		}
	}
	commit := func(starts ...int) {
		for _, start := range starts {
			must(t, commitReceipt(t.Context(), c.store, receipt(start)))
			committed += 500
		}
	}
	poll("[00000000_00039999]")
	for start := 0; start < 30_000; start += 500 {
		if start != 2_000 && start != 5_000 && start != 20_000 {
			commit(start)
		}
	}
	poll("[00002000_00005499 00020000_00039999]") // 5,500 to 20,000 is more than a request lists
	commit(31_000, 2_000)
	poll("[00005000_00005499 00020000_00039999]")
	commit(20_000)
	poll("[00005000_00005499 00030000_00039999]")
	// A receipt that was seen is deleted, and polls do not see that; they do when all seems
	// complete.
	must(t, c.store.Delete(t.Context(), []string{task.DefaultDataset.CellKey("maze",
		task.Range{Start: 10_000, End: 10_500})}))
	poll("[00005000_00005499 00030000_00039999]")
	for start := 30_000; start < 40_000; start += 500 {
		if start != 31_000 {
			commit(start)
		}
	}
	commit(5_000)
	committed -= 500
	poll("[00010000_00010499]")
	commit(10_000)
	poll("")
}

// A run that repairs and makes nothing else is complete when its repairs are.
func TestMonitorOnlyRepairs(t *testing.T) {
	c := newCloud(t)
	repair := func(attempt int, indices ...int) task.Task {
		return task.Task{Generator: "maze", Seed: 1, Format: task.Files, ChunkSize: 20, Attempt: attempt, Indices: indices}
	}
	run := task.Run{ID: "repair", Generators: []task.RunGenerator{{Name: "maze",
		Repairs: []task.Task{repair(3, 7, 9), repair(4, 50_000)}}}}
	m := New(c.store, c.queue, run)
	poll := func(committed int) {
		t.Helper()
		p, err := m.Poll(t.Context())
		must(t, err)
		if p.Committed != committed || p.Expected != 3 || p.Complete() != (committed == 3) {
			t.Errorf("%d of %d are committed, want %d of 3", p.Committed, p.Expected, committed)
		}
	}
	commit := func(x task.Task) {
		r := store.Receipt{Generator: "maze", RunID: "repair", ChunkSize: 20, Start: x.Range().Start, End: x.Range().End,
			Indices: x.Indices, FirstAttempt: x.Attempt, Attempt: x.Attempt, Format: task.Files}
		for _, i := range x.Indices {
			r.Samples = append(r.Samples, store.ReceiptSample{Index: i})
		}
		must(t, commitReceipt(t.Context(), c.store, r))
	}
	poll(0)
	commit(run.Generators[0].Repairs[0])
	poll(2)
	if next := fmt.Sprint(m.stretches(m.generators[0])); next != "[00050000_00050000]" {
		t.Errorf("the next poll lists %s", next)
	}
	commit(run.Generators[0].Repairs[1])
	poll(3)
}

// Rate and ETA come from the polls of the last two minutes.
func TestRate(t *testing.T) {
	m := &Monitor{}
	start := time.Now()
	var p *Progress
	for minute := range 10 {
		p = &Progress{Time: start.Add(time.Duration(minute) * time.Minute), Committed: minute * minute * 60, Expected: 10_000}
		m.rate(p, start)
	}
	if p.Rate < 15 || p.Rate > 17 { // (81-49)*60 samples in 120 s
		t.Errorf("%g samples a second", p.Rate)
	}
	if eta := float64(10_000-81*60) / p.Rate; p.ETASeconds != eta {
		t.Errorf("ETA %g s, want %g", p.ETASeconds, eta)
	}
}

// Failures of other runs do not count. A report is read once, of many some in each
// poll, and none that is older than the run.
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
	poll := func(failed, unread int) {
		t.Helper()
		p, err := m.poll(t.Context())
		must(t, err)
		if p.Failures[task.Crashed] != failed || p.Unread != unread || p.Committed != 0 || p.Expected != 5 {
			t.Errorf("%+v, want %d failures and %d unread", p, failed, unread)
		}
	}
	poll(2, 0)
	poll(2, 0)
	for n := range readPerPoll + 8 {
		report(3+n, "mine")
	}
	poll(2+readPerPoll, 8)
	poll(2+readPerPoll+8, 0)
	run.Created = time.Now().Add(2 * clockSkew)
	m = New(c.store, c.queue, run)
	poll(0, 0)
}
