package dlq

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Replay sends messages of the DLQ, or saved ones, to the queue again.
type Replay struct {
	Filter    // Max counts what is sent
	Queue     *queue.Client
	Store     *store.Store
	From      string  // folder with saved messages; "" for the DLQ
	Journal   string  // file of the steps, by which an interrupted replay continues
	Rate      float64 // messages a second, at most; 0 for no limit
	Chunk     int     // samples per generator process; 0 for what the task says
	KeepSeed  bool    // send every task with its seeds
	FreshSeed bool    // give every task new seeds
	Say       func(format string, args ...any)
	Progress  func(what string, done, total int)

	result Result
	taken  int // counted by Max
	again  map[string][]task.Range
	runs   map[string]error // why a run cannot record parts
}

// JournalPath is where the steps of replays of a DLQ, or of saved messages in a folder, are kept.
func JournalPath(localDir, dlqURL, from string) string {
	if from != "" {
		return filepath.Join(from, "replay.journal")
	}
	sum := sha256.Sum256([]byte(dlqURL))
	return filepath.Join(localDir, "replays", fmt.Sprintf("%s-%x.journal", task.SafeName(path.Base(dlqURL)), sum[:4]))
}

// Result is the summary of a replay.
type Result struct {
	Sent   int `json:"sent"`
	Before int `json:"sent_before,omitempty"` // by the interrupted replay that this one continues
	Left   int `json:"left"`                  // chosen, but left: they are no tasks, or cannot be sent so
	// chosen, but left for the next replay: this one sent them and they failed again
	Again   int      `json:"failed_again"`
	Hidden  int      `json:"hidden"` // received by another reader of the DLQ, for up to two minutes
	DryRun  bool     `json:"dry_run,omitempty"`
	Bodies  []string `json:"bodies,omitempty"`
	Journal string   `json:"journal,omitempty"`
}

// start reads the saved messages, with the files of each id.
func (r *Replay) start(dryRun bool) ([]queue.Message, map[string][]string, error) {
	r.again, r.runs = map[string][]task.Range{}, map[string]error{}
	r.result = Result{DryRun: dryRun}
	return readSaved(r.From)
}

// Do replays, or continues a replay that was interrupted.
func (r *Replay) Do(ctx context.Context) (Result, error) {
	saved, files, err := r.start(false)
	if err != nil {
		return r.result, err
	}
	total := 0
	if r.From == "" {
		d, err := r.Queue.DLQDepth(ctx)
		if err != nil {
			return r.result, err
		}
		total = d.Total()
	}
	r.result.Journal = r.Journal
	j, err := queue.OpenJournal(r.Journal)
	if err != nil {
		return r.result, err
	}
	defer j.Close()
	if j.Resumed() {
		r.result.Before = len(j.Resent())
		r.Say("the last replay was interrupted after %s: this one is the rest of it", ui.Plural(r.result.Before, "task"))
	}
	for _, x := range j.Resent() {
		if t, err := task.Parse([]byte(x.Body), x.First); err == nil {
			r.again[x.First] = append(r.again[x.First], t.Range())
		}
	}
	plan := queue.Replay{Journal: j, Rate: r.Rate, Refused: r.leave,
		Change: func(m queue.Message) (*queue.Outgoing, error) { return r.change(ctx, m) },
		Before: func(list []queue.Outgoing) error { return r.noteParts(ctx, list) },
		Sent: func(n int) {
			r.result.Sent += n
			r.Progress("replaying", r.result.Sent, max(total, r.result.Sent))
		}}
	if r.From != "" {
		err = r.Queue.ReplaySaved(ctx, plan, saved, func(m queue.Message) error { return rename(files[m.ID]) })
	} else {
		err = r.Queue.Replay(ctx, plan)
	}
	if err != nil {
		return r.result, ui.WithHint(fmt.Errorf("%s sent again, then: %w", ui.Plural(r.result.Sent, "task"), err),
			"the same command: it continues with what is left")
	}
	if r.From != "" { // the name of every file says that it was sent
		return r.result, os.Remove(r.Journal)
	}
	if d, err := r.Queue.DLQDepth(ctx); err == nil {
		r.result.Hidden = d.InFlight
	}
	return r.result, nil
}

// DryRun returns what Do would send.
func (r *Replay) DryRun(ctx context.Context) (Result, error) {
	saved, _, err := r.start(true)
	if err != nil {
		return r.result, err
	}
	see := func(m queue.Message) error {
		out, err := r.change(ctx, m)
		if out != nil {
			r.result.Bodies = append(r.result.Bodies, out.Body)
		}
		return err
	}
	if r.From == "" {
		err = r.Queue.EachDead(ctx, see)
	}
	for i := 0; i < len(saved) && err == nil; i++ {
		err = see(saved[i])
	}
	if errors.Is(err, queue.ErrEnough) {
		err = nil
	}
	return r.result, err
}

// leave counts a message that stays, and names the first ones.
func (r *Replay) leave(m queue.Message, why error) {
	const most = 10
	if r.result.Left++; r.result.Left <= most {
		r.Say("not sent: message %s: %v", m.ID, why)
	} else if r.result.Left == most+1 {
		r.Say("not sent: further messages; dlq list --each shows all")
	}
}

// change returns what takes the place of a message, or nil if it stays.
func (r *Replay) change(ctx context.Context, m queue.Message) (*queue.Outgoing, error) {
	d := Describe(m)
	if !r.allows(d) {
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
	// A task may be back in the DLQ, in one message or in parts, before the replay that sent it ends.
	first := m.FirstID()
	if slices.ContainsFunc(r.again[first], func(sent task.Range) bool { return sent.Contains(d.Task.Range()) }) {
		r.result.Again++
		return nil, nil
	}
	t, err := r.fresh(ctx, d)
	if err != nil {
		r.leave(m, err)
		return nil, nil
	}
	r.taken++
	r.again[first] = append(r.again[first], t.Range())
	return &queue.Outgoing{Body: t.Body(), Attributes: forwarded(m), Run: t.RunID}, nil
}

// fresh returns the task as it is sent again: with new seeds if its seeds were to blame, and in parts if Chunk says so.
func (r *Replay) fresh(ctx context.Context, d Message) (task.Task, error) {
	t := *d.Task
	switch {
	case t.Restore > 0: // it makes again what a receipt describes
	case r.KeepSeed || !r.FreshSeed && !d.Cause.Policy().NextSeed:
	case t.RunID != "":
		t.Attempt += task.SeedTries
	default:
		// Random enough, and the same for the same message: workers ignore what an
		// interrupted replay sends twice, and another seed would be a conflict.
		t.Seed = task.SeedFromID(fmt.Sprintf("replay of %s with seed %d", d.FirstID(), t.Seed))
	}
	if r.Chunk > 0 {
		if err := r.cut(ctx, &t); err != nil {
			return t, err
		}
	}
	return t, t.Validate()
}

// cut gives a task a part size.
func (r *Replay) cut(ctx context.Context, t *task.Task) (err error) {
	switch {
	case t.Indices != nil:
		return errors.New("it repairs single samples, which are made in one process")
	case t.Restore > 0:
		return errors.New("it makes again what a receipt describes, as that was made")
	case t.ChunkSize == 0:
		if t.ChunkSize, err = r.Store.In(t.Dataset).ChunkSize(ctx, t.Generator); err != nil {
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
		_, err = r.Store.In(t.Dataset).Run(ctx, t.RunID)
		if errors.Is(err, store.ErrNotFound) {
			err = fmt.Errorf("its run %s is not in the bucket, which must say what is made in parts", t.RunID)
		}
		r.runs[t.RunID] = err
	}
	return err
}

// noteParts records in the runs what is about to be sent in parts.
func (r *Replay) noteParts(ctx context.Context, list []queue.Outgoing) error {
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
		err := r.Store.In(of.dataset).ChangeRun(ctx, of.id, func(run *task.Run) (changed bool) {
			for _, p := range list {
				changed = run.Note(p) || changed
			}
			return changed
		})
		if err != nil {
			return fmt.Errorf("record what is made in parts: %w", err)
		}
	}
	return nil
}

// forwarded returns the attributes that stay with a task: all but those that say why it failed.
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

// readSaved reads the messages of a folder that were not sent yet, and names the files of each id; none of "".
func readSaved(dir string) (list []queue.Message, files map[string][]string, err error) {
	if dir == "" {
		return nil, nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	files = map[string][]string{}
	found := false
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		found = found || strings.HasSuffix(file, ".json.sent")
		if filepath.Ext(file) != ".json" {
			continue
		}
		found = true
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, err
		}
		var d Message
		if err := json.Unmarshal(text, &d); err != nil {
			return nil, nil, fmt.Errorf("%s is no saved message: %w", file, err)
		}
		if d.ID == "" || d.Body == "" {
			return nil, nil, fmt.Errorf("%s is no saved message: it has no message_id or no body", file)
		}
		list, files[d.ID] = append(list, d.Message), append(files[d.ID], file)
	}
	if !found {
		return nil, nil, errors.New("there are no saved messages in " + dir)
	}
	return list, files, nil
}

// rename marks the files of a message that was sent.
func rename(files []string) error {
	for _, file := range files {
		if err := os.Rename(file, file+".sent"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Save saves a message as a file of a folder, for a replay from there.
func Save(dir string, d Message) error {
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, task.SafeName(d.ID)+".json"), append(text, '\n'))
}
