package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/reproduce"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type ReproduceCmd struct {
	inDataset
	Generator string `arg:"" help:"Generator of the sample." predictor:"generator"`
	Index     int    `arg:"" help:"Index of the sample."`
	To        string `help:"Folder to keep the new sample in, as DIR/<sample>/." type:"path" placeholder:"DIR"`
	Here      bool   `help:"Run the generator of this machine, even if the receipt names an image."`
}

func (*ReproduceCmd) Help() string {
	return `Runs the command of the sample's receipt again, with the environment, the working folder and the sandbox of a worker, and compares the sample's files with the hashes in the receipt. For a repaired sample it runs the command of the repair.

If the receipt names the image of its worker and docker has that image, it runs the generator of the image. If not, it runs the generator of this machine, in an environment made from the receipt's lock, whatever 'generators/locks' has now, and with its version of Python if that is on the PATH or uv can fetch it. It finds a lock by its hash in the generators' folder, in its git history, or in the bucket, where 'ops submit' puts it. The workers of a local stack keep their own environments.

It reports whatever is different from the receipt: commit, lock, Python, platform, image. If files differ, it runs the generator a second time. If the two runs differ, the generator is not deterministic, and no machine can reproduce the sample.

Exit status 0: the same bytes. 2: something differs.

Examples:
  ops --stack dev reproduce maze-task-data-generator 4711
  ops --stack local reproduce chess-task-data-generator 12 --to again --json`
}

func (c *ReproduceCmd) Validate() error {
	return between("the index", &c.Index, 0, task.MaxIndex-1)
}

func (c *ReproduceCmd) Run(ctx context.Context, o *Output, t *target.Target, st *store.Store) error {
	p, err := reproduce.Sample(ctx, st, reproduce.Request{Generator: c.Generator, Index: c.Index, To: c.To, Here: c.Here,
		Inventory: o.inventory()})
	if errors.Is(err, store.ErrNotFound) {
		return unknownSample(ctx, t, st, c.Generator, fmt.Errorf("sample %d of %s is not committed", c.Index, c.Generator))
	}
	if err != nil {
		return err
	}
	return cmp.Or(o.Print(p, func(w io.Writer) { printReproduction(w, p) }), ui.ProblemIf(!p.Equal, ""))
}

// unknownSample returns the error for a sample that is not committed: err, or one that
// names the generator if nothing of it is.
func unknownSample(ctx context.Context, t *target.Target, st *store.Store, name string, err error) error {
	there, e := st.Folders(ctx, st.Dataset().Prefix(task.ReceiptKind))
	if e != nil {
		return e
	}
	if !slices.Contains(there, name) {
		err = &generator.UnknownError{Name: name, Nearest: generator.Nearest(name, there)}
	}
	return ui.WithHint(err, "ops%s results list%s", t.Flags(), t.In())
}

func printReproduction(w io.Writer, p *reproduce.Reproduction) {
	fmt.Fprintln(w, "FILE\tWAS\tIS\t")
	for _, f := range p.Files {
		verdict := f.Verdict
		if f.Varies {
			verdict += ", also between two runs"
		}
		if len(f.Fields) > 0 {
			verdict += ": " + strings.Join(f.Fields, ", ")
		}
		fmt.Fprintf(w, "%s\t%.12s\t%.12s\t%s\n", f.Name, f.Was, f.Is, verdict)
	}
	for _, note := range p.Notes {
		fmt.Fprintf(w, "note: %s\n", note)
	}
	if p.To != "" {
		fmt.Fprintf(w, "kept in %s\n", p.To)
	}
	fmt.Fprintf(w, "%s of %s: %s\n", p.ID, p.Generator, p.Verdict())
}
