package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type VerifyCmd struct {
	choice
	inDataset
	Run_    string `help:"Run to verify. Default: the newest." name:"run" placeholder:"ID"`
	Samples int    `help:"With --all or --generator: samples per generator that must be there." placeholder:"N"`
	Start   int    `help:"With --samples: first index." default:"0"`
	Deep    bool   `help:"Also check the contents of every object: its hash, every pixel of a picture, the frames of a video, the members of a shard."`
	To      string `help:"With --deep: file for the repair plan, for ops repair. Default: below the local folder." aliases:"repair-plan" type:"path" placeholder:"FILE"`
	Read    bool   `help:"With --deep: read every byte, even if the store's own SHA-256 would do."`
	Fresh   bool   `help:"With --deep: start again, and do not continue an interrupted one."`
}

func (*VerifyCmd) Help() string {
	return `Reads every receipt and lists every object: each index must be committed, each object of a receipt must be there with its size, and every object of the samples in question must have a receipt. If two receipts name an index, the later one of its cell counts.

With --deep it also checks the contents. Pictures are decoded, videos must have their frames, shards must hold exactly their samples. For files that need no decoding (text, and videos that were checked when they were made) it compares the SHA-256 that S3 checked at the upload with the receipt, without a download. The files of the local stack can change without it, so there, and with --read, it reads every byte.

An interrupted --deep continues where it stopped: it trusts objects that it has found correct within the last seven days, if their receipts and sizes have not changed. --fresh trusts nothing.

Problems are reported by generator and kind: missing_object, wrong_size, wrong_hash, undecodable, bad_shard, stray_object, bad_receipt. At the end it prints the command that repairs them.

Without flags it checks the newest run. The last line names the run, or the samples, that were checked.

Exit status 0: complete. 2: something is missing or wrong. Duplicates (the same puzzle under two indices, by fingerprint) are counted and do not change the status, because some generators draw from a small pool: 'ops repair --duplicates' replaces them as far as possible.

Examples:
  ops --stack dev verify
  ops --stack dev verify --deep
  ops --stack dev verify --deep --to plan.json
  ops --stack dev verify --all --samples 10000 --json`
}

func (c *VerifyCmd) Validate() error {
	if !c.Deep && (c.To != "" || c.Read || c.Fresh) {
		return ui.Usage("--to, --read and --fresh belong to --deep")
	}
	return c.checkExtent(c.Run_, c.Samples, c.Start)
}

func (c *VerifyCmd) Run(ctx context.Context, o *Output, t *target.Target, st *store.Store) error {
	collectOften()
	run, err := c.run(ctx, o, t, st)
	if err != nil {
		return err
	}
	check := &dataset.Checker{Store: st, Deep: c.Deep, Trust: !c.Read && t.S3Endpoint == "", Progress: o.Progress}
	if c.Deep {
		about := fmt.Sprintf("%s %s %d-%d trust=%t", st.Bucket(), st.Dataset(), run.Start, run.Start+run.Samples, check.Trust)
		path := c.file(o, t, run, "journal")
		if check.Journal, err = dataset.OpenJournal(path, about, c.Fresh); err != nil {
			return err
		}
	}
	report, err := check.Run(ctx, run)
	if err := errors.Join(err, check.Journal.Close(err == nil)); err != nil {
		if c.Deep && ctx.Err() != nil {
			return ui.WithHint(err, "the same command: it continues")
		}
		return err
	}
	if err := o.Print(report, func(w io.Writer) { printReport(w, report) }); err != nil {
		return err
	}
	if report.Complete {
		return nil
	}
	return c.advise(o, t, st, run, report)
}

func (c *VerifyCmd) run(ctx context.Context, o *Output, t *target.Target, st *store.Store) (task.Run, error) {
	if !c.given() {
		run, err := findRun(ctx, st, c.Run_, t)
		if err == nil && run.Samples == 0 {
			err = ui.Usage("run %s repairs samples and has no range of its own: give --all --samples N, or --run ID of the "+
				"run that made them", run.ID)
		}
		return run, err
	}
	names, err := c.wanted(ctx, o, t, st)
	run := task.Run{Start: c.Start, Samples: c.Samples}
	for _, name := range names {
		run.Generators = append(run.Generators, task.RunGenerator{Name: name})
	}
	return run, err
}

// wanted returns the chosen generators. --all leaves out those that are not ready and have no samples.
func (c *VerifyCmd) wanted(ctx context.Context, o *Output, t *target.Target, st *store.Store) ([]string, error) {
	list, err := o.inventory().List(ctx, t)
	if err != nil {
		return nil, err
	}
	problems := map[string]string{}
	for _, g := range list {
		problems[g.Name] = g.Problem
	}
	names, err := o.inventory().PickFrom(list, c.names())
	if err != nil || !c.everything() {
		return names, err
	}
	committed, err := st.Folders(ctx, st.Dataset().Prefix(task.ReceiptKind))
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		out := problems[name] != "" && !slices.Contains(committed, name)
		if out {
			o.Say("left out: %s: %s", name, problems[name])
		}
		return out
	})
	if len(names) == 0 {
		return nil, errors.New("no generator is ready")
	}
	return names, nil
}

func (c *VerifyCmd) file(o *Output, t *target.Target, run task.Run, what string) string {
	name := run.ID
	if name == "" {
		name = fmt.Sprintf("%d-%d", run.Start, run.Start+run.Samples-1)
	}
	if !t.Dataset.IsZero() {
		name = t.Dataset.String() + "-" + name
	}
	return filepath.Join(o.LocalDir, "verify", strings.ReplaceAll(t.Name, "/", "_"), name+"."+what)
}

// advise writes the repair plan and prints the command that carries it out.
func (c *VerifyCmd) advise(o *Output, t *target.Target, st *store.Store, run task.Run, report *dataset.Report) error {
	wrong := ui.Problem("")
	again := "--run " + run.ID + t.In()
	if run.ID == "" {
		again = fmt.Sprintf("%s --samples %d --start %d%s", c.flags(), c.Samples, c.Start, t.In())
	}
	plan := report.Plan(st.Bucket())
	damaged, overwrites := plan.Needs()
	switch {
	case damaged && !c.Deep:
		return ui.WithHint(wrong, "ops%s verify --deep %s", t.Flags(), again)
	case !damaged && c.To == "":
		return ui.WithHint(wrong, "ops%s repair %s", t.Flags(), again)
	}
	path := cmp.Or(c.To, c.file(o, t, run, "plan.json"))
	if err := plan.Write(path); err != nil {
		return err
	}
	path = ui.FromHere(path)
	o.Say("repair plan: %s", path)
	overwrite := ""
	if overwrites {
		overwrite = " --overwrite"
	}
	return ui.WithHint(wrong, "ops%s repair --plan %s%s%s", t.Flags(), ui.Quote(path), overwrite, t.In())
}

func (c *choice) flags() string {
	if c.All {
		return "--all"
	}
	return "--generator " + strings.Join(c.Generator, " --generator ")
}

func printReport(w io.Writer, r *dataset.Report) {
	verdict := func(complete bool) string {
		if complete {
			return "complete"
		}
		return "INCOMPLETE"
	}
	fmt.Fprintln(w, "GENERATOR\tSAMPLES\tMISSING\tDAMAGED\tDUPLICATES\tSIZE\t")
	for _, g := range r.Generators {
		damaged := 0
		for _, n := range g.Damaged {
			damaged += n
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", g.Name, ui.Count(g.Samples), ui.Count(g.Expected-g.Samples),
			ui.Count(damaged), ui.Count(g.Duplicates), ui.Size(g.Bytes), verdict(g.Complete))
	}
	for _, g := range r.Generators {
		if len(g.Missing) > 0 {
			fmt.Fprintf(w, "%s: missing %s\n", g.Name, ui.Some(g.Missing, 10))
		}
		for _, kind := range slices.Sorted(maps.Keys(g.Damaged)) {
			fmt.Fprintf(w, "%s: %s %s: %s\n", g.Name, ui.Count(g.Damaged[kind]), kind, kind.Means())
			shown := 0
			for _, d := range g.Examples {
				if d.Kind == kind {
					fmt.Fprintf(w, "    %s\n", strings.TrimSuffix(d.Key+": "+d.Detail, ": "))
					shown++
				}
			}
			if more := g.Damaged[kind] - shown; more > 0 {
				fmt.Fprintf(w, "    and %s more\n", ui.Count(more))
			}
		}
		if len(g.Seeds) > 1 {
			fmt.Fprintf(w, "%s: made with the seeds %v: some messages had their own\n", g.Name, g.Seeds)
		}
		if len(g.Commits) > 1 {
			fmt.Fprintf(w, "%s: made by %d commits of the generator: %s\n", g.Name, len(g.Commits), tallied(g.Commits, "by"))
		}
		if len(g.Locks) > 1 {
			fmt.Fprintf(w, "%s: made with %d locks of its packages: %s\n", g.Name, len(g.Locks), tallied(g.Locks, "with"))
		}
		if g.ChunksAlike() {
			fmt.Fprintf(w, "%s: equal chunks, %s of %s: it takes no seed, or ignores it (ops generators check %s)\n", g.Name,
				ui.Count(g.Alike), ui.Count(g.Chunks), g.Name)
		}
		if g.Duplicates > 0 {
			var pairs []string
			for _, d := range g.First {
				pairs = append(pairs, fmt.Sprintf("%d = %d", d.Index, d.Of))
			}
			fmt.Fprintf(w, "%s: %s distinct of %s; it has %s puzzles; duplicates %s%s\n", g.Name, ui.Count(g.Distinct),
				ui.Count(g.Samples), g.Pool, strings.Join(pairs, ", "), ui.More(g.Duplicates-len(pairs)))
		}
	}
	for _, domain := range slices.Sorted(maps.Keys(r.SameIDs)) {
		fmt.Fprintf(w, "%s: their samples have the same ids, %s and so on: to combine them, use generator and id\n",
			strings.Join(r.SameIDs[domain], ", "), task.SampleID(domain, 0))
	}
	checked := "run " + r.Run
	if r.Run == "" {
		checked = fmt.Sprintf("samples %d to %d", r.Range.Start, r.Range.End-1)
	}
	fmt.Fprintf(w, "%s: %s: %s, %s, %s\n", verdict(r.Complete), checked, ui.Plural(len(r.Generators), "generator"),
		ui.Plural(r.Samples, "sample"), ui.Size(r.Bytes))
}

func tallied(counts map[string]int, by string) string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %s %.12s", ui.Count(counts[what]), by, what))
	}
	return ui.Some(parts, 10)
}

// collectOften has half a million samples fit into 200 MB. What is kept of each has no pointers, so collecting garbage
// often is cheap. The limit counts where other processes leave the collector little time; with more samples of one
// generator it costs CPU.
func collectOften() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(40)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(128 << 20)
	}
}
