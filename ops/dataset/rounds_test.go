package dataset

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// simulated is a generator with a pool of puzzles, and the bucket of what it made.
type simulated struct {
	pool   int
	skewed bool // some puzzles are preferred: the square of a uniform draw
	unlike bool // keeps the samples of one process distinct, as long as it can
	cells  map[task.Range][]store.Receipt
	made   int
	tried  map[string]bool // attempts and indices of repair tasks
	fails  bool            // repair tasks
}

func (g *simulated) draw(seed int, n int) []string {
	random := rand.New(rand.NewPCG(uint64(seed), 1)) //nolint:gosec // repeatable
	seen := map[int]bool{}
	var list []string
	for range n {
		var puzzle int
		for range 100 {
			x := random.Float64()
			if g.skewed {
				x *= x
			}
			puzzle = int(x * float64(g.pool))
			if !g.unlike || !seen[puzzle] {
				break
			}
		}
		seen[puzzle] = true
		list = append(list, fmt.Sprint(puzzle))
	}
	return list
}

// make does what a worker does.
func (g *simulated) produce(t task.Task) {
	for _, c := range t.Chunks() {
		list := g.cells[c.Cell]
		r := store.Receipt{Generator: t.Generator, RunSeed: t.Seed, ChunkSize: t.ChunkSize, Start: c.Keep.Start,
			End: c.Keep.End, Indices: c.Indices, Attempt: t.Attempt, Epoch: len(list) + 1}
		if c.Indices != nil {
			r.FirstAttempt = t.Attempt
		}
		marks := g.draw(c.Seed(t, t.Attempt), c.Count())
		g.made += len(c.Kept())
		for n, index := range c.Kept() {
			r.Samples = append(r.Samples, store.ReceiptSample{Index: index, Fingerprint: marks[n]})
		}
		g.cells[c.Cell] = append(list, r)
	}
}

func (g *simulated) rounds(t *testing.T, run task.Run) *Rounds {
	cells := map[task.Range]*store.Cell{}
	return &Rounds{Run: run, Limit: 4, Report: func(line string) { t.Log(line) },
		Read: func(_ context.Context, v *View) error {
			for cell, receipts := range g.cells {
				if cells[cell] == nil || len(cells[cell].Receipts) != len(receipts) {
					cells[cell] = cellOf(t, cell, receipts...)
				}
				v.Add(cells[cell])
			}
			return nil
		},
		Repair: func(_ context.Context, repairs [][]task.Task) error {
			for _, x := range repairs[0] {
				if err := x.Validate(); err != nil {
					t.Fatalf("%+v: %v", x, err)
				}
				for _, index := range x.Indices {
					id := fmt.Sprint(index, " ", x.Attempt)
					if g.tried[id] {
						t.Fatalf("attempt %d of sample %d a second time", x.Attempt, index)
					}
					g.tried[id] = true
				}
				if !g.fails {
					g.produce(x)
				}
			}
			return nil
		}}
}

// begin makes the samples of a run.
func (g *simulated) begin(samples, chunk, seed int) task.Run {
	g.cells, g.tried = map[task.Range][]store.Receipt{}, map[string]bool{}
	run := task.Run{ID: "r", Seed: seed, Samples: samples, Batch: 5 * chunk, ChunkSize: chunk, Format: task.Files,
		Generators: []task.RunGenerator{{Name: "g"}}}
	for _, t := range run.Plan() {
		g.produce(t)
	}
	return run
}

// Duplicates are replaced until there are none, or it is plain that the generator
// has no more, at a cost near the least that drawing at random can have: for 10,000
// samples of a pool of 13,300 that is 13,300·ln(13,300/3,300), 1.85 a sample. With SCALE=1
// that is what is made; else a fifth of such samples and pools.
func TestRoundsAtFullScale(t *testing.T) {
	for _, test := range []struct {
		name          string
		samples, pool int
		skewed        bool
		unlike        bool
		verdict       Verdict
		most          float64 // samples made for each wanted
	}{
		{"no duplicates", 10_000, 1 << 40, false, false, Distinct, 1},
		{"a small pool", 10_000, 13_300, false, false, Distinct, 2.2},
		{"a small pool, distinct in a process", 10_000, 13_300, false, true, Distinct, 2.2},
		{"a large pool", 10_000, 1_000_000, false, false, Distinct, 1.03},
		{"chess, 7", 10_000, 7, false, false, Exhausted, 1},
		{"hanoi, 348", 10_000, 348, false, true, Exhausted, 1},
		{"sequences, 2,037", 10_000, 2037, false, false, Exhausted, 1},
		{"lights, 272 and some preferred", 10_000, 272, true, false, Exhausted, 1},
		{"a little too small", 10_000, 9_300, false, false, Exhausted, 1.5},
		{"as many as wanted", 10_000, 10_000, false, false, TooCostly, 3},
		{"just enough", 10_000, 10_400, false, false, Distinct, 3.6},
		{"some preferred", 10_000, 30_000, true, false, Distinct, 2.2},
		{"few, of 7", 20, 7, false, false, Exhausted, 3.5},
		{"few, of 348", 20, 348, false, false, Distinct, 1.6},
		{"few, of 40", 30, 40, false, false, Distinct, 4},
		{"one", 1, 1, false, false, Distinct, 1},
		{"two of one", 2, 1, false, false, "", 30},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			seeds := 5
			if os.Getenv("SCALE") == "" {
				seeds = 1
				for _, n := range []*int{&test.samples, &test.pool} {
					if *n > 1000 {
						*n /= 5
					}
				}
			}
			for seed := range seeds {
				g := &simulated{pool: test.pool, skewed: test.skewed, unlike: test.unlike}
				run := g.begin(test.samples, 20, seed)
				outcomes, err := g.rounds(t, run).Do(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				o := outcomes[0]
				if o.Verdict != test.verdict && test.verdict != "" || o.Verdict == GoOn || o.Drawn != g.made ||
					o.Distinct+o.Duplicates != test.samples {
					t.Errorf("seed %d: %+v", seed, o)
				}
				if o.Verdict == Distinct && o.Duplicates > 0 || o.Verdict != Distinct && o.Pool == nil {
					t.Errorf("seed %d: %+v", seed, o)
				}
				if factor := float64(g.made) / float64(test.samples); factor > test.most {
					t.Errorf("seed %d: %.2f samples made for each wanted, at most %.2f may be: %s", seed, factor, test.most, o)
				}
				t.Logf("%d rounds, %d made, %s", o.Rounds, g.made, o)
			}
		})
	}
}

// Rounds that are stopped anywhere go on from the receipts.
func TestRoundsStopped(t *testing.T) {
	g := &simulated{pool: 400}
	run := g.begin(300, 20, 1)
	used := 0
	for stops := 0; ; stops++ {
		r := g.rounds(t, run)
		r.Used = used // as the stored runs have it
		repair, left := r.Repair, stops%3
		r.Repair = func(ctx context.Context, repairs [][]task.Task) error {
			used = max(used, repairs[0][0].Attempt)
			if left--; left < 0 { // some of it was sent
				_ = repair(ctx, [][]task.Task{repairs[0][:len(repairs[0])/2]})
				return context.Canceled
			}
			return repair(ctx, repairs)
		}
		outcomes, err := r.Do(t.Context())
		if err != nil {
			continue
		}
		if outcomes[0].Verdict != Distinct || g.made > 300*22/10 {
			t.Errorf("%+v after %d stops, %d made", outcomes[0], stops, g.made)
		}
		return
	}
}

// A generator whose repairs fail is left, and reported as failed.
func TestRoundsFail(t *testing.T) {
	g := &simulated{pool: 400, fails: true}
	run := g.begin(300, 20, 1)
	outcomes, err := g.rounds(t, run).Do(t.Context())
	if err != nil || outcomes[0].Verdict != Failed || outcomes[0].Rounds != 1 {
		t.Errorf("%+v, %v", outcomes, err)
	}
}

// The estimate is near the truth, its interval holds it most of the time, and for
// a generator with preferences it does not promise more than there is.
func TestPoolEstimate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pool, draws int
		skewed      bool
	}{{7, 100, false}, {348, 1000, false}, {348, 10_000, false}, {13_300, 10_000, false}, {13_300, 2_000, false},
		{13_300, 20_000, true}, {1_000_000, 10_000, false}} {
		inside, trials, sum := 0, 25, 0
		if test.draws >= 10_000 && os.Getenv("SCALE") == "" {
			trials = 10
		}
		for seed := range trials {
			g := &simulated{pool: test.pool, skewed: test.skewed}
			v := &View{Generator: "g", Range: task.Range{End: test.draws}}
			r := store.Receipt{Generator: "g", Epoch: 1, End: test.draws}
			for i, mark := range g.draw(seed, test.draws) {
				r.Samples = append(r.Samples, store.ReceiptSample{Index: i, Fingerprint: mark})
			}
			v.Add(cellOf(t, r.Range(), r))
			p := v.Pool()
			sum += p.Estimate
			if p.Low <= test.pool && test.pool <= p.High {
				inside++
			}
			if p.Low > p.Estimate || p.Estimate > p.High {
				t.Errorf("%+v", p)
			}
		}
		mean := float64(sum) / float64(trials) / float64(test.pool)
		t.Logf("pool %d, %d draws: the mean estimate is %.3f of it, %d of %d intervals hold it", test.pool, test.draws, mean,
			inside, trials)
		if !test.skewed && (inside < trials*8/10 || mean < 0.95 || mean > 1.25) || test.skewed && mean > 1.05 {
			t.Errorf("pool %d, %d draws: the mean estimate is %.3f of it, %d of %d intervals hold it", test.pool, test.draws,
				mean, inside, trials)
		}
	}
}

func TestRepairTasks(t *testing.T) {
	run := task.Run{Seed: 7, ChunkSize: 3, Batch: 2, Format: task.Tar}
	var got [][]int
	for _, x := range RepairTasks(run, task.RunGenerator{Name: "g"}, 2000, []int{1, 2, 9_999, 10_001, 10_002, 10_003,
		10_004, 90_000}) {
		if err := x.Validate(); err != nil || x.Seed != 7 || x.Attempt != 2000 || x.ChunkSize != 3 || x.Format != task.Tar {
			t.Errorf("%+v: %v", x, err)
		}
		got = append(got, x.Indices)
	}
	want := [][]int{{1, 2}, {9_999, 10_001}, {10_002, 10_003, 10_004}, {90_000}} // 9,999 to 10,001 are a cell
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%v", got)
	}
}
