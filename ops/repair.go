package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inventory"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// RepairCmd makes what is missing or wrong again.
type RepairCmd struct {
	order
	Run_       string  `help:"Run whose gaps are filled. Default: the newest." name:"run" placeholder:"ID"`
	Plan       string  `help:"Carry out a plan of 'ops verify --deep': fill the gaps, and make what is gone again." type:"existingfile" placeholder:"FILE"`
	Overwrite  bool    `help:"With --plan: also what is wrong or should not be there. It asks before it removes anything."`
	Duplicates bool    `help:"Replace duplicates too, by further draws, in rounds, until all samples are distinct or the generator has no more."`
	MaxDraws   float64 `help:"With --duplicates: leave a generator that would have to make more than this many times the samples wanted." default:"4" placeholder:"FACTOR"`

	Batch, Chunk, Seed, Format struct{} `kong:"-"` // no flags: they are as they were

	id    string // of the new run
	makes bool   // a dataset that is not there
}

// Help is the long help.
func (*RepairCmd) Help() string {
	return `Fills the gaps of a run, or of --all or --generator with --samples: what has no receipt is sent again, as the dataset pins it. While tasks are in the queue it asks first, for they may be what is missing. Nothing that is committed is made again, so it can be stopped and given again at any time; 'ops submit --resume ID' sends the rest of a run that it was sending.

For damage, 'ops verify --deep' writes a plan and prints the command that carries it out. Samples whose objects are gone are made again with the seeds of their receipts, so a deterministic generator gives the bytes that were there; nothing else is touched. With --overwrite the same is done where an object is not what its receipt says, a sample that its generator wrote broken is replaced by another draw, and what no receipt names is removed, after a question that --yes answers. What has changed since the plan was made is left alone.

With --duplicates it fills the gaps, waits, replaces the later ones of equal samples, waits, and looks again. It stops at a generator that has fewer puzzles than samples are wanted, and says how many it has. After Ctrl-C the same command goes on.

With --dry-run it says what it would send and remove; with --duplicates, what it would send first: each round depends on the one before.

Exit status 2, with --duplicates: some are left.

Examples:
  ops --stack dev repair --run 20260801t101500.000-1f2e3d4c
  ops --stack dev repair --all --samples 10000 --dry-run
  ops --stack dev repair --plan plan.json
  ops --stack dev repair --plan plan.json --overwrite
  ops --stack dev repair --duplicates --run 20260801t101500.000-1f2e3d4c`
}

// Validate checks the flags.
func (c *RepairCmd) Validate() error {
	switch {
	case c.Overwrite && c.Plan == "":
		return ui.Usage("--overwrite belongs to --plan: 'ops verify --deep' writes one; other samples are another dataset, --dataset NAME")
	case c.Plan != "" && (c.given() || c.Run_ != "" || c.Samples != 0 || c.Duplicates):
		return ui.Usage("--plan says what to repair: leave --all, --generator, --samples, --run and --duplicates out")
	case c.MaxCost != nil && (c.Plan != "" || c.Duplicates):
		return ui.Usage("--max-cost looks at a run before anything of it is sent: leave --plan and --duplicates out")
	case !(c.MaxDraws >= 1):
		return ui.Usage("--max-draws is %g, it must be at least 1", c.MaxDraws)
	}
	if err := cmp.Or(c.checkOrder(c.Run_), c.checkExtent(c.Run_, c.Samples, c.Start)); err != nil || !c.given() {
		return err
	}
	return c.check()
}

// Run finds what to repair, or reads it from a plan, and sends it.
func (c *RepairCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store) error {
	if c.Plan != "" {
		return c.carryOut(ctx, o, t, q, st)
	}
	if c.given() && !c.makes {
		if _, err := manifest(ctx, st, t, c.Dataset); err != nil {
			return err
		}
	}
	list, err := c.generators(ctx, o, t)
	if err != nil {
		return err
	}
	run, err := c.incomplete(ctx, o, t, st, list)
	if err != nil {
		return err
	}
	if c.Duplicates {
		return c.replaceDuplicates(ctx, o, t, q, st, run, list)
	}
	return c.submit(ctx, o, t, q, st, run, list)
}

// incomplete is what is missing of the run or of the generators that the flags name.
func (c *RepairCmd) incomplete(ctx context.Context, o *Output, t *target.Target, st *store.Store,
	list []generator.Generator) (task.Run, error) {
	if c.given() {
		_, run, err := c.newRun(ctx, o, t, st, list, c.id)
		return run, err
	}
	old, err := findRun(ctx, st, c.Run_, t)
	if err != nil {
		return old, err
	}
	run := follow(old)
	asNow(&run, list)
	if err := c.pin(ctx, st, &run, false); err != nil {
		return run, err
	}
	return dataset.Narrow(ctx, st, run)
}

// carryOut carries out a repair plan: it removes what no receipt names, fills the gaps,
// and sends tasks that restore what is gone or wrong.
func (c *RepairCmd) carryOut(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store) error {
	plan, err := dataset.ReadPlan(c.Plan, st)
	if err != nil {
		return err
	}
	run, err := planned(ctx, t, st, plan)
	if err != nil {
		return err
	}
	list, err := o.inventory().List(ctx, t)
	if err != nil { // then the workers judge
		o.Say("note: what makes the samples is not known here: %s", ui.Plain(err))
	}
	asNow(&run, list)
	if !c.DryRun {
		o.Changing(t)
		if err := c.confirmQueue(ctx, o, q); err != nil {
			return err
		}
	}
	if err := c.pin(ctx, st, &run, !c.DryRun); err != nil {
		return err
	}
	removed := 0
	if c.Overwrite {
		if removed, err = c.remove(ctx, o, st, plan); err != nil {
			return err
		}
	}
	if run, err = dataset.Narrow(ctx, st, run); err != nil {
		return err
	}
	used, err := usedAttempt(ctx, st)
	if err != nil {
		return err
	}
	skipped, left := 0, 0
	for _, p := range plan.Generators {
		i := slices.IndexFunc(run.Generators, func(g task.RunGenerator) bool { return g.Name == p.Name })
		g := &run.Generators[i]
		refs := p.Gone
		if c.Overwrite {
			refs = append(slices.Clone(refs), p.Corrupt...)
		} else {
			left += len(p.Corrupt) + len(p.Replace) + len(p.Remove)
		}
		tasks, changed, err := dataset.Restorations(ctx, st, p.Name, refs)
		if err != nil {
			return err
		}
		skipped += changed
		if c.Overwrite && len(p.Replace) > 0 {
			again, err := replacements(ctx, st, run, *g, used, p.Replace)
			if err != nil {
				return err
			}
			tasks = append(tasks, again...)
		}
		g.Repairs = tasks
	}
	if skipped > 0 {
		o.Say("%s changed since the plan was made, and left alone", ui.Plural(skipped, "receipt"))
	}
	if left > 0 {
		o.Say("left alone, for it is wrong and not gone: %s in the plan; the same with --overwrite repairs that too",
			ui.Plural(left, "thing"))
	}
	tasks := run.Plan()
	if c.DryRun {
		return c.printPlan(o, t, run, tasks)
	}
	if len(tasks) == 0 {
		return o.Print(submitted{Run: run, Removed: removed}, func(w io.Writer) {
			fmt.Fprintf(w, "no task has to be sent; %s removed\n", ui.Plural(removed, "object"))
		})
	}
	if err := o.inventory().KeepLocks(ctx, st, inventory.InRun(run, list)); err != nil {
		return err
	}
	if err := st.PutRun(ctx, run); err != nil {
		return err
	}
	if removed > 0 {
		o.Say("%s removed", ui.Plural(removed, "object"))
	}
	return send(ctx, o, t, q, run, false)
}

// planned is the run that a plan is for, or one of the plan's generators.
func planned(ctx context.Context, t *target.Target, st *store.Store, plan *dataset.Plan) (task.Run, error) {
	if plan.Run != "" {
		old, err := findRun(ctx, st, plan.Run, t)
		if err != nil {
			return old, err
		}
		for _, p := range plan.Generators {
			if !slices.ContainsFunc(old.Generators, func(g task.RunGenerator) bool { return g.Name == p.Name }) {
				return old, fmt.Errorf("%s is no generator of run %s", p.Name, plan.Run)
			}
		}
		return follow(old), nil
	}
	run := task.Run{Start: plan.Range.Start, Samples: plan.Range.Len(), Batch: task.DefaultBatch,
		ChunkSize: task.DefaultChunkSize, Format: task.Files, Version: version()}
	for _, p := range plan.Generators {
		run.Generators = append(run.Generators, task.RunGenerator{Name: p.Name})
	}
	return follow(run), nil
}

// remove removes what the plan says nothing names, after asking.
func (c *RepairCmd) remove(ctx context.Context, o *Output, st *store.Store, plan *dataset.Plan) (int, error) {
	var keys []string
	for _, g := range plan.Generators {
		found, err := dataset.Removable(ctx, st, g.Name, g.Remove)
		if err != nil {
			return 0, err
		}
		keys = append(keys, found...)
	}
	if len(keys) == 0 {
		return 0, nil
	}
	if c.DryRun {
		o.Say("%s would be removed: %s", ui.Plural(len(keys), "object"), ui.Some(keys, 10))
		return 0, nil
	}
	o.Say("to be removed: %s", ui.Some(keys, 10))
	if err := o.Confirm(fmt.Sprintf("Remove %s that no receipt names, or that are broken receipts",
		ui.Plural(len(keys), "object"))); err != nil {
		return 0, err
	}
	return len(keys), st.Delete(ctx, keys)
}

// replacements are repair tasks for samples that their generator wrote broken.
func replacements(ctx context.Context, st *store.Store, run task.Run, g task.RunGenerator, used int,
	indices []int) ([]task.Task, error) {
	view := dataset.View{Generator: g.Name, Range: task.Range{Start: indices[0], End: indices[len(indices)-1] + 1}}
	if err := view.Read(ctx, st); err != nil {
		return nil, err
	}
	return dataset.RepairTasks(run, g, dataset.NextAttempt(max(used, view.Attempt)), indices), nil
}

// usedAttempt is the highest attempt that a repair task of any run was sent with.
func usedAttempt(ctx context.Context, st *store.Store) (int, error) {
	ids, err := st.Runs(ctx)
	if err != nil {
		return 0, err
	}
	used := 0
	for _, id := range ids {
		run, err := st.Run(ctx, id)
		if err != nil {
			return 0, err
		}
		used = max(used, dataset.UsedAttempt(run))
	}
	return used, nil
}
