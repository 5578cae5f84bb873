package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// DLQReplayCmd sends dead tasks again.
type DLQReplayCmd struct {
	dlqFilter
	From      string  `help:"Send the messages that were saved in this folder instead. Each file is renamed to .sent when its message is sent; the DLQ is not touched." type:"existingdir" placeholder:"DIR"`
	Rate      float64 `help:"Messages a second, at most." placeholder:"N"`
	Chunk     int     `help:"Have the tasks made with so many samples per generator process: a divisor of their chunk size. For what took too long or too much." placeholder:"N"`
	KeepSeed  bool    `help:"Send every task with the seeds it failed with." xor:"seeds"`
	FreshSeed bool    `help:"Give every task fresh seeds, also where these were not to blame: for a generator that hangs on some." xor:"seeds"`
	DryRun    bool    `help:"Show what would be sent."`
}

// Help is the long help.
func (*DLQReplayCmd) Help() string {
	return `A task whose generator failed on its seeds gets fresh ones: one of a run starts three attempts further on, so that the dataset stays a function of the run's seed; one without a run gets a new seed, always the same for the same message. What died of something else (no time, no memory, the bucket, the environment) is sent with the seeds it had, so that it becomes what it would have been.

With --chunk, the chunks of a task are made in parts of that size. The run, its chunk grid and what is committed beside it stay as they are; the run's object in the bucket says what was made in parts, and so do the receipts.

Each message is deleted from the DLQ only after the queue has confirmed the new one, and every step is kept in a journal: after Ctrl-C or a crash, the same command goes on, and sends each task once. What the queue may or may not have taken in the moment of a crash is sent again byte by byte, and workers absorb it. A task that fails again meanwhile waits for the next replay. Messages that are no tasks stay in the DLQ.

Examples:
  ops --stack dev dlq replay --dry-run
  ops --stack dev dlq replay --cause crashed --generator maze-task-data-generator --max 1
  ops --stack dev dlq replay --cause timed_out --chunk 5 --rate 2
  ops --stack dev dlq replay --from saved --keep-seed`
}

// Validate checks the flags.
func (c *DLQReplayCmd) Validate() error {
	switch {
	case c.Rate < 0 || c.Rate > 0 && c.Rate < 0.001:
		return ui.Usage("--rate is %g, it must be at least 0.001 messages a second", c.Rate)
	case c.Chunk < 0 || c.Chunk > task.MaxSamples:
		return ui.Usage("--chunk is %d, it must be from 1 to %d", c.Chunk, task.MaxSamples)
	}
	return c.check()
}

// Replayed is the summary of a replay.
type Replayed struct {
	Sent   int `json:"sent"`
	Before int `json:"sent_before,omitempty"` // by the interrupted replay of which this is the rest
	Left   int `json:"left"`                  // chosen, but where they are: they are no tasks, or cannot be sent so
	// chosen, but left for the next replay: sent by this one and dead again
	Again   int      `json:"failed_again"`
	Hidden  int      `json:"hidden"` // in the DLQ, but another look has them for up to two minutes
	DryRun  bool     `json:"dry_run,omitempty"`
	Bodies  []string `json:"bodies,omitempty"`
	Journal string   `json:"journal,omitempty"`
}

// replay is a replay under way.
type replay struct {
	*DLQReplayCmd
	Replayed
	ctx    context.Context
	out    *Output
	store  *store.Store
	chosen func(dead) bool
	taken  int // by --max
	total  int // about, for the progress
	again  map[string][]task.Range
	runs   map[string]error // whether a run can be told of parts
}

// Run replays.
func (c *DLQReplayCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store) error {
	everyone := c.dlqFilter
	everyone.Max = 0 // counts what is sent, and not what is looked at
	r := &replay{DLQReplayCmd: c, ctx: ctx, out: o, store: st, chosen: everyone.chooser(),
		again: map[string][]task.Range{}, runs: map[string]error{}}
	r.Replayed.DryRun = c.DryRun
	saved, err := c.saved()
	if err != nil {
		return err
	}
	if c.DryRun {
		return r.show(q, saved)
	}
	o.Changing(t)
	if c.From == "" {
		d, err := q.DLQDepth(ctx)
		if err != nil {
			return err
		}
		r.total = d.Total()
	}
	r.Journal = c.journal(o, t)
	j, err := queue.OpenJournal(r.Journal)
	if err != nil {
		return err
	}
	defer j.Close()
	if j.Resumed() {
		r.Before = len(j.Resent())
		o.Say("the last replay was interrupted after %s: this one is the rest of it", ui.Plural(r.Before, "task"))
	}
	for _, x := range j.Resent() {
		if t, err := task.Parse([]byte(x.Body), x.First); err == nil {
			r.again[x.First] = append(r.again[x.First], t.Range())
		}
	}
	plan := queue.Replay{Journal: j, Rate: c.Rate, Change: r.change, Before: r.noteParts, Refused: r.leave,
		Sent: func(n int) {
			r.Replayed.Sent += n
			o.Progress("replaying", r.Replayed.Sent, max(r.total, r.Replayed.Sent))
		}}
	if c.From != "" {
		var list []queue.Message
		for _, f := range saved {
			list = append(list, f.message)
		}
		err = q.ReplaySaved(ctx, plan, list, func(m queue.Message) error { return rename(saved, m.ID) })
	} else {
		err = q.Replay(ctx, plan)
	}
	if err != nil {
		return ui.WithHint(fmt.Errorf("%s sent again, then: %w", ui.Plural(r.Replayed.Sent, "task"), err),
			"the same command: it goes on with what is left")
	}
	if c.From != "" { // every file says by its name that it was sent
		if err := os.Remove(r.Journal); err != nil {
			return err
		}
	} else {
		if d, err := q.DLQDepth(ctx); err == nil {
			r.Hidden = d.InFlight
		}
	}
	return o.Print(r.Replayed, r.summary)
}

// journal is where the steps of replays of this DLQ, or of this folder, are kept.
func (c *DLQReplayCmd) journal(o *Output, t *target.Target) string {
	if c.From != "" {
		return filepath.Join(c.From, "replay.journal")
	}
	sum := sha256.Sum256([]byte(t.DLQURL))
	return filepath.Join(o.LocalDir, "replays", fmt.Sprintf("%s-%x.journal", task.SafeName(path.Base(t.DLQURL)), sum[:4]))
}

// show is a dry run.
func (r *replay) show(q *queue.Client, saved []savedFile) error {
	see := func(m queue.Message) error {
		out, err := r.change(m)
		if out != nil {
			r.Bodies = append(r.Bodies, out.Body)
		}
		return err
	}
	var err error
	if r.From == "" {
		err = q.EachDead(r.ctx, see)
	} else {
		for _, f := range saved {
			if err = see(f.message); err != nil {
				break
			}
		}
	}
	if err != nil && !errors.Is(err, queue.ErrEnough) {
		return err
	}
	return r.out.Print(r.Replayed, r.summary)
}

func (r *replay) summary(w io.Writer) {
	for _, body := range r.Bodies {
		fmt.Fprintln(w, body)
	}
	switch {
	case r.Replayed.DryRun:
		fmt.Fprintf(w, "%s would be sent again; nothing was sent\n", ui.Plural(len(r.Bodies), "task"))
	case r.Before > 0:
		fmt.Fprintf(w, "%s sent again, and %s by the replay that was interrupted\n", ui.Plural(r.Replayed.Sent, "task"),
			ui.Count(r.Before))
	default:
		fmt.Fprintf(w, "%s sent again\n", ui.Plural(r.Replayed.Sent, "task"))
	}
	if r.Left > 0 {
		fmt.Fprintf(w, "%s left where they are\n", ui.Plural(r.Left, "message"))
	}
	if r.Again > 0 {
		fmt.Fprintf(w, "%s failed again meanwhile: the next replay sends what is left of them\n", ui.Plural(r.Again, "task"))
	}
	if r.Hidden > 0 {
		fmt.Fprintf(w, "another look at the DLQ has about %s: they come back within two minutes, then run the same again\n",
			ui.Plural(r.Hidden, "message"))
	}
}

// leave notes that a message stays where it is.
func (r *replay) leave(m queue.Message, why error) {
	const most = 10 // of those that are named
	if r.Left++; r.Left <= most {
		r.out.Say("not sent: message %s: %v", m.ID, why)
	} else if r.Left == most+1 {
		r.out.Say("not sent: further messages; dlq list --each shows all")
	}
}

// change returns what takes the place of a message, or nil if it stays.
func (r *replay) change(m queue.Message) (*queue.Outgoing, error) {
	d := describe(m)
	if !r.chosen(d) {
		return nil, nil
	}
	if r.Max > 0 && r.taken == r.Max {
		return nil, queue.ErrEnough
	}
	if d.Task == nil {
		_, err := task.Parse([]byte(m.Body), m.ID)
		r.leave(m, err)
		return nil, nil
	}
	// A task may be back in the DLQ, whole or in parts, before the replay that sent
	// it is through.
	first := m.FirstID()
	if slices.ContainsFunc(r.again[first], func(sent task.Range) bool { return sent.Contains(d.Task.Range()) }) {
		r.Again++
		return nil, nil
	}
	t, err := r.fresh(d)
	if err != nil {
		r.leave(m, err)
		return nil, nil
	}
	r.taken++
	r.again[first] = append(r.again[first], t.Range())
	return &queue.Outgoing{Body: t.Body(), Attributes: forwarded(m)}, nil
}

// fresh is a dead task as it is sent again: with seeds that it has not tried if
// those it had were to blame, and in parts if that is wanted.
func (r *replay) fresh(d dead) (task.Task, error) {
	t := *d.Task
	switch {
	case t.Restore > 0: // it makes again what a receipt describes
	case r.KeepSeed || !r.FreshSeed && !d.Cause.Policy().NextSeed:
	case t.RunID != "":
		t.Attempt += task.SeedTries
	default:
		// As good as random, and the same for the same death: what an interrupted
		// replay has sent already is then absorbed as a double, where another seed
		// would make it a conflict.
		t.Seed = task.SeedFromID(fmt.Sprintf("replay of %s with seed %d", d.FirstID(), t.Seed))
	}
	if r.Chunk > 0 {
		if err := r.cut(&t); err != nil {
			return t, err
		}
	}
	return t, t.Validate()
}

// cut has a task made in parts of chunks.
func (r *replay) cut(t *task.Task) (err error) {
	switch {
	case t.Indices != nil:
		return errors.New("it repairs single samples, which are made in one process")
	case t.Restore > 0:
		return errors.New("it makes again what a receipt describes, as that was made")
	case t.ChunkSize == 0:
		if t.ChunkSize, err = r.store.In(t.Dataset).ChunkSize(r.ctx, t.Generator); err != nil {
			return err
		}
	}
	if t.ChunkSize%r.Chunk != 0 {
		return fmt.Errorf("--chunk %d does not divide its chunk size of %d", r.Chunk, t.ChunkSize)
	}
	if t.PartSize = r.Chunk; t.PartSize == t.ChunkSize {
		t.PartSize = 0
	}
	if t.RunID == "" {
		return nil
	}
	known := false
	if err, known = r.runs[t.RunID]; !known {
		_, err = r.store.In(t.Dataset).Run(r.ctx, t.RunID)
		if errors.Is(err, store.ErrNotFound) {
			err = fmt.Errorf("its run %s is not in the bucket, which must say what is made in parts", t.RunID)
		}
		r.runs[t.RunID] = err
	}
	return err
}

// noteParts writes down in the runs what is about to be sent in parts.
func (r *replay) noteParts(list []queue.Outgoing) error {
	type run struct {
		dataset task.Dataset
		id      string
	}
	parts := map[run][]task.RunPart{}
	for _, o := range list {
		if t, err := task.Parse([]byte(o.Body), ""); err == nil && t.PartSize > 0 && t.RunID != "" {
			of := run{t.Dataset, t.RunID}
			parts[of] = append(parts[of], task.RunPart{Generator: t.Generator, Range: t.Range(), PartSize: t.PartSize,
				Time: time.Now().UTC()})
		}
	}
	for of, list := range parts {
		err := r.store.In(of.dataset).ChangeRun(r.ctx, of.id, func(run *task.Run) (changed bool) {
			for _, p := range list {
				changed = run.Note(p) || changed
			}
			return changed
		})
		if err != nil {
			return fmt.Errorf("write down what is made in parts: %w", err)
		}
	}
	return nil
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
		kept[task.AttributeMessageID] = queue.Attribute{Type: "String", Text: m.FirstID()}
	}
	return kept
}

// savedFile is a message that dlq download has saved.
type savedFile struct {
	path    string
	message queue.Message
}

// saved reads the messages that are left in the folder.
func (c *DLQReplayCmd) saved() ([]savedFile, error) {
	if c.From == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(c.From)
	if err != nil {
		return nil, err
	}
	var list []savedFile
	found := false
	for _, e := range entries {
		file := filepath.Join(c.From, e.Name())
		found = found || strings.HasSuffix(file, ".json.sent")
		if filepath.Ext(file) != ".json" {
			continue
		}
		found = true
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var d dead
		if err := json.Unmarshal(text, &d); err != nil {
			return nil, fmt.Errorf("%s is no saved message: %w", file, err)
		}
		if d.ID == "" || d.Body == "" {
			return nil, fmt.Errorf("%s is no saved message: it has no message_id or no body", file)
		}
		list = append(list, savedFile{file, d.Message})
	}
	if !found {
		return nil, errors.New("there are no saved messages in " + c.From)
	}
	return list, nil
}

// rename marks the files of a message that was sent.
func rename(saved []savedFile, id string) error {
	for _, f := range saved {
		if f.message.ID != id {
			continue
		}
		if err := os.Rename(f.path, f.path+".sent"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
