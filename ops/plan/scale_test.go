package plan

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

var update = flag.Bool("update", false, "write the tables into docs/SCALE.md")

// fifty are generators like those of the organisation: 0.1 to 5 s of CPU for a
// sample, 20 to 730 kB, 200 to 800 MB of memory, 1.0 to 1.7 s to start.
func fifty() (map[string]Cost, []task.RunGenerator) {
	costs := map[string]Cost{}
	var list []task.RunGenerator
	for i := range 50 {
		part := float64(i) / 49
		name := fmt.Sprintf("generator-%02d", i)
		sample, start := 0.1*math.Pow(50, part), 1+0.7*part
		at := float64(i*17%50) / 49 // slow ones are not the large ones
		costs[name] = Cost{Generator: name, Samples: 20, StartCPU: start, SampleCPU: sample, StartWall: start,
			SampleWall: sample,
			PeakRSS:    int64(200e6 + 600e6*at), SampleRSS: 2e6, SampleBytes: int64(20e3 + 710e3*at), SampleFiles: 5}
		list = append(list, task.RunGenerator{Name: name})
	}
	return costs, list
}

// scenario is a run that is simulated.
type scenario struct {
	samples, workers int // of all generators together; at once
	batch, chunk     int
	format           task.Format
	nature           nature
	what             string
}

// long reports whether it takes seconds, and is left out unless those are asked for.
func (s scenario) long() bool { return s.samples > 5_000_000 && !full() }

// full reports whether everything is to be simulated.
func full() bool { return os.Getenv("SCALE") != "" || *update }

func (s scenario) run(list []task.RunGenerator) task.Run {
	return task.Run{ID: "run", Seed: 42, Samples: s.samples / len(list), Batch: s.batch, ChunkSize: s.chunk,
		Format: s.format, Generators: list}
}

// A run of 500,000 samples and one of 50,000,000, by the code that plans them:
// nothing is lost and nothing is made twice, the queue holds what it has to hold,
// and a plan is near what happens. docs/SCALE.md has the tables that it prints. Those of
// fifty million take most of the time: SCALE=1 makes them too.
func TestScale(t *testing.T) {
	costs, list := fifty()
	scenarios := []scenario{
		{500_000, 10, 100, 20, task.Files, rough, "half a million"},
		{500_000, 100, 100, 20, task.Files, rough, "half a million"},
		{500_000, 900, 100, 20, task.Files, rough, "half a million"},
		{50_000_000, 100, 100, 20, task.Files, rough, "fifty million"},
		{50_000_000, 900, 100, 20, task.Files, rough, "fifty million"},
		{50_000_000, 900, 120, 20, task.Tar, rough, "fifty million, as shards"},
		{5_000_000, 900, 100, 20, task.Files, nature{never: 1, quick: true}, "five million, everything fails at once"},
	}
	var plans, happened bytes.Buffer
	p, h := tabwriter.NewWriter(&plans, 0, 8, 2, ' ', 0), tabwriter.NewWriter(&happened, 0, 8, 2, ' ', 0)
	fmt.Fprintln(p, "SAMPLES\tWORKERS\tTASKS\tCHUNKS\tFORMAT\tTAKES\tUSD\tGB\tPUT/S\tPUT/S/GENERATOR\t")
	fmt.Fprintln(h, "SAMPLES\tWORKERS\tTAKES\tUSD\tDELIVERIES\tAGAIN\tSENT ON\tKILLED\tDOUBLE\tDEAD\tIN FLIGHT\tPUT/S\tPUT/S/GENERATOR\tWAITS\t")
	for _, s := range scenarios {
		if s.long() {
			continue
		}
		run := s.run(list)
		setting := Setting{Worker: DefaultWorker(), Concurrency: s.workers}
		e, err := Of(run, costs, setting)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		o := simulate(run, costs, setting, s.nature)
		t.Logf("%s: simulated in %.1f s", s.what, time.Since(began).Seconds())
		o.check(t, s, e)

		takes := e.takes(s.workers)
		fmt.Fprintf(p, "%s\t%d\t%s\t%s\t%s\t%s\t%.0f\t%.0f\t%.0f\t%.0f\t\n", number(e.Samples), s.workers, number(e.Tasks),
			number(e.Chunks), s.format,
			seconds(takes), e.Make, float64(e.Bytes)/1e9, e.PutRate, e.PutRate/float64(len(list)))
		dollars := e.Make + e.Worker.dollars(o.busy-e.BusySeconds)
		fmt.Fprintf(h, "%s\t%d\t%s\t%.0f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", number(e.Samples), s.workers,
			seconds(o.took), dollars,
			number(o.deliveries), number(o.redelivered), number(o.continued), number(o.lost), number(o.doubled), number(o.dead),
			number(o.mostFlying), number(o.putsPerSecond), number(o.putsPerGenerator), seconds(o.longestWait))
	}
	_ = p.Flush()
	_ = h.Flush()
	t.Logf("planned:\n%shappened:\n%s", &plans, &happened)
	document(t, "planned", plans.String())
	document(t, "simulated", happened.String())
}

// The same while S3 has one partition for a new bucket: what is refused is sent again
// until it is stored, and nothing is generated twice for it.
func TestOnePartition(t *testing.T) {
	costs, list := fifty()
	type row struct {
		scenario
		limit  int
		window int     // in ticks
		splits float64 // in seconds
		prose  bool    // docs/SCALE.md has it outside the table
	}
	rows := []row{
		{scenario{500_000, 900, 100, 20, task.Files, rough, "half a million"}, putsPerPrefix, ticks, 0, false},
		{scenario{500_000, 900, 100, 20, task.Files, rough, "half a million, counted in 50 ms"}, putsPerPrefix, 1, 0, false},
		{scenario{500_000, 200, 100, 20, task.Files, rough, "half a million, fewer workers"}, putsPerPrefix, ticks, 0, false},
		{scenario{500_000, 900, 120, 20, task.Tar, rough, "half a million, as shards"}, putsPerPrefix, ticks, 0, false},
		{scenario{100_000, 900, 100, 20, task.Files, rough, "a tenth of what S3 takes"}, putsPerPrefix / 10, ticks, 0, false},
		{scenario{50_000_000, 900, 100, 20, task.Files, rough, "fifty million"}, putsPerPrefix, ticks, 3600, false},
		{scenario{50_000_000, 900, 100, 20, task.Files, rough, "fifty million, never split"}, putsPerPrefix, ticks, 0, true},
	}
	var table, prose bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "SAMPLES\tWORKERS\tFORMAT\tLIMIT\tIN\tSPLIT\tTAKES\tUSD\tPUT\tREFUSED\tPUT/S\tDELIVERIES\tAGAIN\tSENT ON\tMADE AGAIN\tDEAD\tLONGEST\t")
	for _, s := range rows {
		if s.long() {
			continue
		}
		run, setting := s.run(list), Setting{Worker: DefaultWorker(), Concurrency: s.workers}
		e, err := Of(run, costs, setting)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		m := newSimulation(run, costs, setting, s.nature)
		m.partition = &partition{perSecond: s.limit, window: s.window, random: m.random,
			taken: func(u *upload) { m.count(m.index[u.of.inv.message.task.Generator], m.now, 1) }}
		m.splits = s.splits
		m.loop()
		m.finish()
		o := m.seen
		t.Logf("%s: simulated in %.1f s", s.what, time.Since(began).Seconds())
		o.sound(t, s.scenario)
		split := "never"
		if s.splits > 0 {
			split = seconds(s.splits)
			if o.putsPerGenerator > putsPerPrefix {
				t.Errorf("%s: %d PUT/s for a generator, after the split they are refused, too", s.what, o.putsPerGenerator)
			}
		} else if o.putsPerSecond > s.limit {
			t.Errorf("%s: %d PUT/s were taken", s.what, o.putsPerSecond)
		}
		if s.limit == putsPerPrefix && (o.madeAgain > 0 || o.dead > int(3*s.nature.never*float64(o.chunks))+10) {
			t.Errorf("%s: %d chunks were made again, %d are dead", s.what, o.madeAgain, o.dead)
		}
		to := io.Writer(w)
		if s.prose {
			to = &prose
		}
		fmt.Fprintf(to, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%.0f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", number(e.Samples),
			s.workers, s.format,
			number(s.limit), time.Duration(s.window)*requestTime, split, seconds(o.took),
			e.Make+e.Worker.dollars(o.busy-e.BusySeconds),
			number(e.Requests.Put), number(m.partition.refusals), number(o.putsPerSecond), number(o.deliveries),
			number(o.redelivered),
			number(o.continued), number(o.madeAgain), number(o.dead), seconds(o.longest))
	}
	_ = w.Flush()
	t.Logf("\n%s%s", &table, &prose)
	document(t, "partition", table.String())
}

// sound holds a simulated run to what is true of every one, whatever goes wrong.
func (o observed) sound(t *testing.T, s scenario) {
	t.Helper()
	if o.commits+o.dead != o.chunks {
		t.Errorf("%s: of %d chunks %d are committed and %d dead", s.what, o.chunks, o.commits, o.dead)
	}
	if o.mostRunning > s.workers {
		t.Errorf("%s: %d invocations at once", s.what, o.mostRunning)
	}
	if o.mostFlying > 120_000 {
		t.Errorf("%s: %d messages in flight, SQS takes 120,000", s.what, o.mostFlying)
	}
	if o.longestWait > DefaultRetention.Seconds() {
		t.Errorf("%s: a task waited %s, the queue keeps it %s", s.what, seconds(o.longestWait), DefaultRetention)
	}
}

// check holds a simulated run of which S3 refuses nothing to its plan, too.
func (o observed) check(t *testing.T, s scenario, e *Estimate) {
	t.Helper()
	o.sound(t, s)
	if s.nature.quick {
		if o.commits > 0 || o.deliveries < maxReceives*e.Tasks {
			t.Errorf("%s: %+v", s.what, o)
		}
		return
	}
	if most := int(3 * s.nature.never * float64(o.chunks)); o.dead > most+10 {
		t.Errorf("%s: %d chunks are dead", s.what, o.dead)
	}
	// What goes wrong costs up to a third: half of it the heavy tails.
	if ratio := o.busy / e.BusySeconds; ratio < 0.95 || ratio > 1.35 {
		t.Errorf("%s: workers were at work %.2f times as long as planned", s.what, ratio)
	}
	// the last heavy tail
	if ratio := o.took / e.takes(s.workers); ratio < 0.95 || ratio > 1.6 && o.took-e.takes(s.workers) > 1800 {
		t.Errorf("%s: it took %.2f times as long as planned", s.what, ratio)
	}
}

// document compares a table with the one in docs/SCALE.md, or writes it there. Of one
// that was not made in full each row must be there.
func document(t *testing.T, name, table string) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		return // floating point differs a little elsewhere
	}
	path := filepath.Join("..", "..", "docs", "SCALE.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+name+" -->\n```\n", "```\n<!-- end -->"
	before, rest, found := strings.Cut(string(text), begin)
	old, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no place for the table %q", path, name)
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+table+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	// Columns are as wide as their widest row.
	rows := func(table string) (list []string) {
		for line := range strings.Lines(table) {
			list = append(list, strings.Join(strings.Fields(line), " "))
		}
		return list
	}
	has, want := rows(old), rows(table)
	if !full() {
		has = slices.DeleteFunc(has, func(row string) bool { return !slices.Contains(want, row) })
	}
	if !slices.Equal(has, want) {
		t.Errorf("%s has another table %q: go test ./ops/plan -run 'TestScale|TestOnePartition' -update writes this one\n%s",
			path, name, table)
	}
}

// number writes a count with separators.
func number(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
