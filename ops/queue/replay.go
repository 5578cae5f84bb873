package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/time/rate"
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

// Replay takes messages out of the dead letter queue, ten at a time: what is to be sent
// is written to the journal, sent, noted as confirmed, and only then the message is
// deleted. So an interruption at any point loses nothing, and the next replay with the
// same journal sends each message exactly once, with one exception: SQS does not tell
// whether it executed a request that got no answer, so what was being sent at the moment
// of a kill (ten messages at most) is sent again, byte for byte. Ctrl-C waits for the
// answer.
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
			return done, join(err, flush())
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
	return done, flush()
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
