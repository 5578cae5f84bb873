package sqsserver

import (
	"cmp"
	"container/heap"
	"reflect"
	"time"
)

type message struct {
	ID         string               `json:"id"`
	Body       string               `json:"body"`
	Attributes map[string]Attribute `json:"attributes,omitempty"` // the sender's
	Sent       time.Time            `json:"sent"`
	First      time.Time            `json:"first,omitzero"` // received first
	Receives   int                  `json:"receives,omitempty"`
	Source     string               `json:"source,omitempty"` // ARN of the queue it was redriven from
	Visible    time.Time            `json:"visible"`          // from when on it can be received
	Handle     string               `json:"handle,omitempty"` // of the last receive, if that is in flight
	Own        bool                 `json:"own,omitempty"`    // the last receive was by this process
	Order      uint64               `json:"order"`            // of sending
	Group      string               `json:"group,omitempty"`  // MessageGroupId: see next
	Trace      string               `json:"trace,omitempty"`  // AWSTraceHeader

	place int // in the heap
}

func (m *message) inFlight(now time.Time) bool { return m.Handle != "" && m.Visible.After(now) }

// Attribute is a message attribute as the protocol has it.
type Attribute struct {
	DataType    string  `json:"DataType"`
	StringValue *string `json:"StringValue,omitempty"`
	BinaryValue []byte  `json:"BinaryValue,omitempty"`
}

// Queue says what a queue is like. Zero values are SQS's defaults.
type Queue struct {
	Name        string        `json:"name"`
	Visibility  time.Duration `json:"visibility"`  // default 30 s
	Retention   time.Duration `json:"retention"`   // default 4 days
	Delay       time.Duration `json:"delay"`       // default none
	DeadLetter  string        `json:"dead_letter"` // name of the queue that failed messages go to
	MaxReceives int           `json:"max_receives"`
	Wait        time.Duration `json:"wait,omitempty"`     // of a receive that names none; default none
	MaxSize     int           `json:"max_size,omitempty"` // bytes of a message; default maxMessage

	Tags              map[string]string `json:"tags,omitempty"`
	Created, Modified time.Time         `json:",omitzero"` // Modified: its attributes, last
}

// sameAttributes reports whether two queues differ in nothing that a client sets.
func (q Queue) sameAttributes(other Queue) bool {
	q.Tags, q.Created, q.Modified = other.Tags, other.Created, other.Modified
	return reflect.DeepEqual(q, other)
}

// queue is the state of one queue: every message, in its group.
type queue struct {
	Queue
	messages map[string]*message
	byHandle map[string]*message
	groups   map[string]*group // by MessageGroupId, which may be ""; none is empty
	turns    uint64            // how often a group was served
	changed  chan struct{}     // closed and replaced when a message may have become visible
	purged   time.Time
	seen     []counted // what the counts were, for a server whose counts lag
}

// group is the messages of a group, ordered by the moment from which each can be received.
type group struct {
	ready  readyHeap
	served uint64 // the last turn of the group
}

type counted struct {
	at                         time.Time
	visible, inFlight, delayed int
}

func newQueue(q Queue) *queue {
	q.Visibility, q.Retention = cmp.Or(q.Visibility, 30*time.Second), cmp.Or(q.Retention, 4*24*time.Hour)
	q.MaxSize = cmp.Or(q.MaxSize, maxMessage)
	return &queue{Queue: q, messages: map[string]*message{}, byHandle: map[string]*message{},
		groups: map[string]*group{}, changed: make(chan struct{})}
}

// put adds a message, or takes over a new state of it.
func (q *queue) put(m message) {
	old := q.messages[m.ID]
	if old == nil {
		old = &m
		q.messages[m.ID] = old
		if q.groups[m.Group] == nil {
			q.groups[m.Group] = &group{}
		}
		q.push(old)
	} else {
		delete(q.byHandle, old.Handle)
		m.place = old.place
		*old = m
		heap.Fix(&q.groups[m.Group].ready, old.place)
	}
	if m.Handle != "" {
		q.byHandle[m.Handle] = old
	}
}

func (q *queue) remove(id string) {
	m := q.messages[id]
	if m == nil {
		return
	}
	delete(q.messages, id)
	delete(q.byHandle, m.Handle)
	if q.pop(m); len(q.groups[m.Group].ready) == 0 {
		delete(q.groups, m.Group)
	}
}

func (q *queue) push(m *message) { heap.Push(&q.groups[m.Group].ready, m) }
func (q *queue) pop(m *message)  { heap.Remove(&q.groups[m.Group].ready, m.place) }

func (q *queue) wake() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// next returns the message that can be received now, or nil and when the first one can
// (zero if there is none). It is of the group that has the fewest in flight, and of several
// the one that was served longest ago, so that a group with many holds up no other.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
func (q *queue) next(now time.Time) (m *message, due time.Time) {
	var best *group
	busy := q.busy(now)
	for _, g := range q.groups {
		if len(g.ready) == 0 { // all of it is being taken
			continue
		}
		first := g.ready[0]
		switch {
		case first.Visible.After(now):
			if due.IsZero() || first.Visible.Before(due) {
				due = first.Visible
			}
		case best == nil || cmp.Or(cmp.Compare(busy[first.Group], busy[m.Group]), cmp.Compare(g.served, best.served),
			first.Visible.Compare(m.Visible), cmp.Compare(first.Order, m.Order)) < 0:
			best, m = g, first
		}
	}
	if m == nil {
		return nil, due
	}
	q.turns++
	best.served = q.turns
	return m, time.Time{}
}

// busy counts the messages in flight of each group, if there are several.
func (q *queue) busy(now time.Time) map[string]int {
	if len(q.groups) < 2 {
		return nil
	}
	count := map[string]int{}
	for _, m := range q.byHandle {
		if m.inFlight(now) {
			count[m.Group]++
		}
	}
	return count
}

func (q *queue) counts(now time.Time) counted {
	c := counted{at: now}
	for _, m := range q.messages {
		switch {
		case !m.Visible.After(now):
			c.visible++
		case m.Handle != "":
			c.inFlight++
		default:
			c.delayed++
		}
	}
	return c
}

// countsBefore returns the counts as they were lag ago: zeros if nobody counted then.
func (q *queue) countsBefore(now time.Time, lag time.Duration) counted {
	q.seen = append(q.seen, q.counts(now))
	for len(q.seen) > 1 && !q.seen[1].at.After(now.Add(-lag)) {
		q.seen = q.seen[1:]
	}
	if first := q.seen[0]; !first.at.After(now.Add(-lag)) {
		return first
	}
	return counted{}
}

// readyHeap orders messages by visibility, then by sending.
type readyHeap []*message

func (h readyHeap) Len() int { return len(h) }
func (h readyHeap) Less(i, j int) bool {
	if c := h[i].Visible.Compare(h[j].Visible); c != 0 {
		return c < 0
	}
	return h[i].Order < h[j].Order
}
func (h readyHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}
func (h *readyHeap) Push(x any) {
	m := x.(*message) //nolint:forcetypeassert // only put pushes
	m.place = len(*h)
	*h = append(*h, m)
}
func (h *readyHeap) Pop() any {
	last := len(*h) - 1
	m := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return m
}
