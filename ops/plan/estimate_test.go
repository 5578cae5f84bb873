package plan

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/price"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// even is a generator that takes 1 s to start and half a second for each sample.
var even = Cost{Generator: "even", Samples: 20, StartCPU: 1, SampleCPU: 0.5, StartWall: 1, SampleWall: 0.5,
	PeakRSS: 300 << 20, SampleBytes: 100_000, SampleFiles: 5}

func near(got, want float64) bool { return math.Abs(got-want) <= 1e-6*math.Abs(want) }

func memory(mb int) Worker {
	w := DefaultWorker()
	w.MemoryMB = mb
	return w
}

func TestCPUs(t *testing.T) {
	for _, c := range []struct {
		memory, cpus int
		share        float64
	}{{128, 1, 128.0 / 1769}, {1769, 1, 1}, {1770, 2, 1770.0 / 1769}, {3538, 2, 2}, {5307, 3, 3}, {7076, 4, 4},
		{8845, 5, 5}, {8846, 6, 8846.0 / 1769}, {10240, 6, 10240.0 / 1769}} {
		w := memory(c.memory)
		if w.CPUs() != c.cpus || !near(w.Share(), c.share) {
			t.Errorf("%d MB: %d CPUs, a share of %g", c.memory, w.CPUs(), w.Share())
		}
	}
	if limit := DefaultWorker().Limit(); limit != 870*time.Second {
		t.Errorf("a generator may run %s", limit)
	}
}

// As many chunks run at once as there are CPUs and memory for.
func TestAtOnce(t *testing.T) {
	for _, c := range []struct {
		memory int
		rss    int64 // MiB
		want   int
	}{
		{10240, 300, 6},
		{10240, 1300, 6}, // 6 * 1.1 * 1300 = 8580 of 9156
		{10240, 1400, 5},
		{10240, 2800, 2},
		{10240, 9000, 1}, // more than with the margin, but it fits
		{10240, 9200, 0},
		{1769, 300, 1},
		{1769, 1600, 0},
	} {
		if got := memory(c.memory).AtOnce(Cost{PeakRSS: c.rss << 20}, 20); got != c.want {
			t.Errorf("%d MB for chunks of %d MiB: %d at once, want %d", c.memory, c.rss, got, c.want)
		}
	}
	grows := Cost{PeakRSS: 300 << 20, Samples: 20, SampleRSS: 100 << 20}
	if got := DefaultWorker().AtOnce(grows, 60); got != 1 { // 300 + 40 * 100 = 4300 MiB
		t.Errorf("one that grows: %d at once", got)
	}
}

// By hand: a chunk of 20 takes 11 s, and to take its cell 0.05 s.
func TestTask(t *testing.T) {
	const chunk, bytes, objects = 20, 2_000_000, 100
	wave := func(n, slower float64) float64 { return 11.05 * (1 + 0.05*slower) * n }
	const end = 0.25 // 4 rounds of uploads, the commit
	for _, c := range []struct {
		memory, n int
		want      float64
	}{
		{1769, 1, wave(1, 0) + end},
		{1769, 5, 4*11.05 + 11.05 + end},
		{10240, 5, wave(1, 1.16) + end},
		{10240, 6, (11*6/(10240.0/1769)+0.05)*(1+0.05*1.27) + end}, // 6 on 5.79 CPUs
		{10240, 7, (11*6/(10240.0/1769) + 0.05) + 11.05 + end},     // and one more, alone
		{3538, 4, 11.05 + wave(1, 0.56) + end},                     // two and two
		{2000, 2, (11*2/(2000.0/1769)+0.05)*(1+0.05*0.56) + end},   // both slower
	} {
		if got := memory(c.memory).Task(even, chunk, c.n, bytes, objects); !near(got, c.want) {
			t.Errorf("%d chunks with %d MB take %g s, want %g", c.n, c.memory, got, c.want)
		}
	}
	slower := memory(1769)
	slower.Slower = 2
	if got, want := slower.Task(even, chunk, 1, bytes, objects), 22.05+end; !near(got, want) {
		t.Errorf("on a CPU half as fast it takes %g s, want %g", got, want)
	}
	large := even
	large.SampleBytes = 60_000_000
	if got, want := memory(1769).Task(large, chunk, 1, 20*60_000_000, objects), 11.05+20; !near(got, want) {
		t.Errorf("1.2 GB take %g s, want %g", got, want)
	}
}

func runOf(samples, batch, chunk int, format task.Format) task.Run {
	return task.Run{ID: "r", Samples: samples, Batch: batch, ChunkSize: chunk, Format: format,
		Generators: []task.RunGenerator{{Name: "even"}}}
}

func estimate(t testing.TB, run task.Run, cost Cost, s Setting) *Estimate {
	t.Helper()
	e, err := Of(run, map[string]Cost{"even": cost}, s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// By hand: 1,000 samples are 10 tasks of 5 chunks.
func TestOf(t *testing.T) {
	s := Setting{Worker: DefaultWorker(), Concurrency: 10}
	task5 := 11.05*(1+0.05*1.16) + 0.25
	for _, c := range []struct {
		format  task.Format
		objects int
		put     int // of a chunk, beside its cell
	}{{task.Files, 5000, 100}, {task.Tar, 50, 1}} {
		e := estimate(t, runOf(1000, 100, 20, c.format), even, s)
		if c.format == task.Tar {
			task5 += 5*2_000_000/60e6 - 0.25 // two requests take less than to upload 10 MB
		}
		if e.Tasks != 10 || e.Chunks != 50 || e.Samples != 1000 || e.Objects != c.objects || !near(e.BusySeconds, 10*task5) ||
			!near(e.CPUSeconds, 550) {
			t.Errorf("%s: %+v", c.format, e)
		}
		want := Requests{Invocations: 10, Queue: 20 + 1, Put: 50*(2+c.put) + 1, List: 1 + pages(c.objects), Get: 50}
		if e.Requests != want {
			t.Errorf("%s: %+v, want %+v", c.format, e.Requests, want)
		}
		seconds := 10*task5 + 10*3
		dollars := seconds*10*0.0000166667 + seconds*1.5*0.0000000309 + 10*0.0000002 + 21*0.0000004 +
			float64(want.Put+want.List)*0.000005 + 50*0.0000004 +
			(10*1750+50*525)/float64(1<<30)*0.5 + 6.0/730*0.3
		if !near(e.Make, dollars) {
			t.Errorf("%s: %g dollars, want %g", c.format, e.Make, dollars)
		}
		stored := float64(1000*5*20_000 + 50*(750+20*(110+115*5)))
		if !near(float64(e.Bytes), stored) || !near(e.Keep, stored/(1<<30)*0.023) || !near(e.Fetch, stored/(1<<30)*0.09) {
			t.Errorf("%s: %d bytes, %g and %g dollars", c.format, e.Bytes, e.Keep, e.Fetch)
		}
		if e.Problems != nil || e.Notes != nil {
			t.Errorf("%s: %v %v", c.format, e.Problems, e.Notes)
		}
	}
	arm := s
	arm.Architecture = price.ARM
	x86, cheaper := estimate(t, runOf(1000, 100, 20, task.Files), even, s).Items[0].Dollars,
		estimate(t, runOf(1000, 100, 20, task.Files), even, arm).Items[0].Dollars
	if ratio := cheaper / x86; ratio < 0.799 || ratio > 0.801 {
		t.Errorf("arm64 costs %g of x86_64", ratio)
	}
}

// A cell that two tasks share is made twice, and a plan says so.
func TestSharedCells(t *testing.T) {
	e := estimate(t, runOf(60, 30, 20, task.Files), even, Setting{Worker: DefaultWorker(), Concurrency: 10})
	if e.Tasks != 2 || e.Chunks != 4 || !near(e.CPUSeconds, 44) || e.Objects != 300 {
		t.Errorf("%+v", e)
	}
}

// What is only missing, or repaired, is what costs; a repair starts a process for each
// cell.
func TestMissing(t *testing.T) {
	run := runOf(1000, 100, 20, task.Files)
	run.Missing = true
	run.Generators[0].Missing = []task.Range{{Start: 40, End: 60}, {Start: 900, End: 1000}}
	run.Generators[0].Repairs = []task.Task{{Generator: "even", Indices: []int{3, 500, 700}, ChunkSize: 20,
		Format: task.Files, Attempt: 1}}
	e := estimate(t, run, even, Setting{Worker: DefaultWorker(), Concurrency: 10})
	if e.Tasks != 3 || e.Chunks != 9 || e.Samples != 123 || !near(e.CPUSeconds, 6*11+3*1.5) {
		t.Errorf("%+v", e)
	}
	run.Generators[0].Missing, run.Generators[0].Repairs = nil, nil
	if e := estimate(t, run, even, Setting{Worker: DefaultWorker(), Concurrency: 10}); e.Tasks != 0 || e.Make > 2e-5 ||
		e.Takes[0].Seconds != 0 {
		t.Errorf("nothing is missing: %+v", e)
	}
}

// By hand: workers become 5 at once and 5 more each second.
func TestTakes(t *testing.T) {
	for _, c := range []struct {
		busy, longest float64
		tasks, most   int
		want          float64 // without the cold start
	}{
		{1000, 10, 100, 5, 200 + 5},
		{10_000, 10, 1000, 100, 19 + (10_000-997.5)/100 + 5}, // 5*19 + 5*19*19/2 = 997.5 until there are 100
		{10, 10, 1, 900, 10},                                 // one task
		{100, 10, 10, 900, 1 + 10},                           // ten: the last begins after 1 s
		{200, 2, 100, 900, (-5+math.Sqrt(25+2000))/5 + 1},    // 100 short ones: 5t + 5*t*t/2 = 200
	} {
		e := &Estimate{Tasks: c.tasks, BusySeconds: c.busy, longest: c.longest}
		if got := e.takes(c.most); !near(got, c.want+3) {
			t.Errorf("%g s of work in %d tasks with %d workers: %g s, want %g", c.busy, c.tasks, c.most, got, c.want+3)
		}
	}
	if got := (&Estimate{}).takes(10); got != 0 {
		t.Errorf("nothing takes %g s", got)
	}
}

// Tasks of one shape are estimated once, and come to what each of them comes to.
func TestShapes(t *testing.T) {
	run := runOf(3000, 150, 1, task.Files)
	got := estimate(t, run, even, Setting{Worker: DefaultWorker(), Concurrency: 10})
	want := send(got.Tasks)
	for _, one := range run.Plan() {
		want.add(work(one, even), 1)
	}
	want.add(verify(got.Chunks, got.Objects), 1)
	if got.Requests != want {
		t.Errorf("%+v, want %+v", got.Requests, want)
	}
}

// What cannot work is a problem; what is only to be known, a note.
func TestJudge(t *testing.T) {
	usual := Setting{Worker: DefaultWorker(), Concurrency: 10}
	slow, fat := even, even
	slow.SampleCPU, slow.SampleWall = 50, 50
	fat.PeakRSS = 12 << 30
	long := even
	long.SampleCPU, long.SampleWall = 20, 20
	for _, c := range []struct {
		name          string
		run           task.Run
		cost          Cost
		setting       Setting
		problem, note string
	}{
		{"usual", runOf(1000, 100, 20, task.Files), even, usual, "", ""},
		{"chunk too long", runOf(1000, 100, 20, task.Files), slow, usual,
			"a chunk of 20 samples of even takes 17m17s, a worker has 14m30s: take a smaller --chunk", ""},
		{"chunk too large", runOf(1000, 100, 20, task.Files), fat, usual, "needs more memory than a worker of 10240 MB has",
			""},
		{"task too long", runOf(1000, 500, 20, task.Files), long, usual, "", "a task of even takes longer than the 14m30s"},
		{"waits too long", runOf(60_000_000, 100, 20, task.Files), even, usual,
			"the run takes 8.3 days with 10 workers, and the queue keeps a task for 7.0 days", ""},
		{"kept longer", runOf(60_000_000, 100, 20, task.Files), even, Setting{Worker: DefaultWorker(), Concurrency: 10,
			Retention: 14 * 24 * time.Hour}, "", ""},
		{"too many", runOf(1000, 100, 20, task.Files), even, Setting{Worker: DefaultWorker(), Concurrency: 1001},
			"1001 workers are more than the 1000", ""},
		{"many objects", runOf(1_000_000, 100, 20, task.Files), even, Setting{Worker: DefaultWorker(), Concurrency: 900}, "",
			"objects a second"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := estimate(t, c.run, c.cost, c.setting)
			problems, notes := strings.Join(e.Problems, "\n"), strings.Join(e.Notes, "\n")
			if (c.problem == "") != (problems == "") || !strings.Contains(problems, c.problem) {
				t.Errorf("problems %q, want %q", problems, c.problem)
			}
			if (c.note == "") != (notes == "") || !strings.Contains(notes, c.note) {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
		})
	}
}

func TestUnknown(t *testing.T) {
	run := runOf(10, 10, 10, task.Files)
	for _, name := range []string{"a", "b", "c", "d"} {
		run.Generators = append(run.Generators, task.RunGenerator{Name: name})
	}
	_, err := Of(run, map[string]Cost{"even": even}, Setting{Worker: DefaultWorker(), Concurrency: 1})
	if unknown, ok := errors.AsType[*UnknownCostError](err); !ok || fmt.Sprint(unknown.Generators) != "[a b c d]" ||
		!strings.Contains(err.Error(), "what samples of a, b, c and 1 more take was not measured yet") {
		t.Errorf("%v", err)
	}
}

// Advice for runs whose flaw is known.
func TestAdvise(t *testing.T) {
	usual := Setting{Worker: DefaultWorker(), Concurrency: 10}
	fat := even
	fat.PeakRSS = 4 << 30 // two at once in 10,240 MB
	slow := even
	slow.StartCPU, slow.StartWall = 2, 2
	costly := even
	costly.StartCPU, costly.StartWall = 10, 10
	for _, c := range []struct {
		name  string
		run   task.Run
		cost  Cost
		want  Advice // without dollars
		saves float64
		other int // chunk size
	}{
		{"a CPU is idle", runOf(10_000, 100, 20, task.Tar), even, Advice{MemoryMB: 10240, Batch: 240, ChunkSize: 20}, 0.1, 0},
		{"a CPU is idle and starts are slow", runOf(10_000, 100, 20, task.Tar), slow,
			Advice{MemoryMB: 10240, Batch: 240, ChunkSize: 20}, 0.1, 50},
		{"one chunk in a task", runOf(10_000, 100, 100, task.Tar), even, Advice{MemoryMB: 10240, Batch: 600, ChunkSize: 100},
			0.8, 0},
		{"memory for two", runOf(10_000, 100, 20, task.Tar), fat, Advice{MemoryMB: 10240, Batch: 280, ChunkSize: 20}, 0.1, 0},
		{"start costs as much as its samples", runOf(10_000, 120, 20, task.Tar), costly,
			Advice{MemoryMB: 10240, Batch: 240, ChunkSize: 20}, 0, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			same, other := Advise(c.run, map[string]Cost{"even": c.cost}, usual)
			if same.MemoryMB != c.want.MemoryMB || same.Batch != c.want.Batch || same.ChunkSize != c.want.ChunkSize ||
				same.Saves < c.saves {
				t.Errorf("%+v", same)
			}
			if (other != nil) != (c.other > 0) || other != nil && other.ChunkSize != c.other {
				t.Errorf("other chunks: %+v", other)
			}
		})
	}
}

// What is true of every plan.
func TestPlans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cost := Cost{
			Samples: rapid.IntRange(1, 50).Draw(t, "measured"), StartCPU: rapid.Float64Range(0, 5).Draw(t, "start"),
			SampleCPU: rapid.Float64Range(0.001, 5).Draw(t, "sample"),
			PeakRSS:   rapid.Int64Range(0, 3<<30).Draw(t, "rss"), SampleRSS: rapid.Int64Range(0, 10<<20).Draw(t, "growth"),
			SampleBytes: rapid.Int64Range(1, 5<<20).Draw(t, "bytes"), SampleFiles: rapid.IntRange(1, 10).Draw(t, "files"),
		}
		cost.StartWall, cost.SampleWall = cost.StartCPU*1.1, cost.SampleCPU
		costs := map[string]Cost{"even": cost}
		run := runOf(rapid.IntRange(1, 500).Draw(t, "samples"), rapid.IntRange(1, 300).Draw(t, "batch"),
			rapid.IntRange(1, 100).Draw(t, "chunk"),
			rapid.SampledFrom([]task.Format{task.Files, task.Tar}).Draw(t, "format"))
		s := Setting{Worker: memory(rapid.IntRange(128, 10240).Draw(t, "memory")),
			Concurrency: rapid.IntRange(1, 1000).Draw(t, "concurrency")}
		e, err := Of(run, costs, s)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for _, i := range e.Items[:len(e.Items)-2] {
			sum += i.Dollars
		}
		if !near(sum, e.Make) {
			t.Errorf("items are %g dollars, all is %g", sum, e.Make)
		}
		if e.Samples != run.Samples {
			t.Errorf("%d samples of %d", e.Samples, run.Samples)
		}
		for i, d := range e.Takes[1:] {
			if d.Seconds > e.Takes[i].Seconds*1.000001 {
				t.Errorf("with more workers it takes longer: %+v", e.Takes)
			}
		}
		if least := e.CPUSeconds / s.Share(); e.BusySeconds < least*0.999 {
			t.Errorf("workers are busy %g s, which is less than the CPU takes: %g", e.BusySeconds, least)
		}
		more := run
		more.Samples += 100
		if dearer, err := Of(more, costs, s); err != nil || dearer.Make < e.Make {
			t.Errorf("more samples cost less: %g, %g", dearer.Make, e.Make)
		}
		same, other := Advise(run, costs, s)
		if same.Saves < 0 || other != nil && other.Dollars > same.Dollars*(1-worthMore)*1.000001 && same.Dollars > 0 {
			t.Errorf("advice costs more: %+v %+v", same, other)
		}
	})
}
