package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/posener/complete"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inventory"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/runs"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Globals are the flags of every command.
type Globals struct {
	target.Flags
	ui.Style
	Version kong.VersionFlag `help:"Print the version."`
}

// Output is what commands write with, and the flags of every command.
type Output struct {
	*ui.Output
	*target.Flags
}

func (o *Output) inventory() inventory.Inventory {
	return inventory.Inventory{Flags: o.Flags, Say: o.Say}
}

// between refuses the number of a flag, if it was given, unless it lies in a range.
func between(flag string, number *int, least, most int) error {
	if number == nil || *number >= least && *number <= most {
		return nil
	}
	return ui.Usage("%s is %d, it must be from %d to %d", flag, *number, least, most)
}

type inDataset struct {
	Dataset string `help:"Dataset to work on." env:"OPS_DATASET" default:"${default_dataset}" placeholder:"NAME"`
}

// AfterApply makes it the dataset of the target and of the store.
func (d *inDataset) AfterApply(k *kong.Context) error {
	if d.Dataset == "" { // an empty variable means the default
		d.Dataset = task.DefaultDataset.String()
	}
	if err := task.CheckName(d.Dataset); err != nil {
		return ui.Usage("--dataset %v", err)
	}
	k.Bind(task.Dataset(d.Dataset))
	return nil
}

var spans = kong.TypeMapper(reflect.TypeFor[time.Duration](),
	kong.MapperFunc(func(c *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := c.Scan.PopValueInto("duration", &text); err != nil {
			return err
		}
		d, err := ui.ParseSpan(text)
		target.SetInt(int64(d))
		return err
	}))

type moment struct{ time.Time }

// UnmarshalText reads it with ui.ParseMoment.
func (m *moment) UnmarshalText(text []byte) (err error) {
	m.Time, err = ui.ParseMoment(string(text))
	return err
}

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
	chosen, err := o.inventory().Choose(list, p.names())
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

type choice struct {
	All       bool     `help:"Every generator." xor:"generators"`
	Generator []string `help:"Only this generator; may be repeated. 'all' means --all." placeholder:"NAME" xor:"generators" predictor:"generator"`
}

// named returns the generators that were named, nil for all.
func (c *choice) named() []string {
	if c.everything() {
		return nil
	}
	return c.Generator
}

func (c *choice) names() []string {
	if c.All {
		return []string{inventory.Everything}
	}
	return c.Generator
}

func (c *choice) everything() bool { return slices.Contains(c.names(), inventory.Everything) }

func (c *choice) given() bool { return c.All || len(c.Generator) > 0 }

// sayPools says which generators cannot make as many different puzzles as are wanted of each.
func sayPools(o *Output, chosen []generator.Generator, samples int) {
	var list []string
	for _, g := range chosen {
		if g.Pool > 0 && g.Pool < samples {
			list = append(list, fmt.Sprintf("%s (%s)", g.Name, ui.Count(g.Pool)))
		}
	}
	if len(list) > 0 {
		o.Say("note: fewer than %s different puzzles can be made by %s: ops verify counts duplicates", ui.Count(samples),
			ui.Some(list, 3))
	}
}

// predictGenerators completes generator names from the folder in which ops runs.
var predictGenerators = complete.PredictFunc(func(complete.Args) []string {
	folders, _ := filepath.Glob("generators/*/examples/generate.py")
	names := []string{inventory.Everything}
	for _, f := range folders {
		names = append(names, filepath.Base(filepath.Dir(filepath.Dir(f))))
	}
	return names
})

type optionFlags struct {
	Option []string `help:"Argument for the generators, as in difficulty=3 for --difficulty 3; may be repeated. It is for all chosen generators that have it, or with GENERATOR: in front for that one. A dataset keeps the first values of a generator. Default: the catalogue's." placeholder:"[GENERATOR:]NAME=VALUE" sep:"none"`
}

type option struct {
	generator string // "" for all that have it
	name      string
	task.Options
}

func parseOption(text string) (x option, err error) {
	x.name, _, _ = strings.Cut(text, "=")
	if before, name, ok := strings.Cut(x.name, ":"); ok {
		text = text[len(before)+1:]
		if x.generator, x.name = before, name; task.CheckName(before) != nil {
			return x, ui.Usage("--option %s:%s: %.60q is no name of a generator", before, text, before)
		}
	}
	if x.Options, err = task.ParseOption(text); err != nil {
		err = ui.Usage("--option: %v", err)
	}
	return x, err
}

// parse reads the flags: what is for one generator comes last, and counts.
func (f *optionFlags) parse() (list []option, err error) {
	for _, text := range f.Option {
		x, err := parseOption(text)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(list, func(y option) bool { return x.generator == y.generator && x.name == y.name }) {
			return nil, ui.Usage("--option %s is given twice", x.name)
		}
		list = append(list, x)
	}
	slices.SortStableFunc(list, func(a, b option) int { return min(len(a.generator), 1) - min(len(b.generator), 1) })
	return list, nil
}

// check checks what can be checked without the generators.
func (f *optionFlags) check() error {
	_, err := f.parse()
	return err
}

// give sets the options of the chosen generators, and returns those that the flags gave
// them. An option that none of them has is refused; those that lack one are named.
func (f *optionFlags) give(o *Output, chosen []generator.Generator) (map[string]task.Options, error) {
	list, err := f.parse()
	if err != nil {
		return nil, err
	}
	given := map[string]task.Options{}
	for _, x := range list {
		has, without, refused := false, []string(nil), error(nil)
		for i := range chosen {
			g := &chosen[i]
			if g.Problem != "" || x.generator != "" && x.generator != g.Name {
				continue
			}
			err := g.CheckOptions(x.Options)
			switch {
			case err == nil:
				has, given[g.Name], g.Options = true, given[g.Name].With(x.Options), g.Options.With(x.Options)
			case !g.OptionsKnown():
				return nil, ui.WithHint(err, "ops generators check %s", g.Name)
			default:
				without, refused = append(without, g.Name), err
			}
		}
		switch {
		case !has && refused == nil:
			return nil, fmt.Errorf("--option %s is for generator %s, which is not chosen", x.name, x.generator)
		case !has && len(without) > 1:
			return nil, fmt.Errorf("none of the %d generators has the option %s: %w, for example", len(without), x.name, refused)
		case !has:
			return nil, refused
		case without != nil:
			o.Say("note: made without --option %s, which they do not have: %s", x.name, ui.Some(without, 3))
		}
	}
	return given, nil
}
