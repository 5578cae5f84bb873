package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/price"
	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/probe"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/runs"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type PlanCmd struct {
	inDataset
	wanted
	Workers      int     `help:"Workers at once. Default: the stack's maxConcurrency, or 10." aliases:"concurrency" placeholder:"N"`
	Memory       int     `help:"Memory of a worker in MB. Default: the stack's, or 10240." placeholder:"MB"`
	Architecture string  `help:"Instruction set of the workers: x86_64 or arm64. Default: the stack's, or x86_64." enum:",x86_64,arm64" default:"" placeholder:"NAME"`
	Slower       float64 `help:"How many times the CPU time measured here a worker needs." default:"1" placeholder:"FACTOR"`
	Canary       int     `help:"Measure first: make one sample and then K of each generator on this machine, at least 2." placeholder:"K"`
}

func (*PlanCmd) Help() string {
	return `Predicts the tasks, time, storage and dollars of a run from the measured costs of its generators. It sends nothing and needs no stack. If --stack names one, it uses the stack's settings, and the format and chunk sizes of its dataset if that exists.

'ops generators check' measures costs, or --canary does it here; they are kept in the local folder. Measure on a CPU like that of a worker, or give the ratio with --slower: 'ops monitor' shows the CPU time that a run took.

Assumed, not measured: a request to S3 takes 50 ms, a worker uploads 60 MB/s and starts in 3 s, nothing fails. Prices are those of us-east-2 without free tiers; other regions differ.

Without a stack it assumes the largest workers that Lambda has, ten at once; a new account takes --memory 3008.

It compares the places where the run could be made: Lambda on x86_64 and arm64, fleets of spot machines of 4 CPUs and 8 GB with 'ops worker' that have as many CPUs, and this machine. A CPU is taken to be as fast everywhere, a fleet to start in 3 minutes (Fargate) or 5 (EC2) and to be paid for 5 minutes after the last task. Spot prices change: their dates are printed.

It recommends memory and batch: Lambda charges memory times duration, so a task should keep all CPUs of its worker busy to its end. Another chunk size makes other samples, so it is only mentioned if it saves a tenth.

Exit status 2: the run cannot work like this, for example because a chunk takes longer than a worker may run.

Examples:
  ops plan --all --samples 10000 --canary 10
  ops plan --all --samples 10000 --workers 900 --format tar --chunk 100
  ops --stack dev plan --generator maze-task-data-generator --samples 500 --json`
}

func (c *PlanCmd) Validate() error {
	switch {
	case c.Workers < 0:
		return ui.Usage("--workers is %d, it must be at least 1", c.Workers)
	case c.Memory != 0 && (c.Memory < 128 || c.Memory > 10240):
		return ui.Usage("--memory is %d, it must be from 128 to 10240", c.Memory)
	case c.Canary != 0 && (c.Canary < 2 || c.Canary > task.MaxSamples):
		return ui.Usage("--canary is %d, it must be from 2 to %d: the cost of a sample is the difference to a run of one",
			c.Canary, task.MaxSamples)
	}
	return cmp.Or(checkSlower(c.Slower), c.check())
}

func checkSlower(factor float64) error {
	if !(factor >= 0.01 && factor <= 100) {
		return ui.Usage("--slower is %g, it must be from 0.01 to 100", factor)
	}
	return nil
}

// Planned is what plan prints.
type Planned struct {
	*plan.Estimate
	Batch       int                   `json:"batch"`
	ChunkSize   int                   `json:"chunk_size"`
	Format      task.Format           `json:"output_format"`
	Places      []plan.Place          `json:"places"`
	Place       string                `json:"recommended_place,omitempty"`
	Measured    []string              `json:"measured_on"`
	AsShards    float64               `json:"dollars_as_tar,omitempty"` // to make it in the other format
	Prices      map[string]string     `json:"prices"`
	Advice      plan.Advice           `json:"advice"`
	OtherChunks *plan.Advice          `json:"advice_with_other_chunks,omitempty"`
	costs       map[string]plan.Cost  // of its generators
	list        []generator.Generator // chosen
	failed      map[string]string     // generators whose canary failed, and why
}

func (c *PlanCmd) Run(ctx context.Context, o *Output) error {
	s, t, err := c.setting(ctx, o)
	if err != nil {
		return err
	}
	list, err := c.generators(ctx, o, t)
	if err != nil {
		return err
	}
	p := &Planned{list: list, failed: map[string]string{}}
	if c.Canary > 0 {
		if err := c.measure(ctx, o, p); err != nil {
			return err
		}
	}
	costs, err := plan.LoadCosts(o.LocalDir)
	if err != nil {
		return err
	}
	order := c.runOrder()
	run := order.New(p.list, costs)
	exists, err := c.pin(ctx, o, t, order, &run)
	if err != nil {
		return err
	}
	order.Cut(&run, costs, s)
	if p.Estimate, err = plan.Of(run, costs, s); err != nil {
		return unmeasured(err, c.flags(), c.Samples)
	}
	p.Batch, p.ChunkSize, p.Format = run.Batch, run.ChunkSize, run.Format
	p.Advice, p.OtherChunks = plan.Advise(run, costs, s)
	if exists {
		p.OtherChunks = nil
	}
	if run.Format == task.Files && !exists {
		shards := run
		shards.Format = task.Tar
		if e, err := plan.Of(shards, costs, s); err == nil {
			p.AsShards = e.Make
		}
	}
	if p.Places, err = plan.Compare(run, costs, s, runtime.NumCPU()); err != nil {
		return err
	}
	best, _ := plan.Recommend(p.Places)
	p.Place = best.Name
	oldest := slices.MinFunc(p.Items, func(a, b plan.Item) int { return strings.Compare(a.Date, b.Date) })
	p.Prices = map[string]string{"region": price.Region, "as_of": oldest.Date}
	p.costs = costs
	p.remark(t)
	return cmp.Or(o.Print(p, p.table), ui.ProblemIf(len(p.Problems) > 0, ""))
}

// setting is that of the flags, then of the stack if one is named, then the default.
func (c *PlanCmd) setting(ctx context.Context, o *Output) (s plan.Setting, t *target.Target, err error) {
	s = plan.DefaultSetting()
	if o.Outputs != "" || o.Stack != "" && o.Stack != stack.Local {
		if t, err = target.Find(ctx, o.Flags, ""); err != nil {
			return s, nil, err
		}
		s.Worker = t.Worker()
		t.Ask(ctx, o.Say, &s)
	}
	s.Slower = c.Slower
	s.MemoryMB = cmp.Or(c.Memory, s.MemoryMB)
	s.Architecture = cmp.Or(c.Architecture, s.Architecture)
	s.Concurrency = cmp.Or(c.Workers, s.Concurrency)
	return s, t, nil
}

// pin gives a run what its dataset pins, as submit does, and reports whether there is
// one. A bucket that cannot be asked is taken to have none.
func (c *PlanCmd) pin(ctx context.Context, o *Output, t *target.Target, order *runs.Order,
	run *task.Run) (exists bool, err error) {
	if t == nil && o.Stack == stack.Local {
		if t, err = target.Find(ctx, o.Flags, ""); errors.Is(err, local.ErrDown) {
			return false, nil
		}
	}
	if t == nil || err != nil {
		return false, err
	}
	t.Dataset = task.Dataset(c.Dataset)
	st, err := t.Store(ctx)
	if err != nil {
		return false, err
	}
	exists, err = order.Pin(ctx, st, run, false)
	if _, wrong := errors.AsType[*task.ContradictionError](err); err == nil || wrong {
		return exists, err
	}
	o.Say("note: the bucket does not say what the dataset has (%s); a new one is assumed", ui.Plain(err))
	return false, nil
}

func (c *PlanCmd) generators(ctx context.Context, o *Output, t *target.Target) ([]generator.Generator, error) {
	var list []generator.Generator
	var err error
	if t != nil {
		list, err = o.inventory().Prepare(ctx, t)
	} else {
		list, err = o.inventory().Folder()
	}
	if err != nil {
		return nil, err
	}
	return c.choose(o, list)
}

// canaryTimeout is how long one run of a canary may take, as in 'ops generators check' by default.
const canaryTimeout = 10 * time.Minute

// measure runs the canaries, some at once but no more than leave each a CPU for
// itself, and keeps what they took. One that fails is left out of the plan.
func (c *PlanCmd) measure(ctx context.Context, o *Output, p *Planned) error {
	var names []string
	for _, g := range p.list {
		names = append(names, g.Name)
	}
	list, err := o.inventory().PrepareFolder(ctx, names)
	if err != nil {
		return err
	}
	for i := range list {
		list[i].Options = p.list[i].Options
	}
	var done atomic.Int64
	results, err := probe.New(canaryTimeout).MeasureAll(ctx, list, c.Canary, func() {
		o.Progress("canary", int(done.Add(1)), len(names))
	})
	if err != nil {
		return err
	}
	var measured []plan.Cost
	for i, name := range names {
		if results[i].Failure != nil {
			p.failed[name] = results[i].Failure.Error()
			continue
		}
		measured = append(measured, results[i].Cost)
	}
	if len(measured) == 0 {
		return ui.WithHint(fmt.Errorf("the canary of %s failed: %s", names[0], p.failed[names[0]]), "ops generators check %s",
			names[0])
	}
	p.list = slices.DeleteFunc(p.list, func(g generator.Generator) bool { return p.failed[g.Name] != "" })
	return plan.SaveCosts(o.LocalDir, measured...)
}

func unmeasured(err error, chosen string, samples int) error {
	unknown, ok := errors.AsType[*plan.UnknownCostError](err)
	if !ok {
		return err
	}
	if len(unknown.Generators) <= 3 {
		chosen = "--generator " + strings.Join(unknown.Generators, " --generator ")
	}
	return ui.WithHint(err, "ops plan %s --samples %d --canary 10, or ops generators check", chosen, samples)
}

func (p *Planned) remark(t *target.Target) {
	var waits []string
	for _, g := range p.Generators {
		cost := p.costs[g.Name]
		if at := cost.Machine; !slices.Contains(p.Measured, at) {
			p.Measured = append(p.Measured, at)
		}
		if cost.Waits(g.ChunkSize) {
			waits = append(waits, g.Name)
		}
	}
	if p.Changed != nil {
		p.Notes = append(p.Notes, "measured at another commit, or with other options: "+ui.Some(p.Changed, 3))
	}
	if waits != nil {
		p.Notes = append(p.Notes,
			ui.Some(waits, 3)+" took longer than their CPU time: they wait for something, or the machine was busy when they "+
				"were measured and the estimate is too long")
	}
	if t != nil && t.Region != "" && t.Region != price.Region {
		p.Notes = append(p.Notes, fmt.Sprintf("the stack is in %s, whose prices may differ", t.Region))
	}
	for _, name := range slices.Sorted(maps.Keys(p.failed)) {
		p.Problems = append(p.Problems, fmt.Sprintf("the canary of %s failed and it is not in the plan: %s", name,
			p.failed[name]))
	}
}

func (p *Planned) table(w io.Writer) {
	fmt.Fprintln(w, "GENERATOR\tSAMPLES\tTASKS\tCHUNK\tTASK\tSIZE\tUSD\t")
	for _, g := range p.Generators {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", g.Name, ui.Count(g.Samples), ui.Count(g.Tasks),
			ui.Span(ui.Seconds(g.ChunkSeconds)), ui.Span(ui.Seconds(g.TaskSeconds)), ui.Size(g.Bytes), ui.Dollars(g.Dollars))
	}
	fmt.Fprintf(w, "all\t%s\t%s\t\t\t%s\t%s\t\n\n", ui.Count(p.Samples), ui.Count(p.Tasks), ui.Size(p.Bytes),
		ui.Dollars(p.Make))

	fmt.Fprintf(w, "tasks of %d samples in chunks of %d%s, %s; generators take %s of CPU; workers with %s MB, %s\n\n",
		p.Batch, p.ChunkSize, p.others(), p.Format, ui.Span(ui.Seconds(p.CPUSeconds)), ui.Count(p.Worker.MemoryMB),
		p.Worker.Architecture)
	fmt.Fprintln(w, "WORKERS\tTAKES\t")
	for _, d := range p.Takes {
		fmt.Fprintf(w, "%s\t%s\t\n", ui.Count(d.Concurrency), ui.Span(ui.Seconds(d.Seconds)))
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "ITEM\tAMOUNT\tOF\tUSD\t")
	line := func(i plan.Item) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t\n", i.Name, amount(i.Amount), i.Unit, ui.Dollars(i.Dollars))
	}
	items := p.Items
	for _, i := range items[:len(items)-2] {
		line(i)
	}
	fmt.Fprintf(w, "to make and verify it\t\t\t%s\t\n", ui.Dollars(p.Make))
	for _, i := range items[len(items)-2:] {
		line(i)
	}
	fmt.Fprintln(w)
	fmt.Fprintf(w, "recommended: %s\n", p.advice())
	if p.AsShards > 0 && savesEnough(p.Make, p.AsShards) {
		fmt.Fprintf(w, "as shards (--format tar): %s to make and verify it, which saves %.0f %%\n", ui.Dollars(p.AsShards),
			100*(1-p.AsShards/p.Make))
	}
	if a := p.OtherChunks; a != nil {
		fmt.Fprintf(w, "with other samples: --chunk %d %s\n", a.ChunkSize, p.change(*a))
	}
	p.compare(w)
	fmt.Fprintf(w, "measured on %s\n", strings.Join(p.Measured, ", "))
	fmt.Fprintf(w, "prices: %s, on demand, without what is free, as of %s or later\n", p.Prices["region"],
		p.Prices["as_of"])
	for _, note := range p.Notes {
		fmt.Fprintf(w, "note: %s\n", note)
	}
	for _, wrong := range p.Problems {
		fmt.Fprintf(w, "problem: %s\n", wrong)
	}
}

// compare prints where the run could be made, and the prices that the table above does not have.
func (p *Planned) compare(w io.Writer) {
	fmt.Fprintln(w, "\nWHERE\tWORKERS\tCPUS\tTAKES\tCOMPUTE\tUSD\t")
	for _, at := range p.Places {
		if len(at.Problems) > 0 {
			fmt.Fprintf(w, "%s\t%s\t%.0f\tcannot work: %s\n", at.Name, ui.Count(at.Workers), at.CPUs, at.Problems[0])
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%s\t%s\t%s\t\n", at.Name, ui.Count(at.Workers), at.CPUs,
			ui.Span(ui.Seconds(at.Seconds)), ui.Dollars(at.Compute), ui.Dollars(at.Dollars))
	}
	fmt.Fprintln(w)
	if best, why := plan.Recommend(p.Places); best.Name != "" {
		fmt.Fprintf(w, "recommended place: %s (%s)\n", best.Name, why)
	}
	fmt.Fprintln(w, "\nPRICE OF A\tUSD\tOF\tSOURCE\t")
	var shown []price.Price
	for _, at := range p.Places {
		for _, of := range at.Prices {
			if !slices.Contains(shown, of) {
				shown = append(shown, of)
				fmt.Fprintf(w, "%s\t%.3g\t%s\t%s\t\n", of.Unit, of.Dollars, of.Date, of.Source)
			}
		}
	}
	fmt.Fprintln(w)
}

func (p *Planned) others() string {
	var names []string
	for _, g := range p.Generators {
		if g.ChunkSize != p.ChunkSize {
			names = append(names, fmt.Sprintf("%d for %s", g.ChunkSize, g.Name))
		}
	}
	if names == nil {
		return ""
	}
	return " (" + ui.Some(names, 3) + ")"
}

func (p *Planned) advice() string {
	switch a := p.Advice; {
	case a.Dollars == 0:
		return fmt.Sprintf("nothing makes it work with chunks of %d", p.ChunkSize)
	case a.Batch == p.Batch && a.MemoryMB == p.Worker.MemoryMB:
		return "what it has"
	default:
		return p.change(a)
	}
}

// change describes a recommendation, apart from its chunk size.
func (p *Planned) change(a plan.Advice) string {
	text := fmt.Sprintf("--batch %d", a.Batch)
	if a.MemoryMB != p.Worker.MemoryMB {
		text += fmt.Sprintf(" and memoryMB %d", a.MemoryMB)
	}
	if a.Saves > 0 {
		return text + fmt.Sprintf(", which saves %.0f %%", 100*a.Saves)
	}
	return text + fmt.Sprintf(", for about %s USD", ui.Dollars(a.Dollars))
}

func amount(n float64) string {
	switch {
	case n > 0 && n < 0.01:
		return "<0.01"
	case n < 10 && n != math.Trunc(n):
		return fmt.Sprintf("%.2f", n)
	}
	return ui.Count(int(math.Round(n)))
}
