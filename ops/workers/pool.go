// Package workers runs worker processes on this machine. It serves each of them the
// Lambda runtime API, from which they get one message at a time, so a worker cannot
// tell it from AWS: the local stack and ops worker differ in the queue alone.
package workers

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

// Queue is where the messages come from.
type Queue interface {
	// Receive waits for a message until ctx ends. It may return one after that.
	Receive(ctx context.Context) (*events.SQSMessage, error)
	// Keep keeps a message hidden until ctx ends.
	Keep(ctx context.Context, m *events.SQSMessage)
	// Delete deletes a message that is done with.
	Delete(m *events.SQSMessage) error
	// Return is called for a message whose worker is dead and gave no answer.
	Return(m *events.SQSMessage, requestID string, end End)
}

// End is why a worker gave no answer.
type End int

// The ends.
const (
	NotBegun End = iota // the message did not reach the worker
	Stopped             // the pool stopped it
	Died                // it died, or its time was up
)

// Config configures a pool.
type Config struct {
	Workers     int
	Timeout     time.Duration // of one invocation; then the worker is killed
	FunctionARN string
	Queue       Queue
	Start       func(number int, runtimeAPI string) (*Process, error)
	Say         func(format string, args ...any)
	Fail        func(error)             // called for a worker that cannot be started, which is not tried again
	Logs        func(number int) string // where a worker's stderr is, for that error

	// Grace is how long a worker may take to hand its message back when Run's context
	// ends, before it is killed. With 0 it is killed at once.
	Grace  time.Duration
	Behind func(number int) time.Duration // for tests: how far a worker's clock is behind; may be nil
}

// Pool runs worker processes.
type Pool struct {
	config Config
	ready  atomic.Int32

	mu   sync.Mutex
	busy int       // workers that have a message
	last time.Time // when that changed, or a worker became ready
}

// New returns a pool. Run runs it.
func New(c Config) *Pool { return &Pool{config: c, last: time.Now()} }

// Ready is how many workers have asked for work.
func (p *Pool) Ready() int { return int(p.ready.Load()) }

// Idle is how long the workers have waited for a message; 0 while one has one, or while none is ready.
func (p *Pool) Idle() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy > 0 || p.Ready() == 0 {
		return 0
	}
	return time.Since(p.last)
}

func (p *Pool) working(change int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy += change
	p.last = time.Now()
}

// Run runs the workers and returns when all have ended: when ctx ends, or as soon as
// each has done what it has after receiving ends. Nothing is received after that.
func (p *Pool) Run(ctx, receiving context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	receiving, stop := context.WithCancel(receiving)
	defer context.AfterFunc(ctx, stop)()
	serving, closeAll := context.WithCancel(context.WithoutCancel(ctx))
	defer closeAll()
	var loops sync.WaitGroup
	for n := range p.config.Workers {
		w, err := newInstance(serving, &group, p, n)
		if err != nil {
			cancel()
			loops.Wait()
			return err
		}
		loops.Go(func() { w.loop(ctx, receiving) })
	}
	loops.Wait()
	return nil
}

// maxFailedStarts is how often in a row a worker may exit before it asks for work; then the pool fails.
const maxFailedStarts = 5

// loop keeps a worker process running and gives it one message at a time, until receiving ends.
func (w *instance) loop(ctx, receiving context.Context) {
	for failedStarts := 0; receiving.Err() == nil; failedStarts++ {
		if failedStarts == maxFailedStarts {
			w.pool.config.Fail(fmt.Errorf("worker %d ends as soon as it is started: see %s", w.number,
				w.pool.config.Logs(w.number)))
			return
		}
		p, err := w.pool.config.Start(w.number, w.address)
		if err == nil {
			err = p.start()
		}
		if err != nil {
			w.pool.config.Fail(fmt.Errorf("start worker %d: %w", w.number, err))
			return
		}
		for w.serveOne(ctx, receiving, p) {
		}
		if p.asked { // it can start, whatever ended it later
			failedStarts = -1
			w.pool.ready.Add(-1)
		}
		p.end()
	}
}

// serveOne waits until the process is idle and gives it a message. It returns when
// the message is done, and reports whether the process can take another one.
func (w *instance) serveOne(ctx, receiving context.Context, p *Process) bool {
	select {
	case <-w.idle:
		if !p.asked {
			p.asked = true
			w.pool.ready.Add(1)
			w.pool.working(0)
			if p.Asked != nil {
				p.Asked(time.Since(p.began))
			}
		}
	case <-p.done:
		return false
	case <-receiving.Done():
		return false
	}
	m, err := w.receive(receiving, p)
	if m == nil {
		if err != nil && receiving.Err() == nil { // a full disk: it may have room later
			w.pool.config.Say("receive a task: %v", err)
			select {
			case <-receiving.Done():
			case <-time.After(time.Second):
			}
		}
		return false
	}
	if receiving.Err() != nil {
		w.pool.config.Queue.Return(m, "", NotBegun)
		return false
	}
	w.pool.working(1)
	defer w.pool.working(-1)
	return w.invoke(ctx, p, m)
}

// receive receives a message, unless the process ends before there is one.
func (w *instance) receive(ctx context.Context, p *Process) (*events.SQSMessage, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	m, err := w.pool.config.Queue.Receive(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	return m, err
}

// invoke gives the process a message and waits for the answer. It reports whether the process can take another one.
func (w *instance) invoke(ctx context.Context, p *Process, m *events.SQSMessage) bool {
	c := &w.pool.config
	inv := &invocation{id: RequestID(m.ReceiptHandle), deadline: time.Now().Add(c.Timeout), answer: make(chan answer, 1)}
	var err error
	if inv.payload, err = json.Marshal(events.SQSEvent{Records: []events.SQSMessage{*m}}); err != nil {
		w.pool.config.Fail(err)
		return false
	}
	kept, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	go c.Queue.Keep(kept, m)
	w.mu.Lock()
	w.current = inv
	w.mu.Unlock()
	select {
	case w.next <- inv:
	case <-p.done:
		c.Queue.Return(m, inv.id, NotBegun)
		return false
	case <-ctx.Done():
		c.Queue.Return(m, inv.id, NotBegun)
		return false
	}
	timeout := time.NewTimer(c.Timeout)
	defer timeout.Stop()
	stopped := ctx.Done()
	var killed <-chan time.Time // when it has not handed its message back in time
	for {
		select {
		case a := <-inv.answer:
			w.acknowledge(m, a)
			return stopped != nil
		case <-p.done:
			select {
			case a := <-inv.answer: // it answered before it ended
				w.acknowledge(m, a)
			default:
				c.Say("worker %d was killed: its task is delivered again", w.number)
				c.Queue.Return(m, inv.id, Died)
			}
			return false
		case <-timeout.C:
			p.end()
			c.Say("worker %d was still at work after %s and was killed: its task is delivered again", w.number, c.Timeout)
			c.Queue.Return(m, inv.id, Died)
			return false
		case <-stopped:
			stopped = nil
			release() // the worker may show its message to others
			if c.Grace > 0 {
				p.stop()
			}
			killed = time.After(c.Grace)
		case <-killed:
			p.end()
			c.Queue.Return(m, inv.id, Stopped)
			return false
		}
	}
}

// RequestID returns the id of the invocation for a delivery, of the form that Lambda's ids have. It follows from the
// receipt handle: who knows a delivery of the past also knows which holds on cells are its.
func RequestID(receiptHandle string) string {
	b := sha256.Sum256([]byte(receiptHandle))
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// acknowledge treats a message as Lambda's event source mapping does: one that succeeded is deleted, one that failed is
// delivered again after its visibility timeout, which the worker may have changed.
func (w *instance) acknowledge(m *events.SQSMessage, a answer) {
	var response events.SQSEventResponse
	if a.failed || json.Unmarshal(a.body, &response) != nil {
		return
	}
	for _, f := range response.BatchItemFailures {
		if f.ItemIdentifier == m.MessageId || f.ItemIdentifier == "" {
			return
		}
	}
	if err := w.pool.config.Queue.Delete(m); err != nil {
		w.pool.config.Say("delete a finished task: %v (it is delivered again and found done)", err)
	}
}
