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
	"github.com/vm-dataset/vm-dataset-pipeline/ops/runs"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type RepairCmd struct {
	order
	Run_       string  `help:"Run whose gaps are filled. Default: the newest." name:"run" placeholder:"ID"`
	Plan       string  `help:"Carry out a plan of 'ops verify --deep' or 'ops flags plan': fill the gaps, and restore what is gone." type:"existingfile" placeholder:"FILE"`
	Overwrite  bool    `help:"With --plan: also repair what is wrong, and remove what should not be there. It asks before it removes anything."`
	Duplicates bool    `help:"Also replace duplicates by further draws, in rounds, until all samples are distinct or the generator has no more."`
	MaxDraws   float64 `help:"With --duplicates: give up on a generator that would have to make more than this many times the wanted samples." default:"4" placeholder:"FACTOR"`

	Batch, Chunk, Seed, Format, Option struct{} `kong:"-"` // no flags: the dataset has them

	id     string // of the new run
	create bool   // the dataset, if it does not exist
}

func (*RepairCmd) Help() string {
	return `Fills the gaps of a run, or of --all or --generator with --samples: it sends tasks for the samples without a receipt, as the dataset pins them. If tasks are in the queue it asks first, because they may be the missing ones. Committed samples are not made again, so you can stop it and repeat it at any time; 'ops submit --resume ID' sends the rest of a run that it was sending.

For damage, 'ops verify --deep' writes a plan and prints the command that carries it out. Samples whose objects are gone are made again with the seeds of their receipts, so a deterministic generator produces the same bytes; nothing else is touched. With --overwrite it also restores objects that differ from their receipts, replaces samples that the generator wrote damaged by another draw, and removes objects that no receipt names, after a question that --yes answers. What has changed since the plan was made is left alone. 'ops flags plan' writes a plan that replaces flagged samples.

With --duplicates it fills the gaps, waits, replaces the later ones of equal samples, waits, and checks again. It stops at a generator that has fewer puzzles than samples are wanted, and prints how many it has. After Ctrl-C the same command continues.

With --dry-run it prints what it would send and remove; with --duplicates, what it would send first, because each round depends on the one before.

Exit status 2, with --duplicates: some are left.

Examples:
  ops --stack dev repair --run 20260801t101500.000-1f2e3d4c
  ops --stack dev repair --all --samples 10000 --dry-run
  ops --stack dev repair --plan plan.json
  ops --stack dev repair --plan plan.json --overwrite
  ops --stack dev repair --duplicates --run 20260801t101500.000-1f2e3d4c`
}

func (c *RepairCmd) Validate() error {
	switch {
	case c.Overwrite && c.Plan == "":
		return ui.Usage("--overwrite belongs to --plan: 'ops verify --deep' writes one; other samples are another " +
			"dataset, --dataset NAME")
	case c.Plan != "" && (c.given() || c.Run_ != "" || c.Samples != 0 || c.Duplicates):
		return ui.Usage("--plan defines what to repair: leave --all, --generator, --samples, --run and --duplicates out")
	case c.MaxCost != nil && (c.Plan != "" || c.Duplicates):
		return ui.Usage("--max-cost checks one run before it is sent: leave --plan and --duplicates out")
	case !(c.MaxDraws >= 1):
		return ui.Usage("--max-draws is %g, it must be at least 1", c.MaxDraws)
	}
	if err := cmp.Or(c.checkOrder(c.Run_), c.checkExtent(c.Run_, c.Samples, c.Start)); err != nil || !c.given() {
		return err
	}
	return c.check()
}

func (c *RepairCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store) error {
	if c.Plan != "" {
		return c.carryOut(ctx, o, t, q, st)
	}
	if c.given() && !c.create {
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
	run := runs.Follow(old)
	runs.SetCommits(&run, list)
	if _, err := c.runOrder().Pin(ctx, st, &run, false); err != nil {
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
	old := task.Run{}
	if plan.Run != "" {
		if old, err = findRun(ctx, st, plan.Run, t); err != nil {
			return err
		}
	}
	run, err := runs.ForPlan(plan, old, version())
	if err != nil {
		return err
	}
	list, err := o.inventory().List(ctx, t)
	if err != nil { // then the workers check them
		o.Say("note: the generators of the stack are not known here: %s", ui.Plain(err))
	}
	runs.SetCommits(&run, list)
	if !c.DryRun {
		o.Changing(t)
		if err := c.confirmQueue(ctx, o, q); err != nil {
			return err
		}
	}
	if _, err := c.runOrder().Pin(ctx, st, &run, !c.DryRun); err != nil {
		return err
	}
	removed := 0
	if c.Overwrite {
		if removed, err = c.remove(ctx, o, st, plan); err != nil {
			return err
		}
	}
	changed, left, err := runs.AddRepairs(ctx, st, &run, plan, c.Overwrite)
	if err != nil {
		return err
	}
	if changed > 0 {
		o.Say("%s changed since the plan was made, and left alone", ui.Plural(changed, "item"))
	}
	if left > 0 {
		o.Say("left alone, because they are wrong and not gone: %s in the plan; --overwrite repairs them, too",
			ui.Plural(left, "item"))
	}
	tasks := run.Plan()
	if c.DryRun {
		return c.printPlan(o, t, run, tasks)
	}
	if len(tasks) == 0 {
		return o.PrintLine(submitted{Run: run, Removed: removed}, "no task has to be sent; %s removed",
			ui.Plural(removed, "object"))
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
	if err := o.Confirm(fmt.Sprintf("Remove %s that no receipt names, or that are damaged receipts",
		ui.Plural(len(keys), "object"))); err != nil {
		return 0, err
	}
	return len(keys), st.Delete(ctx, keys)
}

// replaceDuplicates fills the gaps of a run and then replaces duplicates, in rounds.
func (c *RepairCmd) replaceDuplicates(ctx context.Context, o *Output, t *target.Target, q *queue.Client,
	st *store.Store, run task.Run, list []generator.Generator) error {
	sender := &runs.Sender{Target: t, Queue: q, Store: st, Out: o.Output}
	if c.DryRun {
		run, err := sender.FirstRound(ctx, run, c.MaxDraws)
		if err != nil {
			return err
		}
		return c.printPlan(o, t, run, run.Plan())
	}
	if err := o.inventory().KeepLocks(ctx, st, inventory.InRun(run, list)); err != nil {
		return err
	}
	o.Changing(t)
	outcomes, err := sender.ReplaceDuplicates(ctx, c.runOrder(), run, c.MaxDraws)
	if err != nil && ctx.Err() != nil {
		err = ui.WithHint(err, "the same command: it continues")
	}
	if err != nil {
		return err
	}
	if err := o.Print(outcomes, func(w io.Writer) { printOutcomes(w, outcomes) }); err != nil {
		return err
	}
	if i := slices.IndexFunc(outcomes, func(x dataset.Outcome) bool { return x.Verdict == dataset.Failed }); i >= 0 {
		return ui.WithHint(ui.Problem(""), "ops%s dlq list", t.Flags())
	}
	left := slices.ContainsFunc(outcomes, func(x dataset.Outcome) bool { return x.Verdict != dataset.Distinct })
	return ui.ProblemIf(left, "")
}

func printOutcomes(w io.Writer, outcomes []dataset.Outcome) {
	fmt.Fprintln(w, "GENERATOR\tSAMPLES\tDISTINCT\tDUPLICATES\tDRAWN\tROUNDS\t")
	for _, x := range outcomes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", x.Generator, ui.Count(x.Wanted), ui.Count(x.Distinct),
			ui.Count(x.Duplicates), ui.Count(x.Drawn), x.Rounds, x.Verdict)
	}
	for _, x := range outcomes {
		if x.Verdict != dataset.Distinct {
			fmt.Fprintln(w, x)
		}
	}
}
