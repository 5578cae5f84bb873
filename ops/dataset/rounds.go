package dataset

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// attemptStride is how far apart the attempts of two rounds of repairs are. Each
// delivery of a task may use up task.SeedTries of them, and each replay as many
// more, so that a round never meets an attempt of an earlier one.
const attemptStride = 1000

// Rounds replaces duplicates by further draws: it sends repair tasks for the later
// ones of equal samples, waits for them, reads again, and so on, until all samples
// are distinct or that is shown to be out of reach. It keeps nothing: stopped at
// any point and started again, it continues from the receipts.
type Rounds struct {
	Run   task.Run // whose range, seed and format the repairs have
	Limit float64  // draws in all that are bearable, as a multiple of the samples wanted
	Used  int      // highest attempt that a repair task was ever sent with, beyond what receipts have

	Read func(ctx context.Context, v *View) error // adds the cells to a view
	// sends them, a list for each generator of the run, and waits until each is committed or has failed
	Repair func(ctx context.Context, repairs [][]task.Task) error
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

// Do makes rounds until no further draws would help, and returns an outcome for each
// generator of the run.
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

// next returns the indices whose samples the next round of a generator replaces, none if
// it has come to its end.
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

// RepairTasks cuts sorted indices into repair tasks of a generator of a run, no cell in
// two of them: a process makes what one has in a cell.
func RepairTasks(run task.Run, g task.RunGenerator, attempt int, indices []int) []task.Task {
	var tasks []task.Task
	size := run.Chunk(g)
	for len(indices) > 0 {
		n := 1
		for n < len(indices) && (n < max(run.Batch, 1) || indices[n]/size == indices[n-1]/size) && n < task.MaxSamples {
			n++
		}
		tasks = append(tasks, task.Task{Generator: g.Name, Indices: slices.Clone(indices[:n]), Attempt: attempt,
			Seed: run.Seed, Format: run.Format, ChunkSize: size})
		indices = indices[n:]
	}
	return tasks
}

// NextAttempt returns an attempt that is above every one used so far.
func NextAttempt(used int) int { return (used/attemptStride + 1) * attemptStride }

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
