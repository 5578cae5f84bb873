package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/contract"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/probe"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type GeneratorsCheckCmd struct {
	optionFlags
	Names    []string      `arg:"" optional:"" name:"name" help:"Only these generators. Default: all that are there." predictor:"generator"`
	Samples  int           `help:"Samples of a run; one run makes twice as many. More samples measure the costs better." default:"3"`
	Seed     int           `help:"Dataset seed, from which the seeds of its runs are computed." default:"42"`
	Timeout  time.Duration `help:"How long one run may take." default:"10m"`
	Parallel int           `help:"Generators checked at once. Default: one per CPU." short:"j" placeholder:"N"`
}

func (*GeneratorsCheckCmd) Help() string {
	return `Runs each generator six or seven times, in the environment and the sandbox of a worker, and compares the results: the same command twice, another seed, twice as many samples, another PYTHONHASHSEED, and once watched, without network and shared memory. It decodes every picture and video of one run, and has its own judge, eval/verify.py, score them if it has one. It shows the hints of the longest run (see ops inspect).

The measured costs are kept in the local folder for 'ops plan', together with a recommended --chunk and --batch. PyAV, OpenCV or imageio-ffmpeg of the generator's environment decode videos, or else ffmpeg. Only root on Linux, or a user on a system with user namespaces, can take network and shared memory away from a process; elsewhere the table shows "?".

fails: it makes no samples. breaks: it makes samples, but breaks the contract of docs/GENERATORS.md. notes: it keeps the contract; read the notes.

Exit status 0: all keep the contract. 2: some fail or break it.

Examples:
  ops generators check
  ops generators check maze-task-data-generator --samples 20 --json
  ops generators check maze-task-data-generator --option difficulty=5`
}

func (c *GeneratorsCheckCmd) Validate() error {
	switch {
	case c.Timeout < 0:
		return ui.Usage("--timeout is %s, it must not be negative", c.Timeout)
	case c.Parallel < 0:
		return ui.Usage("--parallel is %d, it must not be negative", c.Parallel)
	}
	return cmp.Or(between("--samples", &c.Samples, 1, task.MaxSamples/2), between("--seed", &c.Seed, 0, task.MaxSeed),
		c.check())
}

func (c *GeneratorsCheckCmd) Run(ctx context.Context, o *Output) error {
	chosen, err := o.inventory().PrepareFolder(ctx, c.Names)
	if err != nil {
		return err
	}
	if _, err := c.give(o, chosen); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "vm-dataset-check-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	var mu sync.Mutex
	steps := 0
	checker := contract.Checker{Samples: c.Samples, Seed: c.Seed, Scratch: scratch, Runs: probe.New(c.Timeout),
		Progress: func(string, int) {
			mu.Lock()
			defer mu.Unlock()
			steps++
			o.Progress("runs", steps, contract.Steps*len(chosen))
		}}
	reports := make([]*contract.Report, len(chosen))
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(cmp.Or(c.Parallel, runtime.NumCPU()))
	for i := range chosen {
		group.Go(func() (err error) {
			reports[i], err = checker.Check(limited, &chosen[i])
			return err
		})
	}
	err = group.Wait()
	if err := errors.Join(err, contract.SaveCosts(o.LocalDir, reports)); err != nil {
		return err
	}
	for i, r := range reports {
		if r.Lock, err = o.inventory().LockState(&chosen[i]); err != nil {
			return err
		}
	}
	broken := slices.ContainsFunc(reports, func(r *contract.Report) bool {
		return r.Verdict == contract.Breaks || r.Verdict == contract.Fails
	})
	return cmp.Or(o.Print(reports, func(w io.Writer) { printChecks(w, reports) }), ui.ProblemIf(broken, ""))
}

func printChecks(w io.Writer, reports []*contract.Report) {
	fmt.Fprintln(w, "GENERATOR\tVERDICT\tSAME SEED\tOTHER SEED\tHASH SEED\tPREFIX\tNET\tSHM\tSTART CPU, WALL\tSAMPLE "+
		"CPU, WALL\tMEMORY, EACH\tSIZE\tCHUNK, BATCH")
	counts := map[contract.Verdict]int{}
	for _, r := range reports {
		counts[r.Verdict]++
		same := word(r.SameSeed, "same", "differs")
		if r.Times && r.SameSeed != nil && *r.SameSeed {
			same = "but times"
		}
		cost, chunk := "-\t-\t-\t-", "-"
		if c := r.Cost; c != nil {
			cost = fmt.Sprintf("%.2f, %.2f s\t%.2f, %.2f s\t%s, %s\t%s", c.StartCPU, c.StartWall, c.SampleCPU, c.SampleWall,
				ui.Size(c.PeakRSS), ui.Size(c.SampleRSS), ui.Size(c.SampleBytes))
			chunk = fmt.Sprintf("%d, %d", r.Advice.Chunk, r.Advice.Batch)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Generator, r.Verdict, same,
			word(r.OtherSeed, "other", "alike"), word(r.HashSeed, "yes", "no"),
			word(r.Prefix, "stable", "varies"), word(r.Network, "needs", "no"), word(r.Shm, "needs", "no"), cost, chunk)
	}
	for _, r := range reports {
		for _, f := range r.Findings {
			fmt.Fprintf(w, "%s: %s: %s\n", r.Generator, f.Level, f.Text)
		}
		for _, c := range r.Hints {
			fmt.Fprintf(w, "%s: hint: %s, %.0f %% of its samples: %s\n", r.Generator, c.Kind, 100*c.Share, c.Text)
		}
		if len(r.Scores) > 0 {
			lowest := slices.MinFunc(r.Scores, func(a, b probe.Score) int { return cmp.Compare(a.Score, b.Score) })
			fmt.Fprintf(w, "%s: its own judge scored %s, the lowest has %s\n", r.Generator,
				ui.Plural(len(r.Scores), "sample"), lowest.Percent())
		}
		if r.Lock == "missing" || r.Lock == "stale" {
			fmt.Fprintf(w, "%s: its lock is %s: ops generators lock %s\n", r.Generator, r.Lock, r.Generator)
		}
		if r.Advice != nil && r.Advice.Because != "" {
			fmt.Fprintf(w, "%s: --chunk %d --batch %d: %s\n", r.Generator, r.Advice.Chunk, r.Advice.Batch, r.Advice.Because)
		}
		for line := range strings.Lines(r.Stderr) {
			fmt.Fprintf(w, "    %s\n", strings.TrimRight(line, "\n"))
		}
	}
	var parts []string
	for _, v := range []contract.Verdict{contract.Keeps, contract.Notes, contract.Breaks, contract.Fails} {
		if counts[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[v], v))
		}
	}
	fmt.Fprintf(w, "%s: %s\n", ui.Plural(len(reports), "generator"), strings.Join(parts, ", "))
}

// word is yes or no, or "?" for what is not known.
func word(known *bool, yes, no string) string {
	switch {
	case known == nil:
		return "?"
	case *known:
		return yes
	}
	return no
}
