package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
)

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
