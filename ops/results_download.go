package main

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/download"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

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
