package dataset

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Pool is an estimate of how many different puzzles a generator has: the bias-corrected form of Chao1 (A. Chao,
// Scandinavian Journal of Statistics 11, 1984, 265-270). Of n draws with d different ones, f1 seen once and f2 seen
// twice, it is d + f1(f1-1) / 2(f2+1): unbiased if puzzles are drawn evenly, else a lower bound. The interval is the
// log-normal one of A. Chao, Biometrics 43, 1987, 783-791, with the variance of R. K. Colwell's EstimateS (appendix).
type Pool struct {
	Estimate int `json:"estimate"`
	Low      int `json:"low"`  // of the interval that holds it with a probability of 95 %
	High     int `json:"high"` //
	Drawn    int `json:"drawn"`
	Once     int `json:"once"` // puzzles that were drawn once
}

func (p Pool) String() string {
	if p.Low == p.High {
		return fmt.Sprintf("about %d", p.Estimate)
	}
	return fmt.Sprintf("about %d (95 %%: %d to %d)", p.Estimate, p.Low, p.High)
}

// Pool estimates from every draw for the range, those included that were replaced since.
func (v *View) Pool() Pool {
	times := map[[16]byte]int32{}
	for _, d := range v.draws {
		times[d.Puzzle]++
	}
	puzzles := map[int32]int{} // by how often they were drawn
	for _, n := range times {
		puzzles[n]++
	}
	return estimate(len(v.draws), len(times), puzzles[1], puzzles[2])
}

func estimate(drawn, distinct, once, twice int) Pool {
	n, d, f1, f2 := float64(drawn), float64(distinct), float64(once), float64(twice)
	unseen := f1 * (f1 - 1) / (2 * (f2 + 1))
	p := Pool{Drawn: drawn, Once: once, Estimate: int(math.Round(d + unseen))}
	var variance float64
	switch {
	case f1 > 0 && f2 > 0:
		variance = f1*(f1-1)/(2*(f2+1)) + f1*(2*f1-1)*(2*f1-1)/(4*(f2+1)*(f2+1)) +
			f1*f1*f2*(f1-1)*(f1-1)/(4*math.Pow(f2+1, 4))
	case f1 > 0 && d+unseen > 0:
		variance = f1*(f1-1)/2 + f1*(2*f1-1)*(2*f1-1)/4 - math.Pow(f1, 4)/(4*(d+unseen))
	}
	if unseen > 0 && variance > 0 {
		k := math.Exp(1.96 * math.Sqrt(math.Log(1+variance/(unseen*unseen))))
		p.Low, p.High = int(math.Floor(d+unseen/k)), int(math.Ceil(min(d+unseen*k, math.MaxInt32)))
		return p
	}
	// Nothing, or a single puzzle, was seen just once: as good as all are known, but some may be missed n times.
	if d > 0 && n > 0 {
		missed := math.Exp(-n / d)
		variance = d * missed * (1 - missed)
	}
	p.Low, p.High = distinct, int(math.Ceil(d+f1+1.96*math.Sqrt(variance)))
	return p
}

// Verdict is whether a generator's duplicates can be replaced.
type Verdict string

// The verdicts.
const (
	Distinct  Verdict = "distinct"   // there are no duplicates
	GoOn      Verdict = "go_on"      // further draws will do it
	Exhausted Verdict = "exhausted"  // the generator has fewer puzzles than samples are wanted
	TooCostly Verdict = "too_costly" // it may have enough, but would have to draw too often
	Failed    Verdict = "failed"     // its repair tasks fail
)

// judge decides what to do about duplicates, by the upper end of the estimate. limit is how many draws are bearable.
func judge(p Pool, distinct, wanted, limit int) (v Verdict, draws float64) {
	high, left := float64(p.High), float64(wanted-distinct)
	if left <= 0 {
		return Distinct, float64(p.Drawn)
	}
	if p.Drawn < 30 { // from so few nothing follows
		return GoOn, float64(p.Drawn) + left
	}
	if p.High < wanted {
		return Exhausted, math.Inf(1)
	}
	// Of a pool of N drawn evenly, the step from d to d+1 different ones takes N/(N-d) draws. Never fewer than by the
	// rate at which new ones come (I. J. Good, Biometrika 40, 1953, 237-264): f1/n, here with what chance may add.
	draws = float64(p.Drawn) + high*math.Log((high-float64(distinct)+0.5)/(high-float64(wanted)+0.5))
	once := float64(p.Once)
	rate := (once + 2*math.Sqrt(once) + 3) / float64(p.Drawn)
	draws = max(draws, float64(p.Drawn)+left/min(rate, 1))
	if draws > float64(limit) {
		return TooCostly, draws
	}
	return GoOn, draws
}

// Rounds replaces duplicates by further draws: it sends repair tasks for the later ones of equal samples, waits for
// them, and reads the receipts again, until all samples are distinct or cannot be.
type Rounds struct {
	Run   task.Run // whose range, seed and format the repairs have
	Limit float64  // draws in all that are bearable, as a multiple of the samples wanted
	Used  int      // highest attempt that a repair task was ever sent with, beyond what receipts have

	Read   func(ctx context.Context, v *View) error               // adds the cells to a view
	Repair func(ctx context.Context, repairs [][]task.Task) error // of each generator; waits until none is left to make
	Report func(line string)
}

// Outcome is where the duplicates of one generator ended.
type Outcome struct {
	Generator  string  `json:"generator"`
	Verdict    Verdict `json:"verdict"`
	Wanted     int     `json:"wanted"`
	Distinct   int     `json:"distinct"`
	Duplicates int     `json:"duplicates"`
	Drawn      int     `json:"drawn"` // samples made in all
	Rounds     int     `json:"rounds"`
	Pool       *Pool   `json:"pool,omitempty"` // if there were duplicates
}

func (o Outcome) String() string {
	head := fmt.Sprintf("%s: %d of %d samples are distinct, after %d draws", o.Generator, o.Distinct, o.Wanted, o.Drawn)
	switch o.Verdict {
	case Exhausted:
		return fmt.Sprintf("%s; it is exhausted: it has %s puzzles", head, o.Pool)
	case TooCostly:
		return fmt.Sprintf("%s; it barely has enough, %s puzzles: the rest would take more draws than --max-draws allows",
			head, o.Pool)
	case Failed:
		return head + "; its repair tasks fail"
	}
	return head
}

// Do makes rounds until no further draws would help, and returns an outcome for each generator of the run.
func (r *Rounds) Do(ctx context.Context) ([]Outcome, error) {
	outcomes := make([]Outcome, len(r.Run.Generators))
	for n, g := range r.Run.Generators {
		outcomes[n] = Outcome{Generator: g.Name, Wanted: r.Run.Samples, Verdict: GoOn}
	}
	for {
		repairs := make([][]task.Task, len(outcomes))
		working, used := false, r.Used
		for n, g := range r.Run.Generators {
			o := &outcomes[n]
			if o.Verdict != GoOn {
				continue
			}
			v := &View{Generator: g.Name, Range: r.Run.Range()}
			if err := r.Read(ctx, v); err != nil {
				return nil, fmt.Errorf("read receipts of %s: %w", g.Name, err)
			}
			if indices := r.next(v, o); indices != nil {
				attempt := NextAttempt(max(v.Attempt, r.Used))
				used, working = max(used, attempt), true
				repairs[n] = RepairTasks(r.Run, g, attempt, indices)
			}
		}
		if !working {
			return outcomes, nil
		}
		r.Used = used
		if err := r.Repair(ctx, repairs); err != nil {
			return nil, err
		}
	}
}

// next returns the indices whose samples the next round of a generator replaces, none if it has come to its end.
func (r *Rounds) next(v *View, o *Outcome) (indices []int) {
	samples, duplicates := v.Duplicates()
	pool := v.Pool()
	failed := o.Rounds > 0 && pool.Drawn == o.Drawn
	o.Duplicates, o.Distinct, o.Drawn = len(duplicates), samples-len(duplicates), pool.Drawn
	if len(duplicates) == 0 {
		o.Verdict = Distinct
		return nil
	}
	o.Pool = &pool
	if failed {
		o.Verdict = Failed
		return nil
	}
	verdict, draws := judge(pool, o.Distinct, samples, int(r.Limit*float64(o.Wanted)))
	if o.Verdict = verdict; verdict != GoOn {
		r.Report(o.String())
		return nil
	}
	r.Report(fmt.Sprintf("%s: %d duplicates; it has %s puzzles; %.0f draws in all are expected", v.Generator,
		len(duplicates), pool, math.Ceil(draws)))
	o.Rounds++
	for _, d := range duplicates {
		indices = append(indices, d.Index)
	}
	return indices
}

// RepairTasks cuts sorted indices into repair tasks of a generator of a run, no cell in two of them.
func RepairTasks(run task.Run, g task.RunGenerator, attempt int, indices []int) []task.Task {
	var tasks []task.Task
	size := run.Chunk(g)
	for len(indices) > 0 {
		n := 1
		for n < len(indices) && (n < max(run.Batch, 1) || indices[n]/size == indices[n-1]/size) && n < task.MaxSamples {
			n++
		}
		tasks = append(tasks, task.Task{Generator: g.Name, Indices: slices.Clone(indices[:n]), Attempt: attempt,
			Seed: run.Seed, Format: run.Format, ChunkSize: size, Options: g.Options})
		indices = indices[n:]
	}
	return tasks
}

// NextAttempt returns an attempt above those used so far, and above those that their deliveries and replays may use.
func NextAttempt(used int) int { return (used/1000 + 1) * 1000 }

// UsedAttempt returns the highest attempt of the repair tasks in a run.
func UsedAttempt(run task.Run) (used int) {
	for _, g := range run.Generators {
		for _, t := range g.Repairs {
			if t.Indices != nil {
				used = max(used, t.Attempt)
			}
		}
	}
	return used
}
