package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// plan are the flags that say what a run makes.
type plan struct {
	choice
	Samples int    `help:"Samples per generator." placeholder:"N"`
	Batch   int    `help:"Samples per task, 1 to 1000. A multiple of the chunk size wastes nothing." default:"100"`
	Chunk   int    `help:"Samples per generator process, the unit of retry and commit, 1 to 1000." default:"20"`
	Seed    int    `help:"Seed of the run. Equal seeds and chunk sizes give equal samples, so submitting more samples later extends a dataset." default:"42"`
	Format  string `help:"How samples are stored: one object per file (files), or one tar.gz per chunk (tar)." enum:"files,tar" default:"files"`
	Start   int    `help:"First sample index." default:"0"`
}

func (p *plan) check() error {
	switch {
	case !p.given():
		return usage("say which generators: --all, or --generator NAME")
	case p.Samples < 1:
		return usage("say how many samples per generator: --samples N, at least 1")
	case p.Batch < 1 || p.Batch > task.MaxSamples:
		return usage("--batch is %d, it must be from 1 to %d", p.Batch, task.MaxSamples)
	case p.Chunk < 1 || p.Chunk > task.MaxSamples:
		return usage("--chunk is %d, it must be from 1 to %d", p.Chunk, task.MaxSamples)
	case p.Seed < 0 || p.Seed > task.MaxSeed:
		return usage("--seed is %d, it must be from 0 to %d", p.Seed, task.MaxSeed)
	case p.Start < 0 || p.Samples > task.MaxIndex || p.Start > task.MaxIndex-p.Samples:
		return usage("the samples must lie between index 0 and %d", task.MaxIndex-1)
	}
	return nil
}

// SubmitCmd plans a run and sends its tasks.
type SubmitCmd struct {
	plan
	DryRun    bool   `help:"Print the plan, send nothing."`
	Missing   bool   `help:"Send only what has no receipt yet." xor:"existing"`
	Overwrite bool   `help:"Replace what earlier runs have committed in this range." xor:"existing"`
	Run_      string `help:"Id of the new run; with --missing alone, the run to complete." name:"run" placeholder:"ID"`
	Resume    string `help:"Send the rest of a run whose submission was interrupted." placeholder:"ID"`
}

// Help is the long help.
func (*SubmitCmd) Help() string {
	return `A run is written down before its first task is sent, and every send that the queue has confirmed is kept in a journal. After Ctrl-C or a crash, 'ops submit --resume ID' sends the rest; what is sent twice the workers absorb.

A range that is committed with another seed or chunk size is refused unless --missing or --overwrite is given. What is committed with the same ones is not made again.

Examples:
  ops --stack dev submit --all --samples 10000
  ops --stack dev submit --generator maze-task-data-generator --samples 500 --format tar --chunk 100
  ops --stack dev submit --missing --run 20260801t101500.000-1f2e3d4c
  ops --stack dev submit --all --samples 10000 --dry-run`
}

// Validate checks the flags.
func (c *SubmitCmd) Validate() error {
	if c.Run_ != "" {
		if err := task.CheckName(c.Run_); err != nil {
			return usage("--run %v", err)
		}
	}
	if c.Resume != "" {
		if err := task.CheckName(c.Resume); err != nil {
			return usage("--resume %v", err)
		}
		if c.given() || c.Run_ != "" || c.Missing || c.Overwrite || c.DryRun {
			return usage("--resume stands alone: the run says what it makes")
		}
		return nil
	}
	if c.completes() {
		return nil
	}
	return c.check()
}

// completes reports whether the flags name an earlier run to complete, and not
// what to make.
func (c *SubmitCmd) completes() bool { return c.Missing && c.Run_ != "" && !c.given() }

// submitted is what submit prints as JSON.
type submitted struct {
	Run     task.Run `json:"run"`
	Tasks   int      `json:"tasks"`
	Samples int      `json:"samples"`
	Sent    int      `json:"sent"`
	DryRun  bool     `json:"dry_run,omitempty"`
	First   string   `json:"first_task,omitempty"`
	Last    string   `json:"last_task,omitempty"`
}

// Run plans, writes the run down, and sends.
func (c *SubmitCmd) Run(ctx context.Context, o *Output, t *Target, q *queue.Client, st *store.Store) error {
	if c.Resume != "" {
		o.Changing(t)
		run, err := findRun(ctx, st, c.Resume, t)
		if err != nil {
			return err
		}
		return send(ctx, o, t, q, run, true)
	}
	var list []generator.Generator
	var err error
	if c.DryRun && t.Name == stack.Local {
		list, err = discover(o.Globals) // makes no environments
	} else {
		list, err = known(ctx, o, t)
	}
	if err != nil {
		return err
	}
	run, err := c.newRun(ctx, o, t, st, list)
	if err != nil {
		return err
	}
	tasks := run.Plan()
	if c.DryRun {
		return c.printPlan(o, t, run, tasks)
	}
	o.Changing(t)
	if len(tasks) == 0 {
		o.Say("nothing is missing: every sample is committed")
		return o.Print(submitted{Run: run}, func(io.Writer) {})
	}
	if c.Missing {
		depth, err := q.Depth(ctx)
		if err != nil {
			return err
		}
		if depth.Total() > 0 {
			if err := o.Confirm(fmt.Sprintf("%s still in the queue, and may be what is missing. Send all the same", plural(depth.Total(), "task"))); err != nil {
				return err
			}
		}
	}
	if err := st.PutRun(ctx, run); err != nil {
		if errors.Is(err, store.ErrExists) {
			return withHint(fmt.Errorf("there is a run %s already", run.ID), "ops%s submit --resume %s", t.flags(), run.ID)
		}
		return err
	}
	return send(ctx, o, t, q, run, false)
}

// newRun makes the run that the flags describe.
func (c *SubmitCmd) newRun(ctx context.Context, o *Output, t *Target, st *store.Store, list []generator.Generator) (task.Run, error) {
	if c.completes() {
		old, err := findRun(ctx, st, c.Run_, t)
		if err != nil {
			return task.Run{}, err
		}
		run := old
		run.ID, run.Created = task.NewRunID(time.Now(), rand.Uint32()), time.Now().UTC()
		if err := checkCommitted(ctx, o, st, run, true); err != nil {
			return run, err
		}
		return missing(ctx, st, run)
	}
	chosen, err := c.choose(o, list)
	if err != nil {
		return task.Run{}, err
	}
	run := c.run(chosen)
	run.Overwrite = c.Overwrite
	if c.Run_ != "" {
		run.ID = c.Run_
	}
	if c.Overwrite {
		return run, nil
	}
	err = checkCommitted(ctx, o, st, run, c.Missing)
	if m, ok := errors.AsType[*mixtureError](err); ok {
		return run, withHint(err, "--seed %d --chunk %d to go on with them, --missing to fill the gaps, --overwrite to replace them, or another --start", m.seed, m.chunkSize)
	}
	if err != nil {
		return run, err
	}
	if c.Missing {
		return missing(ctx, st, run)
	}
	return run, nil
}

// run is the run that the flags and the chosen generators make.
func (p *plan) run(chosen []generator.Generator) task.Run {
	now := time.Now().UTC()
	run := task.Run{
		ID: task.NewRunID(now, rand.Uint32()), Created: now, Seed: p.Seed, Start: p.Start, Samples: p.Samples,
		Batch: p.Batch, ChunkSize: p.Chunk, Format: task.Format(p.Format), Version: version(),
	}
	for _, g := range chosen {
		run.Generators = append(run.Generators, task.RunGenerator{Name: g.Name, Commit: g.Commit, ChunkSize: g.ChunkSize})
	}
	return run
}

// receiptNames lists the receipts of a generator that overlap a range.
func receiptNames(ctx context.Context, st *store.Store, name string, r task.Range) ([]store.ReceiptName, error) {
	var names []store.ReceiptName
	for n, err := range st.ReceiptNames(ctx, name) {
		if err != nil {
			return nil, err
		}
		if n.Range.Start >= r.End {
			break
		}
		if n.Range.Overlaps(r) {
			names = append(names, n)
		}
	}
	return names, nil
}

// missing narrows a run to what has no receipt.
func missing(ctx context.Context, st *store.Store, run task.Run) (task.Run, error) {
	run.Missing = true
	var left []task.RunGenerator
	for _, g := range run.Generators {
		names, err := receiptNames(ctx, st, g.Name, run.Range())
		if err != nil {
			return run, err
		}
		var covered []task.Range
		for _, n := range names {
			if !n.Repair {
				covered = append(covered, n.Range)
			}
		}
		g.Missing = gaps(run.Range(), covered)
		left = append(left, g)
	}
	run.Generators = left
	return run, nil
}

// mixtureError says that a range is committed with another seed or chunk size
// than a run has.
type mixtureError struct {
	generator string
	committed task.Range
	seed      int
	chunkSize int
}

func (e *mixtureError) Error() string {
	return fmt.Sprintf("samples %d to %d of %s are committed with seed %d and chunk size %d", e.committed.Start, e.committed.End-1, e.generator, e.seed, e.chunkSize)
}

// checkCommitted says what of a run's range is committed already. With another
// seed or chunk size that is a *mixtureError, or where gaps are to be filled all
// the same, a note for each generator.
func checkCommitted(ctx context.Context, o *Output, st *store.Store, run task.Run, mix bool) error {
	done := 0
	for _, g := range run.Generators {
		names, err := receiptNames(ctx, st, g.Name, run.Range())
		if err != nil {
			return err
		}
		names = slices.DeleteFunc(names, func(n store.ReceiptName) bool { return n.Repair })
		noted := false
		for r, err := range st.ReadReceipts(ctx, names) {
			if err != nil {
				return err
			}
			if r.RunSeed != run.Seed || r.ChunkSize != run.Chunk(g) {
				e := &mixtureError{g.Name, r.Range(), r.RunSeed, r.ChunkSize}
				if !mix {
					return e
				}
				if !noted {
					o.Say("note: %v; the gaps are filled with seed %d and chunk size %d", e, run.Seed, run.Chunk(g))
				}
				noted = true
			}
			done += len(r.Part(run.Range()).Samples)
		}
	}
	if done > 0 {
		o.Say("%s of this range are committed already and are not made again", plural(done, "sample"))
	}
	return nil
}

func (c *SubmitCmd) printPlan(o *Output, t *Target, run task.Run, tasks []task.Task) error {
	p := submitted{Run: run, Tasks: len(tasks), DryRun: true}
	for _, x := range tasks {
		p.Samples += x.NumSamples
	}
	if len(tasks) > 0 {
		p.First, p.Last = tasks[0].Body(), tasks[len(tasks)-1].Body()
	}
	return o.Print(p, func(w io.Writer) {
		fmt.Fprintf(w, "%s\n", t)
		fmt.Fprintf(w, "generators\t%d\n", len(run.Generators))
		fmt.Fprintf(w, "samples\t%s\n", count(p.Samples))
		fmt.Fprintf(w, "tasks\t%s\n", count(p.Tasks))
		fmt.Fprintf(w, "seed\t%d\n", run.Seed)
		fmt.Fprintf(w, "format\t%s, chunks of %d\n", run.Format, run.ChunkSize)
		if len(tasks) > 0 {
			fmt.Fprintf(w, "first task\t%s\nlast task\t%s\n", p.First, p.Last)
		}
		fmt.Fprintln(w, "nothing was sent")
	})
}

// send sends those tasks of a run that the journal does not have, and prints
// what to do next.
func send(ctx context.Context, o *Output, t *Target, q *queue.Client, run task.Run, resumed bool) error {
	tasks := run.Plan()
	j, err := openJournal(o.LocalDir, t.Name, run.ID)
	if err != nil {
		return err
	}
	defer j.close()
	if resumed && len(j.sent) == 0 {
		o.Say("no journal of run %s is here: all its tasks are sent, and the workers absorb what was sent before", run.ID)
	}
	var left []task.Task
	var places []int
	for place, x := range tasks {
		if !j.sent[place] {
			left, places = append(left, x), append(places, place)
		}
	}
	for _, g := range run.Generators {
		if size := run.Chunk(g); run.Batch%size != 0 {
			o.Say("note: the batch of %d is no multiple of the chunk size of %d of %s: chunks that two tasks share are made twice", run.Batch, size, g.Name)
			break
		}
	}
	var sent atomic.Int64
	err = q.Send(ctx, left, func(i int) error {
		o.Progress("sending", int(sent.Add(1))+len(tasks)-len(left), len(tasks))
		return j.add(places[i])
	})
	if err != nil {
		return withHint(fmt.Errorf("%d of %d tasks are sent: %w", int(sent.Load())+len(tasks)-len(left), len(tasks), err), "ops%s submit --resume %s", t.flags(), run.ID)
	}
	s := submitted{Run: run, Tasks: len(tasks), Sent: len(left)}
	for _, x := range tasks {
		s.Samples += x.NumSamples
	}
	err = o.Print(s, func(w io.Writer) {
		fmt.Fprintf(w, "run %s: %s for %s\n", run.ID, plural(len(left), "task"), plural(s.Samples, "sample"))
	})
	o.Say("next: ops%s monitor --run %s --watch", t.flags(), run.ID)
	return err
}

// journal keeps which tasks of a run the queue has confirmed. It lies on the
// machine that submits; on another one a resume sends all of them again.
type journal struct {
	file *os.File
	sent map[int]bool
}

func openJournal(localDir, stackName, run string) (*journal, error) {
	dir := filepath.Join(localDir, "submits", strings.ReplaceAll(stackName, "/", "_"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, run+".journal")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("run %s is being submitted by another process", run)
	}
	j := &journal{file: f, sent: map[int]bool{}}
	if err := j.read(); err != nil {
		f.Close()
		return nil, fmt.Errorf("read the journal of run %s: %w", run, err)
	}
	return j, nil
}

// read reads what was sent. A last line that was cut off could be the beginning
// of another number, and what is appended to it would be: it is removed.
func (j *journal) read() error {
	text, err := io.ReadAll(j.file)
	if err != nil {
		return err
	}
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	for line := range strings.Lines(string(whole)) {
		// What a power cut made of a line is no number: its task is sent again.
		if place, err := strconv.Atoi(strings.TrimSuffix(line, "\n")); err == nil {
			j.sent[place] = true
		}
	}
	return j.file.Truncate(int64(len(whole)))
}

func (j *journal) add(place int) error {
	_, err := fmt.Fprintf(j.file, "%d\n", place)
	return err
}

func (j *journal) close() { _ = j.file.Close() }
