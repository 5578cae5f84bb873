// Package sqsserver is an SQS endpoint for one machine: the operations that workers, the CLI and other people's SDKs
// use, on queues that survive the death of the process. It serves the AWS JSON protocol over HTTP and the same queues
// to the process it is in.
package sqsserver

import (
	"cmp"
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/journal"
)

// Options are the parts of a queue's URL and ARN. BaseURL may be set by SetURL before the first request instead.
type Options struct {
	BaseURL   string // http://127.0.0.1:4100
	Region    string // default us-east-2
	AccountID string // default 000000000000
	Now       func() time.Time

	MaxWait time.Duration // tests: a receive waits no longer than this for a message; default 20 s, SQS's own limit

	Lag time.Duration // tests: attributes count messages as they were so long ago; SQS may be a minute behind
}

// Server holds the queues of one folder. It is safe for concurrent use.
type Server struct {
	options Options
	mu      sync.Mutex
	queues  map[string]*queue
	journal *journal.Journal
	lines   int // of the journal
	order   uint64
	stop    context.CancelFunc
	context context.Context
}

// Open reads the queues in a folder, which no other process may have open. Every acknowledged send is there, every
// acknowledged delete is gone, and receive counts are kept, however the last process ended.
func Open(dir string, o Options) (*Server, error) {
	o.Region, o.AccountID = cmp.Or(o.Region, "us-east-2"), cmp.Or(o.AccountID, "000000000000")
	o.MaxWait = cmp.Or(o.MaxWait, maxWait)
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{options: o, queues: map[string]*queue{}}
	s.context, s.stop = context.WithCancel(context.Background())
	var err error
	if s.journal, s.lines, err = openJournal(dir, s.apply); err != nil {
		return nil, err
	}
	s.compact()
	return s, nil
}

// SetURL sets the base of the queues' URLs.
func (s *Server) SetURL(base string) { s.options.BaseURL = base }

// Close ends receives that wait and closes the journal.
func (s *Server) Close() error {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal.Close()
}

func (s *Server) apply(c change) {
	if c.Define != nil {
		if q := s.queues[c.Queue]; q != nil {
			q.Queue = *c.Define
		} else {
			s.queues[c.Queue] = newQueue(*c.Define)
		}
	}
	if c.Drop {
		delete(s.queues, c.Queue)
	}
	q := s.queues[c.Queue]
	if q == nil {
		return
	}
	if c.Put != nil {
		q.put(*c.Put)
		s.order = max(s.order, c.Put.Order)
	}
	if c.Remove != "" {
		q.remove(c.Remove)
	}
}

// commit writes changes to the journal and then makes them. Empty ones are left out. The lock is held.
func (s *Server) commit(changes ...change) error {
	changes = slices.DeleteFunc(changes, func(c change) bool { return c == change{} })
	if len(changes) == 0 {
		return nil
	}
	lines, err := encode(changes...)
	if err == nil {
		err = s.journal.Append(lines)
	}
	if err != nil {
		return err
	}
	s.lines += len(changes)
	for _, c := range changes {
		s.apply(c)
		if q := s.queues[c.Queue]; q != nil && s.options.Lag > 0 {
			q.seen = append(q.seen, q.counts(s.now()))
		}
		if q := s.queues[c.Queue]; q != nil && c.Put != nil {
			q.wake()
		}
	}
	s.compact()
	return nil
}

// CreateQueue makes a queue, or gives an existing one these properties. That keeps its tags, and what is zero here.
func (s *Server) CreateQueue(q Queue) (url string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	existing := s.queues[q.Name]
	if existing != nil {
		q.Wait, q.MaxSize = cmp.Or(q.Wait, existing.Wait), cmp.Or(q.MaxSize, existing.MaxSize)
		q.Tags, q.Created, q.Modified = existing.Tags, existing.Created, existing.Modified
	}
	return s.url(q.Name), s.define(newQueue(q).Queue)
}

// define makes a queue or changes one, if there is anything to change. The lock is held.
func (s *Server) define(q Queue) error {
	existing := s.queues[q.Name]
	switch {
	case existing == nil:
		q.Created, q.Modified = s.now(), s.now()
	case !q.sameAttributes(existing.Queue):
		q.Modified = s.now()
	case maps.Equal(q.Tags, existing.Tags):
		return nil
	}
	return s.commit(change{Queue: q.Name, Define: &q})
}

func (s *Server) url(name string) string {
	return s.options.BaseURL + "/" + s.options.AccountID + "/" + name
}

func (s *Server) arn(name string) string {
	return "arn:aws:sqs:" + s.options.Region + ":" + s.options.AccountID + ":" + name
}

func (s *Server) now() time.Time { return s.options.Now().Truncate(time.Millisecond) }

// Delivery is one receive of a message, as an event source mapping sees it.
type Delivery struct {
	events.SQSMessage
	Receives int
	Own      bool // received by this process, not by a client
}

// Receive waits for a message of a queue and receives it for this process's own workers.
func (s *Server) Receive(ctx context.Context, name string) (*Delivery, error) {
	list, err := s.receive(ctx, name, receipt{limit: 1, own: true})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, ctx.Err()
	}
	d := s.delivery(list[0])
	d.EventSource, d.EventSourceARN, d.AWSRegion = "aws:sqs", s.arn(name), s.options.Region
	return d, nil
}

func (s *Server) delivery(m message) *Delivery {
	d := &Delivery{Receives: m.Receives, Own: m.Own, SQSMessage: events.SQSMessage{
		MessageId: m.ID, ReceiptHandle: m.Handle, Body: m.Body, Md5OfBody: md5Hex([]byte(m.Body)),
		Attributes: s.systemAttributes(m), MessageAttributes: map[string]events.SQSMessageAttribute{}}}
	for name, a := range m.Attributes {
		d.MessageAttributes[name] = events.SQSMessageAttribute{StringValue: a.StringValue, BinaryValue: a.BinaryValue,
			DataType: a.DataType}
	}
	return d
}

func (s *Server) systemAttributes(m message) map[string]string {
	all := map[string]string{
		"SenderId":                         s.options.AccountID,
		"SentTimestamp":                    strconv.FormatInt(m.Sent.UnixMilli(), 10),
		"ApproximateReceiveCount":          strconv.Itoa(m.Receives),
		"ApproximateFirstReceiveTimestamp": strconv.FormatInt(m.First.UnixMilli(), 10),
		"DeadLetterQueueSourceArn":         m.Source, "MessageGroupId": m.Group, traceAttribute: m.Trace,
	}
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	return all
}

type receipt struct {
	limit      int            // messages at most
	visibility *time.Duration // nil is the queue's
	own        bool           // by this process
}

// receive takes messages, waiting for the first until ctx ends.
func (s *Server) receive(ctx context.Context, name string, r receipt) ([]message, error) {
	for {
		s.mu.Lock()
		q := s.queues[name]
		if q == nil {
			s.mu.Unlock()
			return nil, errNoQueue
		}
		taken, due, err := s.take(q, r)
		changed := q.changed
		s.mu.Unlock()
		if err != nil || len(taken) > 0 {
			return taken, err
		}
		var timer <-chan time.Time
		if !due.IsZero() {
			timer = time.After(due.Sub(s.now()) + time.Millisecond)
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-s.context.Done():
			return nil, nil
		case <-changed:
		case <-timer:
		}
	}
}

// take receives what is visible. Messages that were received too often go to the
// dead letter queue, those past their retention are dropped.
func (s *Server) take(q *queue, r receipt) (taken []message, due time.Time, err error) {
	now := s.now()
	hide := q.Visibility
	if r.visibility != nil {
		hide = *r.visibility
	}
	var changes []change
	var popped []*message // so that a visibility of zero does not show one twice
	for len(taken) < r.limit {
		m, next := q.next(now)
		if m == nil {
			due = next
			break
		}
		popped = append(popped, m)
		q.pop(m)
		c, out := s.step(q, *m, now, hide, r.own)
		changes = append(changes, c...)
		if out != nil {
			taken = append(taken, *out)
		}
	}
	for _, m := range popped {
		q.push(m)
	}
	if err := s.commit(changes...); err != nil {
		return nil, time.Time{}, err
	}
	return taken, due, nil
}

// step decides what a receive does to one visible message.
func (s *Server) step(q *queue, m message, now time.Time, hide time.Duration, own bool) ([]change, *message) {
	if now.Sub(m.Sent) > q.Retention {
		return []change{{Queue: q.Name, Remove: m.ID}}, nil
	}
	if dead := s.queues[q.DeadLetter]; dead != nil && q.MaxReceives > 0 && m.Receives >= q.MaxReceives {
		m.Source, m.Handle, m.Visible = s.arn(q.Name), "", now
		return []change{{Queue: dead.Name, Put: &m}, {Queue: q.Name, Remove: m.ID}}, nil
	}
	m.Receives++
	if m.First.IsZero() {
		m.First = now
	}
	m.Handle = q.Name + "." + m.ID + "." + rand.Text()
	m.Visible, m.Own = now.Add(hide), own
	return []change{{Queue: q.Name, Put: &m}}, &m
}

// Delete deletes a received message. A handle that is not the last one deletes
// nothing and is no error: SQS asks for the most recent handle.
func (s *Server) Delete(name, handle string) error {
	return s.settle(name, handle, func(m message) change { return change{Queue: name, Remove: m.ID} })
}

// Return gives a delivery back at once. If it does not count, the receive is taken back: the message was not at fault.
func (s *Server) Return(name, handle string, counts bool) error {
	return s.settle(name, handle, func(m message) change {
		m.Handle, m.Visible = "", s.now()
		if !counts {
			m.Receives--
		}
		return change{Queue: name, Put: &m}
	})
}

// settle makes a change of the message that has a handle, if there still is one.
func (s *Server) settle(name, handle string, end func(message) change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[name]
	if q == nil {
		return errNoQueue
	}
	if m := q.byHandle[handle]; m != nil {
		return s.commit(end(*m))
	}
	return nil
}

// InFlight returns the deliveries of a queue that are in flight: at the start of a process, those its predecessor had.
func (s *Server) InFlight(name string) []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Delivery
	if q := s.queues[name]; q != nil {
		for _, m := range q.byHandle {
			if m.inFlight(s.now()) {
				list = append(list, *s.delivery(*m))
			}
		}
	}
	return list
}

// Counts returns how many messages of a queue can be received, are in flight, and are delayed.
func (s *Server) Counts(name string) (visible, inFlight, delayed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.queues[name]; q != nil {
		c := q.counts(s.now())
		return c.visible, c.inFlight, c.delayed
	}
	return 0, 0, 0
}

// NewID returns a random id of the form that SQS and Lambda use.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func md5Hex(b []byte) string {
	sum := md5.Sum(b) // the protocol's own check, no secret
	return hex.EncodeToString(sum[:])
}
