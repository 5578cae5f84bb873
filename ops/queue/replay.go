package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/journal"
)

// Replay configures how dead messages are sent to the task queue again.
type Replay struct {
	Journal *Journal
	Rate    float64 // messages per second; 0 is no limit

	// Change returns what to send for a message, or nil to leave it in the DLQ. ErrEnough
	// ends the replay before this message.
	Change  func(Message) (*Outgoing, error)
	Before  func([]Outgoing) error     // called before each request; may be nil
	Sent    func(n int)                // called with the number of messages of each request; may be nil
	Refused func(m Message, why error) // called if the queue refused what Change returned for m
}

// Replay takes messages out of the dead letter queue, ten at a time: what is to be sent is written to the journal,
// sent, noted as confirmed, and only then the message is deleted. So an interruption at any point loses nothing, and
// the next replay with the same journal sends each message exactly once, with one exception: SQS does not tell whether
// it executed a request that got no answer, so what was being sent at the moment of a kill (ten messages at most) is
// sent again, byte for byte. Ctrl-C waits for the answer.
func (c *Client) Replay(ctx context.Context, r Replay) error {
	b := c.batches(r)
	err := c.visit(ctx, c.dlq, b.size, 0, func(fresh []Message) ([]string, error) {
		done, err := b.send(ctx, fresh)
		deleted, e := c.deleteDead(ctx, done)
		if e != nil {
			e = fmt.Errorf("what was sent again is still in the DLQ, and the next replay deletes it: %w", e)
		}
		return deleted, join(err, e)
	})
	if err := enough(err); err != nil {
		return err
	}
	return r.Journal.End()
}

// ReplaySaved does the same with messages that were downloaded from the dead letter
// queue before. done is called for each that the queue has confirmed.
func (c *Client) ReplaySaved(ctx context.Context, r Replay, saved []Message, done func(Message) error) error {
	b := c.batches(r)
	for part := range slices.Chunk(saved, b.size) {
		sent, err := b.send(ctx, part)
		for _, m := range sent {
			err = join(err, done(m))
		}
		if errors.Is(err, ErrEnough) {
			break
		}
		if err != nil {
			return err
		}
	}
	return r.Journal.End()
}

// join is errors.Join, but returns a single error as it is.
func join(a, b error) error {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case errors.Is(a, ErrEnough):
		return b
	}
	return errors.Join(a, b)
}

// batches sends the messages of a replay in requests, no faster than its rate.
type batches struct {
	Replay
	client *Client
	size   int
	limit  *rate.Limiter
}

func (c *Client) batches(r Replay) *batches {
	b := &batches{Replay: r, client: c, size: batchSize}
	if r.Rate > 0 {
		b.size = min(max(int(r.Rate), 1), b.size)
		b.limit = rate.NewLimiter(rate.Limit(r.Rate), b.size)
	}
	return b
}

// maxRequest is the limit for bodies and attributes of a request, in bytes. SQS takes
// 1 MiB; some endpoints still have its older limit of 256 KiB.
const maxRequest = 200 << 10

// send sends what Change returns for messages, and returns those of them that the queue
// has confirmed, now or in an interrupted replay.
func (b *batches) send(ctx context.Context, list []Message) (done []Message, err error) {
	var todo []Message
	var out []Outgoing
	size := 0
	flush := func() error {
		sent, err := b.request(ctx, todo, out)
		done, todo, out, size = append(done, sent...), nil, nil, 0
		return err
	}
	for _, m := range list {
		if b.Journal.IsSent(m.ID) {
			done = append(done, m)
			continue
		}
		o, err := b.Change(m)
		if err != nil {
			err = join(err, flush())
			return done, err
		}
		if o == nil {
			continue
		}
		length := len(o.Body)
		for name, a := range o.Attributes {
			length += len(name) + len(a.Type) + len(a.Text) + len(a.Binary)
		}
		if size+length > maxRequest {
			if err := flush(); err != nil {
				return done, err
			}
		}
		todo, out, size = append(todo, m), append(out, *o), size+length
	}
	err = flush()
	return done, err
}

func (b *batches) request(ctx context.Context, list []Message, out []Outgoing) (sent []Message, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	if b.limit != nil {
		if err := b.limit.WaitN(ctx, len(list)); err != nil {
			return nil, err
		}
	}
	if err := b.Journal.Intend(list, out); err != nil {
		return nil, err
	}
	if b.Before != nil {
		if err := b.Before(out); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	places := make([]int, len(list))
	for i, m := range list {
		places[i], out[i].name = i, "the task of message "+m.ID
	}
	for len(places) > 0 {
		err := b.client.sendBatch(ctx, out, slices.Clone(places), func(place int) error {
			sent = append(sent, list[place])
			places = slices.DeleteFunc(places, func(p int) bool { return p == place })
			return b.Journal.Confirm(list[place].ID)
		})
		bad, refused := errors.AsType[*refusedError](err)
		if err != nil && !refused {
			return sent, err
		}
		if refused {
			m := list[bad.place]
			places = slices.DeleteFunc(places, func(p int) bool { return p == bad.place })
			b.Refused(m, bad)
			if err := b.Journal.Refuse(m.ID); err != nil {
				return sent, err
			}
		}
	}
	if b.Sent != nil {
		b.Sent(len(sent))
	}
	return sent, nil
}

// Journal records the steps of replays of one dead letter queue, each before the next one is taken, so that a replay
// that was killed can continue exactly. The file is not synced: it survives the death of the process; entries that a
// power failure takes are sent twice, with the same body.
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

// journalKeeps is how long an entry is kept: a message lives for 14 days at most, in all queues together.
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

// Intend records what is about to be sent for messages. If an earlier replay was killed while it sent a message, the
// queue may have it already: Intend sets out's body to the earlier one, because a duplicate must not be another task.
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
