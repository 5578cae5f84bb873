package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// DLQCmd looks at the dead letter queue.
type DLQCmd struct {
	Count    DLQCountCmd    `cmd:"" help:"Count the tasks in the DLQ."`
	List     DLQListCmd     `cmd:"" help:"Show the tasks in the DLQ with their causes."`
	Download DLQDownloadCmd `cmd:"" help:"Save the messages of the DLQ as files, leaving them there."`
	Replay   DLQReplayCmd   `cmd:"" help:"Send the tasks of the DLQ to the queue again."`
	Purge    DLQPurgeCmd    `cmd:"" help:"Delete every message in the DLQ."`
}

// DLQCountCmd counts the DLQ.
type DLQCountCmd struct{}

// Run counts.
func (*DLQCountCmd) Run(ctx context.Context, o *Output, q *queue.Client) error {
	d, err := q.DLQDepth(ctx)
	if err != nil {
		return err
	}
	return printDepth(o, d)
}

// dead is a message of the DLQ and what is known of it.
type dead struct {
	queue.Message
	Cause  task.Cause `json:"cause"`
	Detail string     `json:"detail,omitempty"`
	Task   *task.Task `json:"task,omitempty"` // nil if it is none
}

func describe(m queue.Message) dead {
	d := dead{Message: m, Cause: task.Cause(m.Text(task.AttributeCause)), Detail: m.Text(task.AttributeDetail)}
	t, err := task.Parse([]byte(m.Body), m.ID)
	switch {
	case err == nil:
		d.Task = &t
	case d.Cause == "":
		d.Cause, d.Detail = task.InvalidTask, err.Error()
	}
	if d.Cause == "" {
		d.Cause, d.Detail = task.Lost, task.Lost.Policy().Means
	}
	return d
}

// receives is how often workers were given the task. Of a message that SQS moved
// itself only the receives of the DLQ are known, which looks are among.
func (d dead) receives() string {
	if n := d.Text(task.AttributeReceives); n != "" {
		return n
	}
	return "?"
}

// firstID is the id by which the logs know the task: that of the message it came
// with, before a worker moved it here.
func (d dead) firstID() string { return cmp.Or(d.Text(task.AttributeMessageID), d.ID) }

// DLQListCmd shows the DLQ.
type DLQListCmd struct{}

// Run shows the DLQ.
func (*DLQListCmd) Run(ctx context.Context, o *Output, q *queue.Client) error {
	messages, err := q.DLQ(ctx, 0)
	if err != nil {
		return err
	}
	list := []dead{}
	causes := map[task.Cause]int{}
	for _, m := range messages {
		d := describe(m)
		list = append(list, d)
		causes[d.Cause]++
	}
	slices.SortFunc(list, func(a, b dead) int {
		if c := strings.Compare(string(a.Cause), string(b.Cause)); c != 0 {
			return c
		}
		return a.Sent.Compare(b.Sent)
	})
	return o.Print(list, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "the DLQ is empty")
			return
		}
		fmt.Fprintln(w, "CAUSE\tGENERATOR\tSAMPLES\tRECEIVES\tAGE\tMESSAGE\tDETAIL")
		for _, d := range list {
			generator, samples := "?", "?"
			if d.Task != nil {
				generator, samples = d.Task.Generator, fmt.Sprintf("%d-%d", d.Task.Range().Start, d.Task.Range().End-1)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.Cause, generator, samples, d.receives(), span(time.Since(d.Sent)), d.firstID(), cut(d.Detail, 120))
		}
		fmt.Fprintln(w)
		for _, c := range task.Causes() {
			if causes[c] > 0 {
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", c, causes[c], c.Policy().Means, c.Policy().Remedy)
			}
		}
	})
}

// cut shortens a text to one line of at most n characters.
func cut(s string, n int) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// DLQDownloadCmd saves the DLQ.
type DLQDownloadCmd struct {
	Output string `help:"Folder to save the messages to, one JSON file each." required:"" type:"path" placeholder:"DIR"`
}

// Run saves every message once.
func (c *DLQDownloadCmd) Run(ctx context.Context, o *Output, q *queue.Client) error {
	messages, err := q.DLQ(ctx, 0)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Output, 0o755); err != nil {
		return err
	}
	for _, m := range messages {
		text, err := json.MarshalIndent(describe(m), "", "  ")
		if err != nil {
			return err
		}
		name := filepath.Join(c.Output, task.SafeName(m.ID)+".json")
		if err := os.WriteFile(name+".part", append(text, '\n'), 0o644); err != nil {
			return err
		}
		if err := os.Rename(name+".part", name); err != nil {
			return err
		}
	}
	return o.Print(map[string]any{"messages": len(messages), "to": c.Output}, func(w io.Writer) {
		fmt.Fprintf(w, "%s saved in %s; they are still in the DLQ\n", plural(len(messages), "message"), c.Output)
	})
}

// DLQReplayCmd sends dead tasks again.
type DLQReplayCmd struct {
	From     string `help:"Send the messages that were saved in this folder instead. Each file is renamed to .sent when its message is sent; the DLQ is not touched." type:"existingdir" placeholder:"DIR"`
	DryRun   bool   `help:"Show what would be sent."`
	KeepSeed bool   `help:"Send the tasks as they are, with the seeds they failed with."`
}

// Help is the long help.
func (*DLQReplayCmd) Help() string {
	return `A task whose generator failed on its seeds gets fresh ones: one of a run starts three attempts further on, so that the dataset stays a function of the run's seed; one without a run gets a new random seed. What died of something else (no time, no memory, the bucket, the environment) is sent with the seed it had, so that it becomes what it would have been. Each message is deleted from the DLQ only after the queue has confirmed the new one. An interruption loses nothing, and what is sent twice the workers absorb. Messages that are no tasks stay in the DLQ.

Examples:
  ops --stack dev dlq replay --dry-run
  ops --stack dev dlq replay
  ops --stack dev dlq replay --from saved --keep-seed`
}

// Replayed is the summary of a replay.
type Replayed struct {
	Sent   int      `json:"sent"`
	Left   int      `json:"left"`   // where they are, because they are no tasks
	Hidden int      `json:"hidden"` // in the DLQ, but another look has them for up to two minutes
	DryRun bool     `json:"dry_run,omitempty"`
	Bodies []string `json:"bodies,omitempty"`
}

// Run replays.
func (c *DLQReplayCmd) Run(ctx context.Context, o *Output, t *Target, q *queue.Client) error {
	var r Replayed
	r.DryRun = c.DryRun
	total := 0 // about, for the progress
	if c.From == "" {
		d, err := q.DLQDepth(ctx)
		if err != nil {
			return err
		}
		total = d.Total()
	}
	again := map[string][]task.Range{} // what was sent, by first id: a task may be back in the DLQ, whole or in parts, before the replay is through
	change := func(m queue.Message) (string, map[string]queue.Attribute, bool, error) {
		t := describe(m).Task
		if t != nil && slices.ContainsFunc(again[firstID(m)], func(r task.Range) bool { return r.Contains(t.Range()) }) {
			return "", nil, false, nil
		}
		body, err := c.fresh(m)
		if err != nil {
			r.Left++
			o.Say("not sent: message %s: %v", m.ID, err)
			return "", nil, false, nil
		}
		if c.DryRun {
			r.Bodies = append(r.Bodies, body)
			return "", nil, false, nil
		}
		r.Sent++
		again[firstID(m)] = append(again[firstID(m)], t.Range())
		o.Progress("replaying", r.Sent, max(total, r.Sent))
		return body, forwarded(m), true, nil
	}
	if !c.DryRun {
		o.Changing(t)
	}
	var err error
	if c.From != "" {
		r.Sent, err = c.fromFolder(ctx, q, change)
	} else {
		r.Sent, err = q.Replay(ctx, change)
	}
	if err != nil {
		return withHint(fmt.Errorf("%s sent again, then: %w", plural(r.Sent, "task"), err), "the same command: it goes on with what is left")
	}
	if c.From == "" {
		if d, err := q.DLQDepth(ctx); err == nil {
			r.Hidden = d.InFlight
		}
	}
	return o.Print(r, func(w io.Writer) {
		for _, body := range r.Bodies {
			fmt.Fprintln(w, body)
		}
		if c.DryRun {
			fmt.Fprintf(w, "%s would be sent again; nothing was sent\n", plural(len(r.Bodies), "task"))
		} else {
			fmt.Fprintf(w, "%s sent again\n", plural(r.Sent, "task"))
		}
		if r.Hidden > 0 {
			fmt.Fprintf(w, "another look at the DLQ has about %s: they come back within two minutes, then run the same again\n", plural(r.Hidden, "message"))
		}
	})
}

// fresh is the body of a dead task, with seeds that it has not tried if those it
// had were to blame.
func (c *DLQReplayCmd) fresh(m queue.Message) (string, error) {
	t, err := task.Parse([]byte(m.Body), m.ID)
	if err != nil {
		return "", err
	}
	switch {
	case c.KeepSeed || !describe(m).Cause.Policy().NextSeed:
	case t.RunID != "":
		t.Attempt += task.SeedTries
	default:
		// As good as random, and the same for the same message: what an
		// interrupted replay has sent already is then absorbed as a double, where
		// another seed would make it a conflict.
		t.Seed = task.SeedFromID("replay of " + m.ID)
	}
	return t.Body(), t.Validate()
}

// firstID is the id of the message that a dead task was first. One that SQS moved
// by itself has not been given it as an attribute.
func firstID(m queue.Message) string {
	if id := m.Text(task.AttributeMessageID); id != "" {
		return id
	}
	return m.ID
}

// forwarded are the attributes that stay with a task: all but those that say why
// it died.
func forwarded(m queue.Message) map[string]queue.Attribute {
	kept := map[string]queue.Attribute{}
	for name, a := range m.Attributes {
		if name != task.AttributeCause && name != task.AttributeDetail && name != task.AttributeReport {
			kept[name] = a
		}
	}
	if len(kept) < queue.MaxAttributes {
		kept[task.AttributeMessageID] = queue.Attribute{Type: "String", Text: firstID(m)}
	}
	return kept
}

func (c *DLQReplayCmd) fromFolder(ctx context.Context, q *queue.Client, change func(queue.Message) (string, map[string]queue.Attribute, bool, error)) (sent int, err error) {
	entries, err := os.ReadDir(c.From)
	if err != nil {
		return 0, err
	}
	saved := 0
	for _, e := range entries {
		file := filepath.Join(c.From, e.Name())
		switch filepath.Ext(file) {
		case ".sent":
			saved++
			continue
		case ".json":
			saved++
		default:
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return sent, err
		}
		var m dead
		if err := json.Unmarshal(text, &m); err != nil {
			return sent, fmt.Errorf("%s is no saved message: %w", file, err)
		}
		body, attributes, send, err := change(m.Message)
		if err != nil {
			return sent, err
		}
		if !send {
			continue
		}
		if err := q.SendMessage(ctx, body, attributes); err != nil {
			return sent, err
		}
		sent++
		if err := os.Rename(file, file+".sent"); err != nil {
			return sent, err
		}
	}
	if saved == 0 {
		return 0, errors.New("there are no saved messages in " + c.From)
	}
	return sent, nil
}

// DLQPurgeCmd empties the DLQ.
type DLQPurgeCmd struct{}

// Run empties the DLQ.
func (*DLQPurgeCmd) Run(ctx context.Context, o *Output, t *Target, q *queue.Client) error {
	d, err := q.DLQDepth(ctx)
	if err != nil {
		return err
	}
	return purge(o, t, "DLQ", d, func() error { return q.PurgeDLQ(ctx) })
}
