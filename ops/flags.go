package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/flags"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

type FlagsCmd struct {
	List   FlagsListCmd   `cmd:"" help:"List the flagged samples."`
	Add    FlagsAddCmd    `cmd:"" help:"Flag samples."`
	Remove FlagsRemoveCmd `cmd:"" help:"Remove flags."`
	Plan   FlagsPlanCmd   `cmd:"" help:"Write the repair plan that replaces the flagged samples."`
}

type flagged struct {
	inDataset
	Generator []string `help:"Only this generator; may be repeated." placeholder:"NAME" predictor:"generator"`
}

func (c *flagged) list(ctx context.Context, st *store.Store) ([]flags.Listed, error) {
	all, err := flags.List(ctx, st, c.Generator...)
	if err != nil {
		return nil, err
	}
	return flags.States(ctx, st, all)
}

type FlagsListCmd struct {
	flagged
	State string `help:"Only these: ${enum}." enum:",open,resolved,gone" default:"" placeholder:"STATE"`
}

func (*FlagsListCmd) Help() string {
	return `A flag is open while its sample has the files that were flagged, and resolved once a repair has replaced them.

Examples:
  ops --stack dev flags list
  ops --stack dev flags list --generator maze-task-data-generator --state open --json`
}

func (c *FlagsListCmd) Run(ctx context.Context, o *Output, st *store.Store) error {
	list, err := c.list(ctx, st)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(f flags.Listed) bool { return c.State != "" && string(f.State) != c.State })
	return o.Print(list, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "nothing is flagged")
			return
		}
		fmt.Fprintln(w, "GENERATOR\tSAMPLE\tSTATE\tBY\tFLAGGED\tREASON")
		for _, f := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Generator, f.Sample, f.State, ui.Printable(f.By),
				f.Time.Format("2006-01-02 15:04"), cmp.Or(ui.Printable(f.Reason), "-"))
		}
	})
}

type FlagsAddCmd struct {
	inDataset
	Generator string   `arg:"" help:"Generator of the samples." predictor:"generator"`
	Samples   []string `arg:"" name:"sample" help:"Samples: indices (12), ranges (10-19) or ids (maze_00000012)."`
	Reason    string   `help:"What is wrong with them, at most 500 characters." placeholder:"TEXT"`
	By        string   `help:"Who flags them. Default: the name of this account." env:"OPS_USER" placeholder:"NAME"`
}

func (*FlagsAddCmd) Help() string {
	return `Flags committed samples. Several people can flag at once; each person has one flag on a sample, and flagging it again replaces the reason.

'ops flags plan' makes a repair plan of the open flags, and 'ops export --without flagged' leaves their samples out.

Examples:
  ops --stack dev flags add maze-task-data-generator 4711 --reason 'two exits'
  ops --stack dev flags add maze-task-data-generator 10-19 maze_00000042 --reason 'walls flicker'`
}

func (c *FlagsAddCmd) Validate() error {
	if _, err := flags.ParseSamples(c.Samples); err != nil {
		return ui.Usage("%v", err)
	}
	if len([]rune(c.Reason)) > flags.MaxReason {
		return ui.Usage("--reason has %d characters, it may have %d", len([]rune(c.Reason)), flags.MaxReason)
	}
	return nil
}

func (c *FlagsAddCmd) Run(ctx context.Context, o *Output, t *target.Target, st *store.Store) error {
	list, _ := flags.ParseSamples(c.Samples)
	n, err := flags.Add(ctx, st, c.Generator, list, c.Reason, cmp.Or(c.By, flags.Account()))
	if absent, ok := errors.AsType[*flags.AbsentError](err); ok {
		return unknownSample(ctx, t, st, c.Generator, absent)
	}
	if err != nil {
		return err
	}
	return o.PrintLine(map[string]any{"generator": c.Generator, "flagged": n}, "flagged: %s of %s", ui.Plural(n, "sample"),
		c.Generator)
}

type FlagsRemoveCmd struct {
	inDataset
	Generator string   `arg:"" optional:"" help:"Generator of the samples. Default, with --resolved: all." predictor:"generator"`
	Samples   []string `arg:"" optional:"" name:"sample" help:"Samples: indices (12), ranges (10-19) or ids (maze_00000012)."`
	Resolved  bool     `help:"Remove the flags of samples that were replaced, or are not committed any more."`
}

func (*FlagsRemoveCmd) Help() string {
	return `Removes everybody's flags of samples. The samples stay as they are.

Examples:
  ops --stack dev flags remove maze-task-data-generator 4711 10-19
  ops --stack dev flags remove --resolved`
}

func (c *FlagsRemoveCmd) Validate() error {
	if c.Resolved == (len(c.Samples) > 0) {
		return ui.Usage("name a generator and its samples, or give --resolved")
	}
	if _, err := flags.ParseSamples(c.Samples); err != nil {
		return ui.Usage("%v", err)
	}
	return nil
}

func (c *FlagsRemoveCmd) Run(ctx context.Context, o *Output, t *target.Target, st *store.Store) error {
	var generators []string // none is all
	if c.Generator != "" {
		generators = []string{c.Generator}
	}
	list, err := flags.List(ctx, st, generators...)
	if err != nil {
		return err
	}
	var gone []flags.Flag
	if c.Resolved {
		gone, err = flags.Closed(ctx, st, list)
	} else {
		samples, _ := flags.ParseSamples(c.Samples)
		gone = flags.Of(list, c.Generator, samples)
	}
	if err != nil {
		return err
	}
	if len(gone) == 0 && !c.Resolved {
		return ui.WithHint(fmt.Errorf("none of these samples of %s is flagged", c.Generator), "ops%s flags list%s",
			t.Flags(), t.In())
	}
	if err := flags.Remove(ctx, st, gone); err != nil {
		return err
	}
	return o.PrintLine(map[string]int{"removed": len(gone)}, "removed: %s", ui.Plural(len(gone), "flag"))
}

type FlagsPlanCmd struct {
	flagged
	To string `help:"File for the plan." required:"" type:"path" placeholder:"FILE"`
}

func (*FlagsPlanCmd) Help() string {
	return `Writes a repair plan of the open flags and prints the command that carries it out. It replaces exactly these samples by another draw of their generator, with seeds that no sample has had, and touches nothing else; a sample that changed since the plan was made is left alone. Its flag is resolved then. If a generator makes the same sample again, its flag stays open.

Exit status 2: no flag is open.

Examples:
  ops --stack dev flags plan --to flagged.json`
}

func (c *FlagsPlanCmd) Run(ctx context.Context, o *Output, t *target.Target, st *store.Store) error {
	list, err := c.list(ctx, st)
	if err != nil {
		return err
	}
	plan := flags.Plan(st, list)
	n := 0
	for _, g := range plan.Generators {
		n += len(g.Replace)
	}
	if n == 0 {
		return ui.Problem("no flag is open: there is nothing to replace")
	}
	if err := plan.Write(c.To); err != nil {
		return err
	}
	err = o.PrintLine(map[string]any{"samples": n, "plan": c.To}, "repair plan for %s: %s", ui.Plural(n, "sample"),
		ui.FromHere(c.To))
	o.Say("next: ops%s repair --plan %s --overwrite%s", t.Flags(), ui.Quote(ui.FromHere(c.To)), t.In())
	return err
}
