package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inventory"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

type GeneratorsCmd struct {
	List  GeneratorsListCmd  `cmd:"" help:"List every generator, and whether it is ready on this machine."`
	Sync  GeneratorsSyncCmd  `cmd:"" help:"Fetch the generators of the catalogue at their commits."`
	Lock  GeneratorsLockCmd  `cmd:"" help:"Resolve the requirements of generators into locks."`
	Check GeneratorsCheckCmd `cmd:"" help:"Check whether generators keep the contract, and measure their costs."`
	Run   GeneratorsRunCmd   `cmd:"" help:"Run a generator as a worker does, and keep its files."`
}

type GeneratorsListCmd struct{}

func (*GeneratorsListCmd) Help() string {
	return `Every folder in the generators' folder that has examples/generate.py is a generator; catalog.yaml there names more, and 'ops generators sync' fetches them. A generator is ready when its Python environment exists; the local stack makes it on first use.

A generator without --seed works, but two of its chunks may be equal. FILES are those that its samples must have in addition to first_frame.png, prompt.txt and a ground_truth video. POOL is the number of puzzles that a generator can make: of more samples than that, some are alike. --json also lists the packages.

Examples:
  ops generators list
  ops generators list --json | jq '.[] | select(.ready | not) | .name'`
}

func (*GeneratorsListCmd) Run(o *Output) error {
	list, err := o.inventory().All()
	if err != nil {
		return err
	}
	return o.Print(list, func(w io.Writer) {
		fmt.Fprintln(w,
			"GENERATOR\tSTATE\tCOMMIT\tSEED\tCHUNK\tREPOSITORY\tENVIRONMENT\tFLAGS\tFILES\tCATEGORY\tDOMAIN\tPOOL")
		for _, k := range list {
			state := "ready"
			if !k.Ready {
				state = ui.Cut(k.Problem, 60)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.Name, state, commitOf(k), seedOf(k),
				countOf(k.ChunkSize), cmp.Or(k.Repository, "-"), cmp.Or(ui.Short(k.Environment), "-"), flagsOf(k), filesOf(k),
				cmp.Or(k.Category, "-"), cmp.Or(k.Domain, "-"), countOf(k.Pool))
		}
	})
}

// commitOf is the short commit of the folder, and the pin if that differs.
func commitOf(k inventory.Known) string {
	hash, changed := strings.CutSuffix(k.Commit, "-dirty")
	text := ui.Short(cmp.Or(hash, k.Pin, "-"))
	if changed {
		text += "-dirty"
	}
	if k.Commit != "" && k.Pin != "" && hash != k.Pin {
		text += " (pin " + ui.Short(k.Pin) + ")"
	}
	return text
}

func seedOf(k inventory.Known) string {
	switch {
	case !k.Fetched:
		return "-"
	case k.Flags.Seed && k.Flags.From == generator.FromContract:
		return "assumed"
	case k.Flags.Seed:
		return "yes"
	}
	return "no: duplicates are likely"
}

// flagsOf are the flags that differ between generators.
func flagsOf(k inventory.Known) string {
	if !k.Fetched {
		return "-"
	}
	list := []string{cmp.Or(k.Flags.Output, "--output")}
	if k.Flags.StartIndex {
		list = append(list, "--start-index")
	}
	if k.Flags.NoVideo != "" {
		list = append(list, k.Flags.NoVideo)
	}
	return strings.Join(slices.Concat(list, k.ExtraArgs, k.Options.Args()), " ")
}

// filesOf are the files that only its samples must have.
func filesOf(k inventory.Known) string {
	list := k.Required
	if k.Videoless {
		list = append([]string{"no video"}, list...)
	}
	return cmp.Or(strings.Join(list, ", "), "-")
}

// countOf is a number that 0 stands for as long as none is known.
func countOf(n int) string {
	if n == 0 {
		return "-"
	}
	return ui.Count(n)
}

type GeneratorsLockCmd struct {
	Names  []string `arg:"" optional:"" name:"name" help:"Only of these generators. Default: all that are there." predictor:"generator"`
	Update bool     `help:"Resolve again, as of now, what is locked already." aliases:"upgrade"`
}

func (*GeneratorsLockCmd) Help() string {
	return `A lock fixes a requirement set: the version of every package in it, and the hashes of its files for all platforms. Environments are made from locks alone, on this machine and in the image, so later uploads to an index change nothing. Locks are files in 'locks' of the generators' folder, one for each requirement set: commit them, and review what changes.

Requirements are resolved as of the time of the generator's commit if the index says when packages were uploaded, and as of now if not; the lock says which. A generator without a lock gets one in the local folder when its environment is made.

Exit status 2: some requirements cannot be resolved.

Examples:
  ops generators lock
  ops generators lock maze-task-data-generator --update`
}

func (c *GeneratorsLockCmd) Run(ctx context.Context, o *Output) error {
	here, err := o.inventory().Folder()
	if err != nil {
		return err
	}
	names, err := o.inventory().PickFrom(here, c.Names)
	if err != nil {
		return err
	}
	locks := environment.Locks{Root: o.Generators, Dir: filepath.Join(o.LocalDir, "generators"), Names: names,
		Update: c.Update, Progress: func(line string) { o.Say("%s", line) }}
	results, err := locks.Make(ctx)
	if err != nil {
		return err
	}
	if err := o.Print(results, func(w io.Writer) {
		fmt.Fprintln(w, "LOCK\tSTATE\tPACKAGES\tAS OF\tGENERATORS")
		for _, r := range results {
			who := ui.Plural(len(r.Generators), "generator")
			if len(r.Generators) < 3 {
				who = strings.Join(r.Generators, ", ")
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", r.File, r.State, r.Packages, r.AsOf, who)
		}
	}); err != nil {
		return err
	}
	failed := slices.DeleteFunc(results, func(r environment.LockResult) bool { return r.State != environment.LockFailed })
	for _, r := range failed {
		o.Say("%s: %s", strings.Join(r.Generators, ", "), r.Problem)
	}
	return ui.ProblemIf(len(failed) > 0, "%s could not be resolved", ui.Plural(len(failed), "requirement set"))
}
