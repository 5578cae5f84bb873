package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type DatasetCmd struct {
	List   DatasetListCmd   `cmd:"" help:"List the datasets."`
	Show   DatasetShowCmd   `cmd:"" help:"Show what a dataset pins, what was asked for and what is there."`
	Diff   DatasetDiffCmd   `cmd:"" help:"Compare what two datasets pin."`
	Delete DatasetDeleteCmd `cmd:"" help:"Delete a dataset with all its samples."`
}

func manifest(ctx context.Context, st *store.Store, t *target.Target, name string) (task.Manifest, error) {
	if err := task.CheckName(name); err != nil {
		return task.Manifest{}, ui.Usage("the name %v", err)
	}
	m, err := st.In(task.Dataset(name)).Manifest(ctx)
	if errors.Is(err, store.ErrNotFound) {
		err = ui.WithHint(fmt.Errorf("there is no dataset %s", name), "ops%s dataset list", t.Flags())
	}
	return m, err
}

type DatasetListCmd struct{}

func (*DatasetListCmd) Help() string {
	return `Examples:
  ops --stack dev dataset list
  ops --stack dev dataset list --json`
}

func (*DatasetListCmd) Run(ctx context.Context, o *Output, st *store.Store) error {
	names, err := st.Datasets(ctx)
	if err != nil {
		return err
	}
	list := []task.Manifest{}
	for _, name := range names {
		m, err := st.In(name).Manifest(ctx)
		if err != nil {
			return err
		}
		list = append(list, m)
	}
	return o.Print(list, func(w io.Writer) {
		fmt.Fprintln(w, "DATASET\tSEED\tFORMAT\tGENERATORS\tASKED FOR\tCREATED")
		for _, m := range list {
			asked := 0
			for _, g := range m.Generators {
				asked += m.Asked(g.Name).Len()
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%s\t%s\n", m.Dataset, m.Seed, m.Format, len(m.Generators), ui.Count(asked),
				m.Created.Format("2006-01-02 15:04"))
		}
	})
}

type DatasetShowCmd struct {
	Name string `arg:"" help:"Name of the dataset."`
}

func (*DatasetShowCmd) Help() string {
	return `The number of committed samples comes from a listing; 'ops verify' proves it.

Examples:
  ops --stack dev dataset show v1
  ops --stack dev dataset show v1 --json`
}

// ShownDataset is what show prints.
type ShownDataset struct {
	task.Manifest
	Committed map[string]int `json:"committed"` // samples by generator
}

func (c *DatasetShowCmd) Run(ctx context.Context, o *Output, t *target.Target, st *store.Store) error {
	m, err := manifest(ctx, st, t, c.Name)
	if err != nil {
		return err
	}
	s := ShownDataset{m, map[string]int{}}
	all := task.Run{Samples: task.MaxIndex}
	for _, g := range m.Generators {
		all.Generators = append(all.Generators, task.RunGenerator{Name: g.Name})
	}
	left, err := dataset.Narrow(ctx, st.In(m.Dataset), all)
	if err != nil {
		return err
	}
	for _, g := range left.Generators {
		s.Committed[g.Name] = all.Samples - dataset.Length(g.Missing)
	}
	return o.Print(s, func(w io.Writer) {
		fmt.Fprintf(w, "dataset %s: seed %d, format %s, made %s\n", m.Dataset, m.Seed, m.Format,
			m.Created.Format("2006-01-02 15:04"))
		fmt.Fprintln(w, "GENERATOR\tCHUNK\tOPTIONS\tASKED FOR\tCOMMITTED\tCOMMITS\tLOCKS")
		for _, g := range m.Generators {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", g.Name, g.ChunkSize, cmp.Or(g.Options.String(), "-"),
				dataset.Extent(m.Asked(g.Name)), ui.Count(s.Committed[g.Name]), shortAll(m.Commits(g.Name)),
				shortAll(m.Locks(g.Name)))
		}
		for _, image := range m.Images() {
			fmt.Fprintf(w, "image %s\n", image)
		}
	})
}

// shortAll writes hashes shortened, "-" for none.
func shortAll(hashes []string) string {
	short := make([]string, len(hashes))
	for i, hash := range hashes {
		short[i] = ui.Short(hash)
	}
	return cmp.Or(strings.Join(short, ", "), "-")
}

type DatasetDiffCmd struct {
	A string `arg:"" help:"Name of one dataset."`
	B string `arg:"" help:"Name of the other."`
}

func (*DatasetDiffCmd) Help() string {
	return `Compares seed and format; of each generator the chunk size, the options, the commits, the lock, and the range that was asked for. If nothing differs, a deterministic generator has made the same samples in one image.

Exit status 0: nothing differs. 2: something differs.

Examples:
  ops --stack dev dataset diff v1 v2`
}

func (c *DatasetDiffCmd) Run(ctx context.Context, o *Output, t *target.Target, st *store.Store) error {
	a, err := manifest(ctx, st, t, c.A)
	if err != nil {
		return err
	}
	b, err := manifest(ctx, st, t, c.B)
	if err != nil {
		return err
	}
	list := dataset.Differences(&a, &b)
	err = o.Print(list, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "nothing differs")
			return
		}
		fmt.Fprintf(w, "GENERATOR\tWHAT\t%s\t%s\n", a.Dataset, b.Dataset)
		for _, d := range list {
			a, b := cmp.Or(d.A, "-"), cmp.Or(d.B, "-")
			if d.What != "options" {
				a, b = shortAll(strings.Split(d.A, ", ")), shortAll(strings.Split(d.B, ", "))
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.Generator, d.What, a, b)
		}
	})
	return cmp.Or(err, ui.ProblemIf(len(list) > 0, ""))
}

type DatasetDeleteCmd struct {
	Name string `arg:"" help:"Name of the dataset."`
}

func (*DatasetDeleteCmd) Help() string {
	return `Deletes receipts, samples, failure reports, runs and flags, and the manifest last. After Ctrl-C or a crash, the same command continues. Wait until the queue is empty, or purge it: a worker that knows the dataset continues with its tasks. What it leaves behind, the same command deletes.

Examples:
  ops --stack dev dataset delete trial`
}

func (c *DatasetDeleteCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client,
	st *store.Store) error {
	m, err := manifest(ctx, st, t, c.Name)
	if err != nil {
		holds, e := st.In(task.Dataset(c.Name)).Holds(ctx)
		if e != nil || !holds {
			return err
		}
		m = task.Manifest{Dataset: task.Dataset(c.Name)} // perhaps a worker left something
	}
	o.Changing(t)
	depth, err := q.Depth(ctx)
	if err != nil {
		return err
	}
	question := fmt.Sprintf("Delete dataset %s with all samples of %s for good", m.Dataset,
		ui.Plural(len(m.Generators), "generator"))
	if n := depth.Total(); n > 0 {
		question = fmt.Sprintf("%s still in the queue, and may be of this dataset. %s", ui.Plural(n, "task"), question)
	}
	if err := o.Confirm(question); err != nil {
		return err
	}
	deleted := 0
	err = st.In(m.Dataset).DeleteDataset(ctx, func(n int) {
		deleted += n
		o.Progress("objects deleted", deleted, deleted)
	})
	if err != nil {
		return ui.WithHint(err, "the same command: it continues")
	}
	return o.PrintLine(map[string]any{"dataset": m.Dataset, "objects": deleted}, "dataset %s is deleted, %s", m.Dataset,
		ui.Plural(deleted, "object"))
}
