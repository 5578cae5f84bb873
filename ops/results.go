package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/download"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inventory"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type ResultsCmd struct {
	List     ResultsListCmd     `cmd:"" help:"List what is committed."`
	Ls       ResultsListCmd     `cmd:"" hidden:""`
	Download ResultsDownloadCmd `cmd:"" help:"Download samples and check them against their receipts."`
}

type ResultsListCmd struct {
	inDataset
	Generator []string `help:"Only this generator; may be repeated." placeholder:"NAME" predictor:"generator"`
}

// Listed is one line of the list.
type Listed struct {
	Generator string   `json:"generator"`
	Samples   int      `json:"samples"`
	Chunks    int      `json:"chunks"`
	First     int      `json:"first"`
	Last      int      `json:"last"`
	Bytes     int64    `json:"bytes"`
	Formats   []string `json:"formats"`
}

func (*ResultsListCmd) Help() string {
	return `Reads the receipts of every run. SIZE is that of the samples as files, even if they are stored in shards.

Examples:
  ops --stack dev results list
  ops --stack dev results list --generator maze-task-data-generator --json`
}

func (c *ResultsListCmd) Run(ctx context.Context, o *Output, st *store.Store) error {
	names, err := committed(ctx, st, c.Generator)
	if err != nil {
		return err
	}
	list := []Listed{}
	for _, name := range names {
		l := Listed{Generator: name}
		var indices []int // cells come in order
		for cell, err := range st.CellsIn(ctx, name, task.Range{End: task.MaxIndex}, nil) {
			if err != nil {
				return err
			}
			indices = append(indices, cell.Committed()...)
			for _, r := range cell.Receipts {
				l.Chunks++
				for _, s := range r.Current {
					for _, f := range s.Files {
						l.Bytes += f.Size
					}
				}
				if f := string(r.Format); !slices.Contains(l.Formats, f) {
					l.Formats = append(l.Formats, f)
				}
			}
		}
		if l.Samples = len(indices); l.Samples > 0 { // else its cells were taken, and nothing is committed
			l.First, l.Last = indices[0], indices[l.Samples-1]
			list = append(list, l)
		}
	}
	return o.Print(list, func(w io.Writer) {
		fmt.Fprintln(w, "GENERATOR\tSAMPLES\tFIRST\tLAST\tCHUNKS\tSIZE\tFORMAT")
		for _, l := range list {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n", l.Generator, ui.Count(l.Samples), l.First, l.Last, ui.Count(l.Chunks),
				ui.Size(l.Bytes), strings.Join(l.Formats, "+"))
		}
	})
}

// committed returns the generators that have receipts, or those of them that were asked for.
func committed(ctx context.Context, st *store.Store, wanted []string) ([]string, error) {
	there, err := st.Folders(ctx, st.Dataset().Prefix(task.ReceiptKind))
	if err != nil {
		return nil, err
	}
	if len(wanted) == 0 || slices.Contains(wanted, "all") {
		return there, nil
	}
	return inventory.Pick(wanted, there)
}

type ResultsDownloadCmd struct {
	inDataset
	To        string   `help:"Folder to download to." required:"" type:"path" placeholder:"DIR"`
	Generator []string `help:"Only this generator; may be repeated." placeholder:"NAME" predictor:"generator"`
	Unpack    bool     `help:"Unpack shards into the layout of single files."`
	Check     bool     `help:"Also read and check every file that is there already."`
}

func (*ResultsDownloadCmd) Help() string {
	return `Downloads only what has a receipt, and checks every file against the hash in it before it gets its name. Samples are in DIR/<generator>/<sample>/<file>, shards in DIR/<generator>/.

Each file has the time of its receipt. A file with that time and the right size is not read again, so an interrupted download continues where it stopped; a file with another time is compared with the hash, and downloaded again only if it differs. --check compares all.

If the connection of an object breaks, it is retried. What cannot be downloaded is listed at the end with the reason, after everything else.

Exit status 1: it was stopped, or the disk or the bucket failed; the same command continues. 2: something does not match its receipt or could not be downloaded; it is listed and not kept.

Examples:
  ops --stack dev results download --to dataset
  ops --stack dev results download --to dataset --generator maze-task-data-generator --unpack
  ops --stack dev results download --to dataset --check`
}

func (c *ResultsDownloadCmd) Run(ctx context.Context, o *Output, st *store.Store) error {
	names, err := committed(ctx, st, c.Generator)
	if err != nil {
		return err
	}
	s, err := download.Download(ctx, st, names, download.Options{
		To: c.To, Unpack: c.Unpack, Check: c.Check, Progress: o.Progress,
	})
	if err != nil {
		return err
	}
	err = o.Print(s, func(w io.Writer) {
		fmt.Fprintf(w, "%s, %s, in %s", ui.Plural(int(s.Files), "file"), ui.Size(s.Bytes), s.To)
		if s.Present > 0 {
			fmt.Fprintf(w, "; %s there already", ui.Plural(int(s.Present), "file"))
		}
		fmt.Fprintln(w)
		for _, p := range s.Problems {
			fmt.Fprintln(w, p)
		}
	})
	return cmp.Or(err, ui.ProblemIf(len(s.Problems) > 0, "%s could not be downloaded as the receipts say",
		ui.Plural(len(s.Problems), "object")))
}
