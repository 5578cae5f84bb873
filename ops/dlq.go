package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// DLQCmd looks at the dead letter queue.
type DLQCmd struct {
	Count    DLQCountCmd    `cmd:"" help:"Count the tasks in the DLQ."`
	List     DLQListCmd     `cmd:"" help:"Show the tasks in the DLQ by cause and generator."`
	Show     DLQShowCmd     `cmd:"" help:"Show all that is known of one task in the DLQ, and how to run it by hand."`
	Download DLQDownloadCmd `cmd:"" help:"Save messages of the DLQ as files, leaving them there."`
	Replay   DLQReplayCmd   `cmd:"" help:"Send tasks of the DLQ to the queue again."`
	Purge    DLQPurgeCmd    `cmd:"" help:"Delete messages in the DLQ."`
}

// DLQCountCmd counts the DLQ.
type DLQCountCmd struct{}

// Help is the long help.
func (*DLQCountCmd) Help() string {
	return `A count of what is there; 'ops dlq list' says why.

Examples:
  ops --stack dev dlq count
  ops --stack dev dlq count --json`
}

// Run counts.
func (*DLQCountCmd) Run(ctx context.Context, o *Output, q *queue.Client) error {
	d, err := q.DLQDepth(ctx)
	if err != nil {
		return err
	}
	return printDepth(o, d)
}

// dlqFilter are the flags that choose messages of the DLQ.
type dlqFilter struct {
	Cause     []task.Cause `help:"Only tasks that failed for this cause; may be repeated." placeholder:"CAUSE"`
	Generator []string     `help:"Only tasks of this generator; may be repeated." placeholder:"NAME" predictor:"generator"`
	Dataset   string       `help:"Only tasks of this dataset." env:"OPS_DATASET" placeholder:"NAME"`
	Since     moment       `help:"Only tasks that came into the DLQ since then: a span back from now (90m, 12h, 3d) or a time (2026-08-01T10:00:00Z). One that SQS moved there itself (cause lost) has the time it was first sent." placeholder:"TIME"`
	Max       int          `help:"At most so many." placeholder:"N"`
}

func (f *dlqFilter) check() error {
	for _, c := range f.Cause {
		if slices.Contains(task.Causes(), c) {
			continue
		}
		var names []string
		for _, known := range task.Causes() {
			names = append(names, string(known))
		}
		if near := generator.Nearest(string(c), names); near != "" {
			return ui.Usage("--cause %q is none; did you mean %s?", string(c), near)
		}
		return ui.Usage("--cause %q is none; there are %s", string(c), strings.Join(names, ", "))
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

// given reports whether any flag chooses.
func (f *dlqFilter) given() bool {
	return len(f.Cause)+len(f.Generator)+len(f.Dataset)+f.Max > 0 || !f.Since.IsZero()
}

// chooser returns a function that reports whether a message is chosen. With --max,
// it chooses that many.
func (f *dlqFilter) chooser() func(dead) bool {
	left := f.Max
	return func(d dead) bool {
		switch {
		case f.Max > 0 && left == 0,
			len(f.Cause) > 0 && !slices.Contains(f.Cause, d.Cause),
			len(f.Generator) > 0 && !slices.Contains(f.Generator, d.generator()),
			f.Dataset != "" && d.dataset() != f.Dataset,
			d.Sent.Before(f.Since.Time):
			return false
		}
		left--
		return true
	}
}

// each hands over the chosen messages of the DLQ.
func (f *dlqFilter) each(ctx context.Context, q *queue.Client, see func(dead) error) error {
	chosen, found := f.chooser(), 0
	return q.EachDead(ctx, func(m queue.Message) error {
		d := describe(m)
		if !chosen(d) {
			return nil
		}
		if err := see(d); err != nil {
			return err
		}
		if found++; found == f.Max {
			return queue.ErrEnough
		}
		return nil
	})
}

// dead is a message of the DLQ and what is known of it.
type dead struct {
	queue.Message
	Cause  task.Cause `json:"cause"`
	Detail string     `json:"detail,omitempty"`
	Task   *task.Task `json:"task,omitempty"` // nil if it is none
}

// describe makes what it can of a message: somebody else may have put it there, or
// given it attributes of their own.
func describe(m queue.Message) dead {
	d := dead{Message: m, Cause: task.Cause(m.Text(task.AttributeCause)), Detail: m.Text(task.AttributeDetail)}
	known := slices.Contains(task.Causes(), d.Cause)
	t, err := task.Parse([]byte(m.Body), m.ID)
	switch {
	case err == nil:
		d.Task = &t
	case !known:
		d.Cause, d.Detail = task.InvalidTask, fmt.Sprintf("%s: %s", strings.TrimPrefix(err.Error(), "invalid task: "),
			ui.Cut(m.Body, 60))
		return d
	}
	if !known {
		d.Cause, d.Detail = task.Lost, task.Lost.Policy().Means
	}
	return d
}

func (d dead) generator() string {
	if d.Task == nil {
		return ""
	}
	return d.Task.Generator
}

func (d dead) dataset() string {
	if d.Task == nil {
		return ""
	}
	return d.Task.Dataset.String()
}

// whose is the generator, and the dataset if it is not the default one.
func (d dead) whose() string {
	switch {
	case d.Task == nil:
		return "no task"
	case d.Task.Dataset.IsZero():
		return d.Task.Generator
	}
	return d.Task.Generator + " in " + d.dataset()
}

func (d dead) samples() string {
	if d.Task == nil {
		return "?"
	}
	r := d.Task.Range()
	if d.Task.Indices != nil {
		return fmt.Sprintf("%d of %d-%d", len(d.Task.Indices), r.Start, r.End-1)
	}
	return fmt.Sprintf("%d-%d", r.Start, r.End-1)
}

// receives is how often workers were given the task. Of a message that SQS moved
// itself only the receives of the DLQ are known, which looks are among.
func (d dead) receives() string {
	if n := d.Text(task.AttributeReceives); n != "" {
		return n
	}
	return "?"
}

// DLQListCmd shows the DLQ.
type DLQListCmd struct {
	dlqFilter
	Each bool `help:"Show every task, and not one example of each cause and generator."`
}

// Validate checks the flags.
func (c *DLQListCmd) Validate() error { return c.check() }

// Help is the long help.
func (*DLQListCmd) Help() string {
	return `Groups of tasks that failed for the same cause, with an example of each: its message id is what 'ops dlq show' takes. Looking hides messages for a moment and changes nothing.

Examples:
  ops --stack dev dlq list
  ops --stack dev dlq list --cause crashed --since 12h
  ops --stack dev dlq list --each --json`
}

// Group are the dead tasks of one cause, dataset and generator.
type Group struct {
	Cause     task.Cause `json:"cause"`
	Dataset   string     `json:"dataset,omitempty"`
	Generator string     `json:"generator,omitempty"` // none: they are no tasks
	Tasks     int        `json:"tasks"`
	Samples   int        `json:"samples"` // that they ask for
	First     time.Time  `json:"first"`   // when the first came here
	Last      time.Time  `json:"last"`
	Means     string     `json:"means"`
	Remedy    string     `json:"remedy"`
	Example   dead       `json:"example"` // the last one
}

func (g *Group) add(d dead) {
	if g.Tasks++; d.Task != nil {
		g.Samples += d.Task.Count()
	}
	if g.Tasks == 1 || d.Sent.Before(g.First) {
		g.First = d.Sent
	}
	if g.Tasks == 1 || d.Sent.After(g.Last) {
		g.Last, g.Example = d.Sent, d
	}
}

// Run shows the DLQ.
func (c *DLQListCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client) error {
	type key struct {
		cause              task.Cause
		dataset, generator string
	}
	groups := map[key]*Group{}
	list := []dead{}
	err := c.each(ctx, q, func(d dead) error {
		k := key{d.Cause, d.dataset(), d.generator()}
		if groups[k] == nil {
			groups[k] = &Group{Cause: d.Cause, Dataset: k.dataset, Generator: k.generator, Means: d.Cause.Policy().Means,
				Remedy: d.Cause.Policy().Remedy}
		}
		groups[k].add(d)
		if c.Each {
			list = append(list, d)
		}
		return nil
	})
	if err != nil {
		return err
	}
	sorted := []*Group{}
	for _, g := range groups {
		sorted = append(sorted, g)
	}
	slices.SortFunc(sorted, func(a, b *Group) int {
		if c := slices.Index(task.Causes(), a.Cause) - slices.Index(task.Causes(), b.Cause); c != 0 {
			return c
		}
		return cmp.Or(strings.Compare(a.Generator, b.Generator), strings.Compare(a.Dataset, b.Dataset))
	})
	slices.SortFunc(list, func(a, b dead) int {
		if c := strings.Compare(string(a.Cause), string(b.Cause)); c != 0 {
			return c
		}
		return a.Message.Sent.Compare(b.Message.Sent)
	})
	var data any = sorted
	if c.Each {
		data = list
	}
	return o.Print(data, func(w io.Writer) {
		switch {
		case len(sorted) == 0 && c.given():
			fmt.Fprintln(w, "no message in the DLQ is like that")
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

func listGroups(w io.Writer, groups []*Group) {
	fmt.Fprintln(w, "CAUSE\tGENERATOR\tTASKS\tSAMPLES\tFIRST\tLAST\tEXAMPLE\tDETAIL")
	for _, g := range groups {
		samples := ui.Count(g.Samples)
		if g.Example.Task == nil {
			samples = "?"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", g.Cause, g.Example.whose(), ui.Count(g.Tasks), samples,
			ago(g.First), ago(g.Last), g.Example.FirstID(), ui.Cut(g.Example.Detail, 120))
	}
}

func listEach(w io.Writer, list []dead) {
	fmt.Fprintln(w, "CAUSE\tGENERATOR\tSAMPLES\tRECEIVES\tAGE\tMESSAGE\tDETAIL")
	for _, d := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.Cause, d.whose(), d.samples(), d.receives(),
			ui.Span(time.Since(d.Sent)), d.FirstID(), ui.Cut(d.Detail, 120))
	}
}

func ago(t time.Time) string { return ui.Span(time.Since(t)) + " ago" }

// DLQDownloadCmd saves the DLQ.
type DLQDownloadCmd struct {
	dlqFilter
	To string `help:"Folder to save the messages to, one JSON file each." aliases:"output" required:"" type:"path" placeholder:"DIR"`
}

// Validate checks the flags.
func (c *DLQDownloadCmd) Validate() error { return c.check() }

// Help is the long help.
func (*DLQDownloadCmd) Help() string {
	return `One JSON file for each message, with its body as it was sent, its attributes and its cause. 'ops dlq replay --from' sends what stands there, so bodies can be edited in between.

Examples:
  ops --stack dev dlq download --to dead
  ops --stack dev dlq download --to dead --generator maze-task-data-generator --cause crashed`
}

// Run saves every message once.
func (c *DLQDownloadCmd) Run(ctx context.Context, o *Output, q *queue.Client) error {
	if err := os.MkdirAll(c.To, 0o755); err != nil {
		return err
	}
	saved := 0
	err := c.each(ctx, q, func(d dead) error {
		text, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			return err
		}
		saved++
		return atomicfile.Write(filepath.Join(c.To, task.SafeName(d.ID)+".json"), append(text, '\n'))
	})
	if err != nil {
		return err
	}
	return o.Print(map[string]any{"messages": saved, "to": c.To}, func(w io.Writer) {
		fmt.Fprintf(w, "%s saved in %s; they are still in the DLQ\n", ui.Plural(saved, "message"), c.To)
	})
}

// DLQPurgeCmd empties the DLQ.
type DLQPurgeCmd struct {
	dlqFilter
}

// Validate checks the flags.
func (c *DLQPurgeCmd) Validate() error { return c.check() }

// Help is the long help.
func (*DLQPurgeCmd) Help() string {
	return `Without a filter, everything in the DLQ is deleted, also what another look has in flight and what somebody else has put there. With one, only what is chosen at the moment of the question.

Examples:
  ops --stack dev dlq purge --cause conflict
  ops --stack dev dlq purge --generator maze-task-data-generator --since 2h`
}

// Run deletes messages.
func (c *DLQPurgeCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client) error {
	const enough = 1000 // to look at before everything is deleted anyway
	look, ids, foreign := c.dlqFilter, map[string]bool{}, 0
	if !c.given() {
		look.Max = enough
	}
	err := look.each(ctx, q, func(d dead) error {
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
		o.Say("purged: no message in the DLQ is like that")
		return nil
	}
	if err := o.Confirm(fmt.Sprintf("Delete %s of the DLQ%s", ui.Plural(len(ids), "message"), note)); err != nil {
		return err
	}
	n, err := q.PurgeDLQOf(ctx, func(m queue.Message) bool { return ids[m.ID] })
	o.Say("purged: %s", ui.Plural(n, "message"))
	return err
}
