package local

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// schedule is everything that a seed decides, before anything happens.
type schedule struct {
	seed     uint64
	format   task.Format
	workers  int
	batch    int
	rate     float64 // of requests that something happens to
	dateSkew time.Duration
	behind   []time.Duration // the workers' clocks
	beside   bool            // a second dataset is made by the same workers
	late     bool            // the generator is fixed only when the queue has become empty
	length   time.Duration   // of the part in which things happen
	events   []event
	submits  []time.Duration // how long each call of ops submit lives; those after them are left alone
}

// event is one thing that happens at a moment of the schedule.
type event struct {
	at   time.Duration
	what string
	n    int           // which of several
	take time.Duration // how long it lasts
}

func (e event) String() string {
	return fmt.Sprintf("%.1fs %s %d %v", e.at.Seconds(), e.what, e.n, e.take)
}

// Chunks and samples of every schedule; the undisturbed run has the same. The
// real generator takes a third of a second of CPU per process.
const (
	chaosChunk   = 2
	besideChunk  = 3
	realSamples  = 4
	moodySamples = 12

	// Of an invocation while things happen, and afterwards. What is still to be
	// made then must be made on a busy machine, too.
	chaosTimeout = 9 * time.Second
	calmTimeout  = time.Minute
)

// beside is the dataset that some schedules make beside the default one.
const beside task.Dataset = "beside"

// newSchedule draws a schedule.
func newSchedule(seed uint64) schedule {
	random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // repeatable
	some := func(low, high time.Duration) time.Duration { return low + rand64(random, high-low) }
	pick := func(list ...float64) float64 { return list[random.IntN(len(list))] }
	s := schedule{
		seed: seed, workers: 2 + random.IntN(2), batch: 2 + random.IntN(5),
		format: []task.Format{task.Files, task.Tar}[random.IntN(2)],
		rate:   pick(0, 0.05, 0.15, 0.3), beside: random.IntN(4) == 0,
		length: some(5*time.Second, 12*time.Second), late: random.IntN(3) == 0,
	}
	if random.IntN(2) == 0 {
		s.dateSkew = some(-10*time.Minute, 10*time.Minute).Round(time.Second)
	}
	for range s.workers {
		behind := time.Duration(0)
		switch random.IntN(6) {
		case 0:
			behind = some(0, 2*time.Minute) // holds that are not given up live as much longer
		case 1:
			behind = -some(0, 4*time.Second) // further ahead, every invocation is over before it begins
		}
		s.behind = append(s.behind, behind)
	}
	for range random.IntN(3) {
		s.submits = append(s.submits, some(5*time.Millisecond, 300*time.Millisecond))
	}
	for range 2 + random.IntN(7) {
		e := event{at: some(0, s.length), n: random.IntN(1000)}
		switch p := random.IntN(100); {
		case p < 40:
			e.what = "kill worker"
		case p < 50:
			e.what, e.take = "kill stack", some(0, 2*time.Second)
		case p < 55:
			e.what, e.take = "stop stack", some(0, time.Second)
		case p < 60:
			e.what = "kill gateway"
		case p < 72:
			e.what = "send again"
		case p < 80:
			e.what, e.take = "receive and forget", some(time.Second, 3*time.Second).Round(time.Second)
		case p < 85:
			e.what = "send junk"
		case p < 90:
			e.what, e.take = "replay", some(20*time.Millisecond, 400*time.Millisecond)
		default:
			e.what, e.take = "outage", some(time.Second, 5*time.Second)
		}
		s.events = append(s.events, e)
	}
	// Three schedules of four have a bucket that throttles or is silent for a time.
	if what := []string{"", "throttle", "throttle", "silence"}[random.IntN(4)]; what != "" {
		s.events = append(s.events, event{at: some(0, s.length/2), what: what, n: random.IntN(1000),
			take: some(2*time.Second, 6*time.Second)})
	}
	slices.SortFunc(s.events, func(a, b event) int { return int(a.at - b.at) })
	return s
}

func rand64(random *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(d)))
}

// run is a run of the schedule: what its ops submit makes.
func (s schedule) run(id string, generators []string, samples int) task.Run {
	r := task.Run{ID: id, Seed: 1, Samples: samples, Batch: s.batch, ChunkSize: chaosChunk, Format: s.format}
	for _, name := range generators {
		r.Generators = append(r.Generators, task.RunGenerator{Name: name})
	}
	return r
}

// runs are the runs of the schedule in the order of their submission. Ids sort
// that way, too.
func (s schedule) runs() []task.Run {
	list := []task.Run{s.run("r1", []string{hanoi}, realSamples), s.run("r2", []string{moody}, moodySamples)}
	if s.beside { // nothing of it is that of the other
		r := s.run("r3", []string{moody}, moodySamples)
		r.Dataset, r.Seed, r.ChunkSize, r.Format = beside, 2, besideChunk, task.Files
		if s.format == task.Files {
			r.Format = task.Tar
		}
		list = append(list, r)
	}
	return list
}
