package main

import (
	"cmp"
	"fmt"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/runs"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// wanted are the flags that define what a run makes.
type wanted struct {
	choice
	optionFlags
	Samples int    `help:"Samples per generator." placeholder:"N"`
	Batch   *int   `help:"Samples per task, 1 to 1000; a multiple of the chunk size wastes nothing. Default: what keeps all CPUs of a worker busy to the end of a task, about 600." placeholder:"N"`
	Chunk   *int   `help:"Samples per generator process, the unit of retry and commit, 1 to 1000. A dataset keeps the first value of a generator. Default: the catalogue's, else ${large_chunk} for ${large_run} samples and more, ${small_chunk} for fewer." placeholder:"N"`
	Seed    *int   `help:"Seed of the dataset, which keeps its first value. Default: 42." placeholder:"N"`
	Format  string `help:"How samples are stored: one object per file (files), or one tar.gz per chunk (tar). A dataset keeps its first value. Default: files." enum:",files,tar" default:"" placeholder:"FORMAT"`
	Start   int    `help:"First sample index." default:"0"`

	UpdateGenerators bool `help:"Accept newer commits of the generators in the dataset; committed samples keep theirs."`

	options map[string]task.Options // that flags give, by generator; choose sets it
}

func (p *wanted) check() error {
	if !p.given() {
		return ui.Usage("name the generators: --all, or --generator NAME")
	}
	return cmp.Or(between("--batch", p.Batch, 1, task.MaxSamples), between("--chunk", p.Chunk, 1, task.MaxSamples),
		between("--seed", p.Seed, 0, task.MaxSeed), p.optionFlags.check(), p.checkExtent("", p.Samples, p.Start))
}

// choose returns the chosen generators of a list, with the options that the flags give them.
func (p *wanted) choose(o *Output, list []generator.Generator) ([]generator.Generator, error) {
	chosen, err := p.choice.choose(o, list)
	if err == nil {
		p.options, err = p.give(o, chosen)
	}
	return chosen, err
}

// checkExtent checks the flags of the samples that a command works on: those of a run,
// or so many of the chosen generators.
func (c *choice) checkExtent(run string, samples, start int) error {
	switch {
	case run != "" && c.given():
		return ui.Usage("--run defines the generators: leave --all and --generator out")
	case c.given() && samples < 1:
		return ui.Usage("give the number of samples per generator: --samples N, at least 1")
	case !c.given() && (samples != 0 || start != 0):
		return ui.Usage("name the generators: --all, or --generator NAME")
	case start < 0 || samples > task.MaxIndex || start > task.MaxIndex-samples:
		return ui.Usage("the samples must lie between index 0 and %d", task.MaxIndex-1)
	}
	return nil
}

// shape returns the flags of batch, chunk, format and options, for a hint.
func (p *wanted) shape(run task.Run) string {
	s := ""
	if p.Batch != nil {
		s += fmt.Sprintf(" --batch %d", *p.Batch)
	}
	if p.Chunk != nil {
		s += fmt.Sprintf(" --chunk %d", *p.Chunk)
	}
	if run.Format != task.Files {
		s += fmt.Sprintf(" --format %s", run.Format)
	}
	for _, option := range p.Option {
		s += " --option " + ui.Quote(option)
	}
	return s
}

// runOrder is what the flags ask for.
func (p *wanted) runOrder() *runs.Order {
	return &runs.Order{Start: p.Start, Samples: p.Samples, Batch: p.Batch, Chunk: p.Chunk, Seed: p.Seed,
		Format: task.Format(p.Format), Options: p.options, UpdateGenerators: p.UpdateGenerators, Version: version()}
}

// sayCommitted prints how much of the range is committed, given a run that was narrowed to what is missing.
func (p *wanted) sayCommitted(o *Output, left task.Run) {
	if done := runs.Committed(left); done > 0 {
		o.Say("%s of this range are committed already and are not made again", ui.Plural(done, "sample"))
	}
}

// knownCosts returns the measured costs. A file that cannot be read has none.
func knownCosts(o *Output) map[string]plan.Cost {
	costs, err := plan.LoadCosts(o.LocalDir)
	if err != nil {
		o.Say("note: %v", err)
	}
	return costs
}
