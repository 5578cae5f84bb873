package queue

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/journal"
)

// Journal records the steps of replays of one dead letter queue, each before the next
// one is taken, so that a replay that was killed can continue exactly. The file is not
// synced: it survives the death of the process; entries that a power failure takes are
// sent twice, with the same body.
//
// Messages are known by their ids. A task that fails again has a new id, so the journal
// says nothing about later failures.
type Journal struct {
	file    *journal.Journal
	entries map[string]*entry
	open    []Resent // by the replay that has not ended
	resumed bool
}

type entry struct {
	Resent
	sent bool
}

// Resent is what was sent for a dead message.
type Resent struct {
	First string // id of the message that the task was first
	Body  string
}

// line is one line of the file: one step.
type line struct {
	Time  time.Time `json:"time,omitzero"`
	ID    string    `json:"id,omitempty"`
	First string    `json:"first,omitempty"`
	Body  string    `json:"body,omitempty"` // with an id: what is about to be sent for it
	Sent  bool      `json:"sent,omitempty"` // with an id: the queue has confirmed it
	Not   bool      `json:"not,omitempty"`  // with an id: the queue has refused it
	End   bool      `json:"end,omitempty"`  // the replay has ended
}

// journalKeeps is how long an entry is kept: a message lives for 14 days at most, in all
// queues together.
const journalKeeps = 15 * 24 * time.Hour

// OpenJournal opens or makes a journal. Only one process can have it open.
func OpenJournal(path string) (*Journal, error) {
	file, text, err := journal.Open(path, fmt.Errorf("another replay is under way here (%s is in use)", path))
	if err != nil {
		return nil, err
	}
	j := &Journal{file: file, entries: map[string]*entry{}}
	j.read(text, time.Now())
	return j, nil
}

// read reads the journal and drops entries older than journalKeeps.
func (j *Journal) read(text []byte, now time.Time) {
	old := false
	kept := &bytes.Buffer{}
	for text := range bytes.Lines(text) {
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			continue // damaged by a power failure
		}
		if now.Sub(l.Time) > journalKeeps {
			old = true
			continue
		}
		j.apply(l)
		kept.Write(text)
	}
	if j.resumed = len(j.open) > 0; old {
		_ = j.file.Rewrite(kept.Bytes()) // if it fails, the long one is as good
	}
}

func (j *Journal) apply(l line) {
	switch e := j.entries[l.ID]; {
	case l.End:
		j.open = nil
	case l.Sent && e != nil:
		e.sent = true
		j.open = append(j.open, e.Resent)
	case l.Not:
		delete(j.entries, l.ID)
	case l.Body != "":
		j.entries[l.ID] = &entry{Resent: Resent{l.First, l.Body}}
	}
}

func (j *Journal) add(lines ...line) error {
	text := &bytes.Buffer{}
	e := json.NewEncoder(text)
	e.SetEscapeHTML(false)
	for i := range lines {
		lines[i].Time = time.Now().UTC()
		if err := e.Encode(lines[i]); err != nil {
			return err
		}
	}
	if err := j.file.Append(text.Bytes()); err != nil {
		return err
	}
	for _, l := range lines {
		j.apply(l)
	}
	return nil
}

// Resumed reports whether the last replay was interrupted and this one continues it.
func (j *Journal) Resumed() bool { return j.resumed }

// Resent returns what this replay has sent, and the interrupted one that it continues.
func (j *Journal) Resent() []Resent { return j.open }

// Intend records what is about to be sent for messages. If an earlier replay was killed
// while it sent a message, the queue may have it already: Intend sets out's body to the
// earlier one, because a duplicate must not be another task.
func (j *Journal) Intend(list []Message, out []Outgoing) error {
	var lines []line
	for i, m := range list {
		if e := j.entries[m.ID]; e != nil {
			out[i].Body = e.Body
			continue
		}
		lines = append(lines, line{ID: m.ID, First: m.FirstID(), Body: out[i].Body})
	}
	if len(lines) == 0 {
		return nil
	}
	return j.add(lines...)
}

// Confirm records that the queue has what was sent for a message.
func (j *Journal) Confirm(id string) error { return j.add(line{ID: id, Sent: true}) }

// Refuse records that the queue has refused what was sent for a message.
func (j *Journal) Refuse(id string) error { return j.add(line{ID: id, Not: true}) }

// IsSent reports whether the queue has confirmed what was sent for a message.
func (j *Journal) IsSent(id string) bool { return j.entries[id] != nil && j.entries[id].sent }

// End records that the replay has ended.
func (j *Journal) End() error {
	if len(j.open) == 0 {
		return nil
	}
	return j.add(line{End: true})
}

// Close closes the journal.
func (j *Journal) Close() error { return j.file.Close() }
