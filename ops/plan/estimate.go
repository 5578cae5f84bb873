// Package plan predicts what a dataset takes: tasks, time, storage and money.
package plan

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/price"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Setting is the stack that makes a run.
type Setting struct {
	Worker
	Concurrency int           // invocations at once
	Retention   time.Duration // how long a task may wait in the queue; 0 is DefaultRetention
}

// DefaultSetting is DefaultWorker in an account that may have ten at once.
func DefaultSetting() Setting { return Setting{Worker: DefaultWorker(), Concurrency: 10} }

// DefaultRetention is how long the queue of a stack keeps a task unless it is configured otherwise.
const DefaultRetention = 7 * 24 * time.Hour

// Estimate is what a run takes.
type Estimate struct {
	Worker      Worker              `json:"worker"`
	Concurrency int                 `json:"concurrency"`
	Samples     int                 `json:"samples"`
	Tasks       int                 `json:"tasks"`
	Chunks      int                 `json:"chunks"` // that are made: one that two tasks share counts twice
	Bytes       int64               `json:"bytes"`  // stored
	Objects     int                 `json:"objects"`
	CPUSeconds  float64             `json:"cpu_seconds"`    // of the generators, on the CPU that was measured
	BusySeconds float64             `json:"worker_seconds"` // of all invocations
	GBSeconds   float64             `json:"gb_seconds"`     // cold starts included
	Requests    Requests            `json:"requests"`
	PutRate     float64             `json:"puts_per_second"` // when all workers are at work
	Takes       []Duration          `json:"takes"`
	Items       []Item              `json:"items"`
	Make        float64             `json:"dollars"`          // to make the run, once
	Keep        float64             `json:"dollars_a_month"`  // to keep the samples
	Fetch       float64             `json:"dollars_download"` // to download them
	Generators  []GeneratorEstimate `json:"generators"`
	Problems    []string            `json:"problems,omitempty"` // why it cannot work
	Notes       []string            `json:"notes,omitempty"`
	Changed     []string            `json:"changed,omitempty"` // measured at another commit or with other options

	longest float64 // seconds of the longest task
}

// GeneratorEstimate is one generator's part.
type GeneratorEstimate struct {
	Name         string    `json:"name"`
	Samples      int       `json:"samples"`
	Tasks        int       `json:"tasks"`
	Chunks       int       `json:"chunks"`
	ChunkSize    int       `json:"chunk_size"`
	AtOnce       int       `json:"at_once"`       // chunks side by side in one worker
	ChunkSeconds float64   `json:"chunk_seconds"` // of a chunk beside as many as fit
	TaskSeconds  float64   `json:"task_seconds"`  // of its longest task
	CPUSeconds   float64   `json:"cpu_seconds"`
	BusySeconds  float64   `json:"worker_seconds"`
	Bytes        int64     `json:"bytes"`
	Objects      int       `json:"objects"`
	Dollars      float64   `json:"dollars"` // of its invocations and its requests
	Measured     time.Time `json:"measured"`
	Commit       string    `json:"measured_commit,omitempty"`
	requests     Requests
}

// Duration is how long a run takes with so many invocations at once.
type Duration struct {
	Concurrency int     `json:"concurrency"`
	Seconds     float64 `json:"seconds"`
}

// Item is a line of the bill.
type Item struct {
	Name    string  `json:"name"`
	Amount  float64 `json:"amount"`
	Unit    string  `json:"unit"`
	Price   float64 `json:"price"`  // USD of one
	Source  string  `json:"source"` // of the price
	Date    string  `json:"date"`   // of the price
	Dollars float64 `json:"dollars"`
}

// UnknownCostError names generators of which it is not known what they take.
type UnknownCostError struct{ Generators []string }

func (e *UnknownCostError) Error() string {
	return "what samples of " + ui.Some(e.Generators, 3) + " take was not measured yet"
}

// usual are the concurrencies for which a plan always shows how long it takes: what
// a new account may have, and what 1,000 leave for the rest of it.
var usual = []int{10, 100, 900}

// Of estimates what a run takes, from its tasks as ops submit sends them. It fails with an *UnknownCostError. What
// makes the run impossible is in the estimate's problems.
func Of(run task.Run, costs map[string]Cost, s Setting) (*Estimate, error) {
	e := &Estimate{Worker: s.Worker, Concurrency: s.Concurrency}
	var unknown []string
	place := map[string]int{}
	for _, g := range run.Generators {
		c, known := costs[g.Name]
		if !known {
			unknown = append(unknown, g.Name)
			continue
		}
		if c.Commit != "" && g.Commit != "" && c.Commit != g.Commit || !maps.Equal(c.Options, g.Options) {
			e.Changed = append(e.Changed, g.Name)
		}
		size := run.Chunk(g)
		one := GeneratorEstimate{Name: g.Name, ChunkSize: size, AtOnce: s.AtOnce(c, size), Measured: c.Measured,
			Commit: c.Commit}
		one.ChunkSeconds = s.chunk(c, size, max(one.AtOnce, 1))
		place[g.Name] = len(e.Generators)
		e.Generators = append(e.Generators, one)
	}
	if unknown != nil {
		return nil, &UnknownCostError{unknown}
	}
	// A run has many tasks of few shapes: same generator, same cut.
	type shape struct {
		generator            string
		offset, count, parts int
		repair               bool
	}
	known := map[shape]GeneratorEstimate{}
	for _, t := range run.Plan() {
		g := &e.Generators[place[t.Generator]]
		r := t.Range()
		k := shape{t.Generator, r.Start % t.ChunkSize, t.Count(), t.PartSize, t.Indices != nil}
		one, there := known[k]
		if !there {
			one = s.task(t, costs[t.Generator])
			known[k] = one
		}
		g.add(one)
	}
	for i := range e.Generators {
		e.include(&e.Generators[i])
	}
	e.Requests.add(send(e.Tasks), 1)
	e.bill(run)
	e.judge(s)
	return e, nil
}

func (w Worker) task(t task.Task, c Cost) GeneratorEstimate {
	e := GeneratorEstimate{Samples: t.Count(), Tasks: 1}
	made := 0 // by one process
	for _, chunk := range t.Chunks() {
		for _, part := range t.Parts(chunk) {
			e.Chunks++
			made = max(made, part.Count())
			kept := len(part.Kept())
			e.CPUSeconds += c.CPU(part.Count())
			e.Bytes += int64(kept)*c.SampleBytes + receiptBytes(kept, c.SampleFiles)
			e.Objects += c.objects(t.Format, kept)
		}
	}
	e.requests = work(t, c)
	// A cell's parts are made one after the other: as good as one process that starts several times.
	e.TaskSeconds = w.Task(c, made, e.Chunks, int64(made)*c.SampleBytes, c.objects(t.Format, made))
	e.BusySeconds = e.TaskSeconds
	return e
}

func (c Cost) objects(f task.Format, samples int) int {
	if f == task.Tar {
		return 1
	}
	return samples * c.SampleFiles
}

// receiptBytes is about what a receipt takes.
func receiptBytes(samples, files int) int64 { return int64(750 + samples*(110+115*files)) }

func (g *GeneratorEstimate) add(one GeneratorEstimate) {
	g.Samples += one.Samples
	g.Tasks++
	g.Chunks += one.Chunks
	g.CPUSeconds += one.CPUSeconds
	g.BusySeconds += one.BusySeconds
	g.TaskSeconds = max(g.TaskSeconds, one.TaskSeconds)
	g.Bytes += one.Bytes
	g.Objects += one.Objects
	g.requests.add(one.requests, 1)
}

func (e *Estimate) include(g *GeneratorEstimate) {
	g.requests.add(verify(g.Chunks, g.Objects), 1)
	g.Dollars = e.Worker.dollars(g.BusySeconds) + g.requests.dollars()
	e.Samples += g.Samples
	e.Tasks += g.Tasks
	e.Chunks += g.Chunks
	e.CPUSeconds += g.CPUSeconds
	e.BusySeconds += g.BusySeconds
	e.Bytes += g.Bytes
	e.Objects += g.Objects
	e.longest = max(e.longest, g.TaskSeconds)
	e.Requests.add(g.requests, 1)
}

func (r Requests) dollars() float64 {
	return float64(r.Invocations)*price.Invocation.Dollars + float64(r.Queue)*price.QueueRequest.Dollars +
		float64(r.Put+r.List)*price.Put.Dollars + float64(r.Get)*price.Get.Dollars
}

// What a worker logs, with Lambda's own lines and the 26 bytes that CloudWatch adds
// to each, in bytes; and the metrics it has for each generator and for all.
const (
	logOfTask  = 1750
	logOfChunk = 525
	metrics    = 3
)

// bill fills in times and dollars.
func (e *Estimate) bill(run task.Run) {
	for _, c := range slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(usual), e.Concurrency)))) {
		e.Takes = append(e.Takes, Duration{c, e.takes(c)})
	}
	workers := min(e.Concurrency, e.Tasks)
	seconds := e.BusySeconds + float64(workers)*coldStart.Seconds()
	e.GBSeconds = seconds * float64(e.Worker.MemoryMB) / price.MegabytesPerGB
	if e.BusySeconds > 0 {
		e.PutRate = float64(e.Requests.Put) / e.BusySeconds * float64(workers)
	}
	memory := price.GBSecondX86
	if e.Worker.Architecture == price.ARM {
		memory = price.GBSecondARM
	}
	disk := seconds * float64(max(e.Worker.DiskMB-price.FreeDiskMB, 0)) / price.MegabytesPerGB
	logs := float64(logOfTask*e.Tasks+logOfChunk*e.Chunks) / price.BytesPerGB
	hours := math.Ceil(e.takes(e.Concurrency) / 3600)
	if e.Tasks == 0 {
		hours = 0
	}
	stored := float64(e.Bytes) / price.BytesPerGB
	add := func(name string, amount float64, p price.Price) float64 {
		item := Item{name, amount, p.Unit, p.Dollars, p.Source, p.Date, amount * p.Dollars}
		e.Items = append(e.Items, item)
		return item.Dollars
	}
	e.Make = add("Lambda, memory", e.GBSeconds, memory)
	e.Make += add("Lambda, disk", disk, price.DiskGBSecond)
	e.Make += add("Lambda, requests", float64(e.Requests.Invocations), price.Invocation)
	e.Make += add("SQS", float64(e.Requests.Queue), price.QueueRequest)
	e.Make += add("S3, writing and listing", float64(e.Requests.Put+e.Requests.List), price.Put)
	e.Make += add("S3, reading", float64(e.Requests.Get), price.Get)
	e.Make += add("logs", logs, price.LogGB)
	e.Make += add("metrics", metrics*float64(len(run.Generators)+1)*hours/price.HoursPerMonth, price.MetricMonth)
	e.Keep = add("to keep it, a month", stored, price.StorageMonth)
	e.Fetch = add("to download it", stored, price.Download)
}

// How Lambda takes tasks from a queue: five at a time at first, 300 a minute more after that.
// https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
const (
	firstWorkers = 5
	moreWorkers  = 300.0 / 60 // a second
)

// takes is how long the run takes from the first delivery on, in seconds: the workers become more until they are as
// many as there may be, and all of them together have BusySeconds to do. At the end some wait for the last.
func (e *Estimate) takes(concurrency int) float64 {
	most := float64(min(concurrency, e.Tasks))
	if most == 0 {
		return 0
	}
	first := min(firstWorkers, most)
	rising := (most - first) / moreWorkers
	done := first*rising + moreWorkers*rising*rising/2 // until then
	var seconds float64
	if e.BusySeconds <= done {
		seconds = (-first + math.Sqrt(first*first+2*moreWorkers*e.BusySeconds)) / moreWorkers
	} else {
		seconds = rising + (e.BusySeconds-done)/most
	}
	seconds += e.longest / 2
	if e.Tasks <= concurrency { // each has a worker for itself
		seconds = min(seconds, rising+e.longest)
	}
	return coldStart.Seconds() + max(seconds, e.longest)
}

// putsPerPrefix is what S3 takes in a second for one partition of its keys. It
// begins with one for a bucket and splits them by itself under load.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html
const putsPerPrefix = 3500

// MostWorkers is how many invocations at once a queue can feed, and what AWS lets most accounts have.
const MostWorkers = 1000

// judge notes what cannot work, and what an operator should know.
func (e *Estimate) judge(s Setting) {
	retention := cmp.Or(s.Retention, DefaultRetention)
	limit := e.Worker.Limit().Seconds()
	var continued []string
	for _, g := range e.Generators {
		switch {
		case g.Tasks == 0:
		case g.AtOnce == 0:
			e.problem("a chunk of %d samples of %s needs more memory than a worker of %d MB has for it: take a smaller "+
				"--chunk or more --memory", g.ChunkSize, g.Name, e.Worker.MemoryMB)
		case g.ChunkSeconds > limit:
			e.problem("a chunk of %d samples of %s takes %s, a worker has %s: take a smaller --chunk or more --memory",
				g.ChunkSize, g.Name, seconds(g.ChunkSeconds), seconds(limit))
		case g.TaskSeconds > limit:
			continued = append(continued, g.Name)
		}
	}
	if continued != nil {
		e.note("a task of %s takes longer than the %s that a worker has: the rest of it is sent on as a new task, which is "+
			"no loss, but a smaller --batch is simpler", ui.Some(continued, 3), seconds(limit))
	}
	if takes := e.takes(e.Concurrency); takes > retention.Seconds() {
		e.problem("the run takes %s with %d workers, and the queue keeps a task for %s: take more workers, or submit it in "+
			"parts with --start", seconds(takes), e.Concurrency, seconds(retention.Seconds()))
	}
	if e.Concurrency > MostWorkers {
		e.problem("%d workers are more than the %d that a queue can feed at once", e.Concurrency, MostWorkers)
	}
	if e.PutRate > putsPerPrefix {
		e.note("with all workers it puts %.0f objects a second, %.0f for each generator; S3 takes %d for a prefix and "+
			"splits prefixes by itself, in a time that AWS does not specify; until then workers that wait to try again are "+
			"paid, so fewer of them or --format tar cost less", e.PutRate, e.PutRate/float64(len(e.Generators)), putsPerPrefix)
	}
}

func (e *Estimate) problem(format string, args ...any) {
	e.Problems = append(e.Problems, fmt.Sprintf(format, args...))
}

func (e *Estimate) note(format string, args ...any) {
	e.Notes = append(e.Notes, fmt.Sprintf(format, args...))
}

func seconds(s float64) string { return ui.Span(ui.Seconds(s)) }
