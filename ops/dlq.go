package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dlq"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type DLQCmd struct {
	Count    DLQCountCmd    `cmd:"" help:"Count the tasks in the DLQ."`
	List     DLQListCmd     `cmd:"" help:"Show the tasks in the DLQ by cause and generator."`
	Show     DLQShowCmd     `cmd:"" help:"Show all that is known of one task in the DLQ, and how to run it by hand."`
	Download DLQDownloadCmd `cmd:"" help:"Save messages of the DLQ as files; they stay there."`
	Replay   DLQReplayCmd   `cmd:"" help:"Send tasks of the DLQ to the queue again."`
	Purge    DLQPurgeCmd    `cmd:"" help:"Delete messages in the DLQ."`
}

type DLQCountCmd struct{}

func (*DLQCountCmd) Help() string {
	return `Counts the messages; 'ops dlq list' shows the causes.

Examples:
  ops --stack dev dlq count
  ops --stack dev dlq count --json`
}

func (*DLQCountCmd) Run(ctx context.Context, o *Output, q *queue.Client) error {
	d, err := q.DLQDepth(ctx)
	if err != nil {
		return err
	}
	return printDepth(o, d)
}

type dlqFilter struct {
	ID        []string     `help:"Only the task with this message id, its own or that of its first message; may be repeated." placeholder:"ID"`
	Cause     []task.Cause `help:"Only tasks that failed for this cause; may be repeated." placeholder:"CAUSE"`
	Generator []string     `help:"Only tasks of this generator; may be repeated." placeholder:"NAME" predictor:"generator"`
	Dataset   string       `help:"Only tasks of this dataset." env:"OPS_DATASET" placeholder:"NAME"`
	Since     moment       `help:"Only tasks that came into the DLQ since then: a span back from now (90m, 12h, 3d) or a time (2026-08-01T10:00:00Z). One that SQS moved there itself (cause lost) has the time it was first sent." placeholder:"TIME"`
	Max       int          `help:"At most this many." placeholder:"N"`
}

func (f *dlqFilter) Validate() error {
	for _, c := range f.Cause {
		if slices.Contains(task.Causes(), c) {
			continue
		}
		var names []string
		for _, known := range task.Causes() {
			names = append(names, string(known))
		}
		if near := generator.Nearest(string(c), names); near != "" {
			return ui.Usage("--cause %q is unknown; did you mean %s?", string(c), near)
		}
		return ui.Usage("--cause %q is unknown; there are %s", string(c), strings.Join(names, ", "))
	}
	if f.Dataset != "" {
		if err := task.CheckName(f.Dataset); err != nil {
			return ui.Usage("--dataset %v", err)
		}
	}
	if f.Max < 0 {
		return ui.Usage("--max is %d, it must be at least 1", f.Max)
	}
	return nil
}

func (f *dlqFilter) given() bool {
	return len(f.ID)+len(f.Cause)+len(f.Generator)+len(f.Dataset)+f.Max > 0 || !f.Since.IsZero()
}

func (f *dlqFilter) filter() dlq.Filter {
	return dlq.Filter{IDs: f.ID, Causes: f.Cause, Generators: f.Generator, Dataset: f.Dataset, Since: f.Since.Time,
		Max: f.Max}
}

type DLQListCmd struct {
	dlqFilter
	Each bool `help:"Show every task, not one of each cause and generator."`
}

func (*DLQListCmd) Help() string {
	return `Groups the tasks by cause, and shows the message id of one of each group for 'ops dlq show'. Reading the DLQ hides its messages for a moment and changes nothing else.

Examples:
  ops --stack dev dlq list
  ops --stack dev dlq list --cause crashed --since 12h
  ops --stack dev dlq list --each --json`
}

func (c *DLQListCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client) error {
	list := []dlq.Message{}
	filter := c.filter()
	err := filter.Each(ctx, q, func(d dlq.Message) error {
		list = append(list, d)
		return nil
	})
	if err != nil {
		return err
	}
	sorted := dlq.Groups(list)
	slices.SortFunc(list, func(a, b dlq.Message) int {
		return cmp.Or(strings.Compare(string(a.Cause), string(b.Cause)), a.Sent.Compare(b.Sent))
	})
	var data any = sorted
	if c.Each {
		data = list
	}
	return o.Print(data, func(w io.Writer) {
		switch {
		case len(sorted) == 0 && c.given():
			fmt.Fprintln(w, "no message in the DLQ matches")
			return
		case len(sorted) == 0:
			fmt.Fprintln(w, "the DLQ is empty")
			return
		case c.Each:
			listEach(w, list)
		default:
			listGroups(w, sorted)
		}
		fmt.Fprintln(w)
		for i, g := range sorted {
			if i == 0 || g.Cause != sorted[i-1].Cause {
				fmt.Fprintf(w, "%s\t%s\t%s\n", g.Cause, g.Means, g.Remedy)
			}
		}
		fmt.Fprintf(w, "more: ops%s dlq show %s\n", t.Flags(), sorted[0].Example.FirstID())
	})
}

func listGroups(w io.Writer, groups []*dlq.Group) {
	fmt.Fprintln(w, "CAUSE\tGENERATOR\tTASKS\tSAMPLES\tFIRST\tLAST\tEXAMPLE\tDETAIL")
	for _, g := range groups {
		samples := ui.Count(g.Samples)
		if g.Example.Task == nil {
			samples = "?"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", g.Cause, owner(g.Example), ui.Count(g.Tasks), samples,
			ago(g.First), ago(g.Last), g.Example.FirstID(), ui.Cut(g.Example.Detail, 120))
	}
}

func listEach(w io.Writer, list []dlq.Message) {
	fmt.Fprintln(w, "CAUSE\tGENERATOR\tSAMPLES\tRECEIVES\tAGE\tMESSAGE\tDETAIL")
	for _, d := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.Cause, owner(d), d.Samples(), deliveries(d),
			ui.Span(time.Since(d.Sent)), d.FirstID(), ui.Cut(d.Detail, 120))
	}
}

// owner is the generator, and the dataset if it is not the default one.
func owner(d dlq.Message) string {
	switch {
	case d.Task == nil:
		return "no task"
	case d.Task.Dataset.IsZero():
		return d.Generator()
	}
	return d.Generator() + " in " + d.Dataset()
}

// deliveries is how often workers received the task. SQS does not tell it of a message that it moved itself.
func deliveries(d dlq.Message) string { return cmp.Or(d.Text(task.AttributeReceives), "?") }

func ago(t time.Time) string { return ui.Span(time.Since(t)) + " ago" }

type DLQDownloadCmd struct {
	dlqFilter
	To string `help:"Folder to save the messages to, one JSON file each." aliases:"output" required:"" type:"path" placeholder:"DIR"`
}

func (*DLQDownloadCmd) Help() string {
	return `Writes one JSON file for each message, with its body, its attributes and its cause. 'ops dlq replay --from' sends the bodies from these files, so you can edit them first.

Examples:
  ops --stack dev dlq download --to saved
  ops --stack dev dlq download --to saved --generator maze-task-data-generator --cause crashed`
}

func (c *DLQDownloadCmd) Run(ctx context.Context, o *Output, q *queue.Client) error {
	if err := os.MkdirAll(c.To, 0o755); err != nil {
		return err
	}
	saved := 0
	filter := c.filter()
	err := filter.Each(ctx, q, func(d dlq.Message) error {
		saved++
		return dlq.Save(c.To, d)
	})
	if err != nil {
		return err
	}
	return o.PrintLine(map[string]any{"messages": saved, "to": c.To}, "%s saved in %s; they are still in the DLQ",
		ui.Plural(saved, "message"), c.To)
}

type DLQPurgeCmd struct{ dlqFilter }

func (*DLQPurgeCmd) Help() string {
	return `Without a filter it deletes everything in the DLQ: messages that another reader has in flight, and messages of other programs. With a filter it deletes the messages that are chosen when it asks.

Examples:
  ops --stack dev dlq purge --cause conflict
  ops --stack dev dlq purge --generator maze-task-data-generator --since 2h`
}

func (c *DLQPurgeCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client) error {
	const enough = 1000 // to read before everything is deleted anyway
	filter, ids, foreign := c.filter(), map[string]bool{}, 0
	if !c.given() {
		filter.Max = enough
	}
	err := filter.Each(ctx, q, func(d dlq.Message) error {
		ids[d.ID] = true
		if d.Task == nil {
			foreign++
		}
		return nil
	})
	if err != nil {
		return err
	}
	note := ""
	if foreign > 0 {
		note = fmt.Sprintf(" (%d of them are no tasks)", foreign)
	}
	if !c.given() {
		d, err := q.DLQDepth(ctx)
		if err != nil {
			return err
		}
		return purge(o, t, "DLQ"+note, d, func() error { return q.PurgeDLQ(ctx) })
	}
	o.Changing(t)
	if len(ids) == 0 {
		o.Say("purged: no message in the DLQ matches")
		return nil
	}
	if err := o.Confirm(fmt.Sprintf("Delete %s of the DLQ%s", ui.Plural(len(ids), "message"), note)); err != nil {
		return err
	}
	n, err := q.PurgeDLQOf(ctx, func(m queue.Message) bool { return ids[m.ID] })
	o.Say("purged: %s", ui.Plural(n, "message"))
	return err
}

type DLQReplayCmd struct {
	dlqFilter
	From      string  `help:"Send the messages that were saved in this folder instead. Each file is renamed to .sent when its message is sent; the DLQ is not touched." type:"existingdir" placeholder:"DIR"`
	Rate      float64 `help:"Messages per second, at most." placeholder:"N"`
	Chunk     int     `help:"Make the tasks with this many samples per generator process, a divisor of their chunk size: for tasks that took too much time or memory." placeholder:"N"`
	KeepSeed  bool    `help:"Send every task with the seeds it failed with." xor:"seeds"`
	FreshSeed bool    `help:"Give every task new seeds, even if its seeds were not to blame: for a generator that hangs on some." xor:"seeds"`
	DryRun    bool    `help:"Show what would be sent."`
}

func (*DLQReplayCmd) Help() string {
	return `A task whose generator failed because of its seeds gets new ones: a task of a run starts three attempts further on, so that the dataset stays a function of the run's seed; a task without a run gets a new seed, always the same for the same message. A task that failed for another reason (time, memory, the bucket, the environment) keeps its seeds, so it produces the samples originally planned.

With --chunk, the chunks of a task are made in parts of that size. The run, its chunk grid and what is committed do not change; the run's object in the bucket and the receipts record the parts.

A message is deleted from the DLQ only after the queue has confirmed the new one, and a journal records every step: after Ctrl-C or a crash, the same command continues and sends each task once. If it cannot know whether the queue took a task, it sends exactly the same task again, and workers ignore the second. A task that fails again meanwhile is left for the next replay. Messages that are no tasks stay in the DLQ.

Examples:
  ops --stack dev dlq replay --dry-run
  ops --stack dev dlq replay --cause crashed --generator maze-task-data-generator --max 1
  ops --stack dev dlq replay --cause timed_out --chunk 5 --rate 2
  ops --stack dev dlq replay --from saved --keep-seed`
}

func (c *DLQReplayCmd) Validate() error {
	switch {
	case c.Rate < 0 || c.Rate > 0 && c.Rate < 0.001:
		return ui.Usage("--rate is %g, it must be at least 0.001 messages a second", c.Rate)
	case c.Chunk < 0 || c.Chunk > task.MaxSamples:
		return ui.Usage("--chunk is %d, it must be from 1 to %d", c.Chunk, task.MaxSamples)
	}
	return c.dlqFilter.Validate()
}

func (c *DLQReplayCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store) error {
	r := dlq.Replay{Filter: c.filter(), Queue: q, Store: st, From: c.From, Rate: c.Rate, Chunk: c.Chunk,
		KeepSeed: c.KeepSeed, FreshSeed: c.FreshSeed, Say: o.Say, Progress: o.Progress,
		Journal: dlq.JournalPath(o.LocalDir, t.DLQURL, c.From)}
	replay := r.DryRun
	if !c.DryRun {
		o.Changing(t)
		replay = r.Do
	}
	result, err := replay(ctx)
	if err != nil {
		return err
	}
	return o.Print(result, func(w io.Writer) { printReplay(w, &result) })
}

func printReplay(w io.Writer, r *dlq.Result) {
	for _, body := range r.Bodies {
		fmt.Fprintln(w, body)
	}
	switch {
	case r.DryRun:
		fmt.Fprintf(w, "%s would be sent again; nothing was sent\n", ui.Plural(len(r.Bodies), "task"))
	case r.Before > 0:
		fmt.Fprintf(w, "%s sent again, and %s by the replay that was interrupted\n", ui.Plural(r.Sent, "task"),
			ui.Count(r.Before))
	default:
		fmt.Fprintf(w, "%s sent again\n", ui.Plural(r.Sent, "task"))
	}
	if r.Left > 0 {
		fmt.Fprintf(w, "%s left where they are\n", ui.Plural(r.Left, "message"))
	}
	if r.Again > 0 {
		fmt.Fprintf(w, "%s failed again meanwhile: the next replay sends the rest of them\n", ui.Plural(r.Again, "task"))
	}
	if r.Hidden > 0 {
		fmt.Fprintf(w, "about %s are hidden by another reader of the DLQ: they come back within two minutes, then run the "+
			"same command\n", ui.Plural(r.Hidden, "message"))
	}
}
