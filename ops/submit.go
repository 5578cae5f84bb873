package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inventory"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/runs"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// order are the flags of the commands that send runs.
type order struct {
	wanted
	inDataset
	DryRun  bool     `help:"Print the plan, send nothing."`
	MaxCost *float64 `help:"Send nothing if the run costs more than this at AWS, by the measured costs of its generators." placeholder:"DOLLARS"`
	Slower  float64  `help:"With --max-cost: how many times the measured CPU time a worker needs." default:"1" placeholder:"FACTOR"`
}

type SubmitCmd struct {
	order
	Run_   string `help:"Id of the new run." name:"run" placeholder:"ID"`
	Resume string `help:"Send the rest of a run whose submission was interrupted." placeholder:"ID"`

	// Old spellings of 'ops repair'.
	Missing    bool    `hidden:""`
	Overwrite  bool    `hidden:""`
	RepairPlan string  `hidden:"" type:"existingfile"`
	Duplicates bool    `hidden:""`
	MaxDraws   float64 `hidden:"" default:"4"`
}

func (*SubmitCmd) Help() string {
	return `The run is stored before its first task is sent, and a journal records every task that the queue has confirmed. After Ctrl-C or a crash, 'ops submit --resume ID' sends the rest; workers ignore what is sent twice.

The first submit makes the dataset. It pins the seed, the format, and the chunk size and commit of each generator; later ones extend it. Committed samples are not made again. What contradicts the dataset is refused: other samples are another dataset, --dataset NAME. To accept a newer commit of a generator, give --update-generators: committed samples keep their commit, and 'ops verify' counts the samples of each.

With --max-cost a run is sent only if it costs no more at AWS, by the estimate of 'ops plan', in the region of its price table and without free tiers. If the costs were not measured, nothing is sent. The local stack costs nothing.

Afterwards 'ops repair' makes what is missing or damaged again.

Examples:
  ops --stack dev submit --all --samples 10000
  ops --stack dev submit --generator maze-task-data-generator --samples 500 --format tar --chunk 100
  ops --stack dev submit --all --samples 10000 --max-cost 50
  ops --stack dev submit --all --samples 10000 --dry-run
  ops --stack dev submit --resume 20260801t101500.000-1f2e3d4c`
}

func (c *SubmitCmd) Validate() error {
	if c.Resume != "" {
		if err := task.CheckName(c.Resume); err != nil {
			return ui.Usage("--resume %v", err)
		}
		if c.given() || c.Run_ != "" || c.DryRun || c.MaxCost != nil || c.repair() != nil || c.Option != nil {
			return ui.Usage("--resume stands alone: the run defines what it makes")
		}
		return nil
	}
	if r := c.repair(); r != nil {
		return cmp.Or(c.checkOrder(c.Run_), r.Validate())
	}
	return cmp.Or(c.checkOrder(c.Run_), c.check())
}

// repair is what the old spellings of 'ops repair' ask for, nil without one. With
// generators, --run was the id of the new run, and a dataset could be new as well.
func (c *SubmitCmd) repair() *RepairCmd {
	if !c.Missing && !c.Overwrite && !c.Duplicates && c.RepairPlan == "" {
		return nil
	}
	r := &RepairCmd{order: c.order, Run_: c.Run_, Plan: c.RepairPlan, Overwrite: c.Overwrite, Duplicates: c.Duplicates,
		MaxDraws: c.MaxDraws, create: true}
	if c.given() && r.Plan == "" {
		r.Run_, r.id = "", c.Run_
	}
	return r
}

func (c *order) checkOrder(run string) error {
	if err := task.CheckName(run); run != "" && err != nil {
		return ui.Usage("--run %v", err)
	}
	if c.MaxCost != nil && !(*c.MaxCost > 0) {
		return ui.Usage("--max-cost is %g, it must be more than 0", *c.MaxCost)
	}
	return checkSlower(c.Slower)
}

type submitted struct {
	Run     task.Run `json:"run"`
	Tasks   int      `json:"tasks"`
	Samples int      `json:"samples"`
	Sent    int      `json:"sent"`
	Removed int      `json:"removed,omitempty"` // objects, with a repair plan
	DryRun  bool     `json:"dry_run,omitempty"`
	Dollars float64  `json:"dollars,omitempty"` // that it costs at AWS; 0 where it is not known
	First   string   `json:"first_task,omitempty"`
	Last    string   `json:"last_task,omitempty"`
}

func (c *SubmitCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store) error {
	if r := c.repair(); r != nil {
		return r.Run(ctx, o, t, q, st)
	}
	if c.Resume != "" {
		o.Changing(t)
		run, err := findRun(ctx, st, c.Resume, t)
		if err != nil {
			return err
		}
		return send(ctx, o, t, q, run, true)
	}
	list, err := c.generators(ctx, o, t)
	if err != nil {
		return err
	}
	run, _, err := c.newRun(ctx, o, t, st, list, c.Run_)
	if err != nil {
		return err
	}
	return c.submit(ctx, o, t, q, st, run, list)
}

func (c *order) generators(ctx context.Context, o *Output, t *target.Target) ([]generator.Generator, error) {
	if c.DryRun {
		return o.inventory().List(ctx, t)
	}
	return o.inventory().Prepare(ctx, t, c.named()...)
}

func (c *order) submit(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store,
	run task.Run, list []generator.Generator) error {
	tasks := run.Plan()
	if err := c.checkCost(o, t, run); err != nil {
		return err
	}
	if err := c.sayShards(ctx, o, t, st, run); err != nil {
		return err
	}
	if c.DryRun {
		return c.printPlan(o, t, run, tasks)
	}
	o.Changing(t)
	if len(tasks) == 0 {
		o.Say("nothing is missing: every sample is committed")
		return o.Print(submitted{Run: run}, func(io.Writer) {})
	}
	if run.Missing {
		if err := c.confirmQueue(ctx, o, q); err != nil {
			return err
		}
	}
	if err := o.inventory().KeepLocks(ctx, st, inventory.InRun(run, list)); err != nil {
		return err
	}
	if _, err := c.runOrder().Pin(ctx, st, &run, true); err != nil {
		return err
	}
	if err := st.PutRun(ctx, run); err != nil {
		if errors.Is(err, store.ErrExists) {
			return ui.WithHint(fmt.Errorf("there is a run %s already", run.ID), "ops%s submit --resume %s%s", t.Flags(), run.ID,
				t.In())
		}
		return err
	}
	return send(ctx, o, t, q, run, false)
}

// costOf estimates a run on a stack, with as many workers as possible.
func (c *order) costOf(o *Output, t *target.Target, run task.Run) (*plan.Estimate, error) {
	costs, err := plan.LoadCosts(o.LocalDir)
	if err != nil {
		return nil, err
	}
	s := plan.Setting{Worker: t.Worker(), Concurrency: plan.MostWorkers}
	s.Slower = c.Slower
	return plan.Of(run, costs, s)
}

// checkCost refuses a run whose cost is above the limit or unknown. The local stack costs nothing.
func (c *order) checkCost(o *Output, t *target.Target, run task.Run) error {
	if c.MaxCost == nil || t.Name == stack.Local {
		return nil
	}
	e, err := c.costOf(o, t, run)
	if err != nil {
		return unmeasured(err, c.generatorFlags(run), run.Samples)
	}
	if e.Changed != nil {
		o.Say("the cost may differ: measured at another commit, or with other options: %s; ops plan --canary 10 measures "+
			"again", ui.Some(e.Changed, 3))
	}
	if e.Make > *c.MaxCost {
		return ui.WithHint(ui.Problem("nothing was sent: the run costs about %s dollars, more than --max-cost %g",
			ui.Dollars(e.Make), *c.MaxCost),
			"ops%s plan %s --samples %d%s: it shows the costs, and what would be cheaper", t.Flags(), c.generatorFlags(run),
			run.Samples, c.shape(run))
	}
	o.Say("the run costs about %s dollars, --max-cost is %g", ui.Dollars(e.Make), *c.MaxCost)
	return nil
}

// sayShards prints what a new dataset would cost in shards, if that is known and worth knowing.
func (c *order) sayShards(ctx context.Context, o *Output, t *target.Target, st *store.Store, run task.Run) error {
	if t.Name == stack.Local || run.Format != task.Files || c.Format != "" {
		return nil
	}
	files, err := c.costOf(o, t, run)
	if err != nil {
		return nil //nolint:nilerr // it is not known
	}
	run.Format = task.Tar
	shards, err := c.costOf(o, t, run)
	if err != nil || !savesEnough(files.Make, shards.Make) {
		return err
	}
	if _, err = st.Manifest(ctx); errors.Is(err, store.ErrNotFound) {
		o.Say("as shards (--format tar, which a dataset keeps) it would cost about %s USD instead of %s",
			ui.Dollars(shards.Make), ui.Dollars(files.Make))
		return nil
	}
	return err
}

func savesEnough(files, shards float64) bool { return files-shards >= max(0.1, 0.1*files) }

// generatorFlags are flags that choose the run's generators: those given, or their names.
func (c *order) generatorFlags(run task.Run) string {
	if c.given() {
		return c.choice.flags()
	}
	const few = 3
	if len(run.Generators) > few {
		return "--all"
	}
	var named choice
	for _, g := range run.Generators {
		named.Generator = append(named.Generator, g.Name)
	}
	return named.flags()
}

// confirmQueue asks before sending what may be in the queue already. One count is
// enough: if SQS counts late, a second task for committed samples costs one invocation.
func (c *order) confirmQueue(ctx context.Context, o *Output, q *queue.Client) error {
	depth, err := q.Depth(ctx)
	if err != nil || depth.Total() == 0 {
		return err
	}
	return o.Confirm(fmt.Sprintf("%s still in the queue, and may be for the missing samples. Send anyway",
		ui.Plural(depth.Total(), "task")))
}

// newRun makes the run that the flags describe, and one of what is missing of it.
func (c *order) newRun(ctx context.Context, o *Output, t *target.Target, st *store.Store,
	list []generator.Generator, id string) (run, left task.Run, err error) {
	chosen, err := c.choose(o, list)
	if err != nil {
		return run, left, err
	}
	sayPools(o, chosen, c.Start+c.Samples)
	costs := knownCosts(o)
	order := c.runOrder()
	run = order.New(chosen, costs)
	run.ID = cmp.Or(id, run.ID)
	if _, err := order.Pin(ctx, st, &run, false); err != nil {
		return run, left, err
	}
	order.Cut(&run, costs, t.Setting())
	if left, err = dataset.Narrow(ctx, st, run); err == nil {
		c.sayCommitted(o, left)
	}
	return run, left, err
}

func (c *order) printPlan(o *Output, t *target.Target, run task.Run, tasks []task.Task) error {
	p := submitted{Run: run, Tasks: len(tasks), DryRun: true}
	p.Samples = runs.CountSamples(tasks)
	if e, err := c.costOf(o, t, run); err == nil && t.Name != stack.Local {
		p.Dollars = e.Make
	}
	if len(tasks) > 0 {
		p.First, p.Last = tasks[0].Body(), tasks[len(tasks)-1].Body()
	}
	return o.Print(p, func(w io.Writer) {
		fmt.Fprintf(w, "%s\n", t)
		fmt.Fprintf(w, "generators\t%d\n", len(run.Generators))
		fmt.Fprintf(w, "samples\t%s\n", ui.Count(p.Samples))
		fmt.Fprintf(w, "tasks\t%s\n", ui.Count(p.Tasks))
		if p.Dollars > 0 {
			fmt.Fprintf(w, "cost\tabout %s USD\n", ui.Dollars(p.Dollars))
		}
		fmt.Fprintf(w, "seed\t%d\n", run.Seed)
		fmt.Fprintf(w, "format\t%s, chunks of %d\n", run.Format, run.ChunkSize)
		if len(tasks) > 0 {
			fmt.Fprintf(w, "first task\t%s\nlast task\t%s\n", p.First, p.Last)
		}
		fmt.Fprintln(w, "nothing was sent")
	})
}

func send(ctx context.Context, o *Output, t *target.Target, q *queue.Client, run task.Run, resumed bool) error {
	for _, g := range run.Generators {
		if batch, size := run.BatchOf(g), run.Chunk(g); batch%size != 0 && (!run.Missing || len(g.Missing) > 0) {
			o.Say("note: the batch of %d is no multiple of the chunk size of %d of %s: chunks that two tasks share are made "+
				"twice", batch, size, g.Name)
			break
		}
	}
	sender := runs.Sender{Target: t, Queue: q, Out: o.Output}
	sent, err := sender.Send(ctx, o.LocalDir, run, resumed)
	if err != nil {
		return err
	}
	tasks := run.Plan()
	s := submitted{Run: run, Tasks: len(tasks), Sent: sent, Samples: runs.CountSamples(tasks)}
	err = o.PrintLine(s, "run %s: %s for %s", run.ID, ui.Plural(sent, "task"), ui.Plural(s.Samples, "sample"))
	o.Say("next: ops%s monitor --run %s --watch%s", t.Flags(), run.ID, t.In())
	return err
}
