// Package worker computes tasks: it takes one from SQS or from a direct
// invocation, runs the generator chunk by chunk and commits each chunk to the
// bucket with a receipt.
//
// A task is acknowledged only when everything it asked for is committed, handed
// on as a new message, or reported as a failure.
package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"golang.org/x/sync/semaphore"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Handler computes tasks. It is safe for concurrent use, though Lambda gives a
// worker one invocation at a time.
type Handler struct {
	config   Config
	store    *store.Store
	messages *messages
	log      *slog.Logger
	metrics  *metrics
	scratch  *scratch
	limits   Limits
	guard    *generator.Guard
	seen     *seen
	datasets *datasets

	retryDelays float64 // factor on the waits before a retry
	capacity    int64   // oneCPU for each CPU
	// of that size; what generators hold says weight
	slots *semaphore.Weighted
	// generator.Run, but in tests of the protocol
	generator func(context.Context, generator.Request) (generator.Result, error)
}

// Summary is the answer to a direct invocation, and what is logged of a task.
type Summary struct {
	Generator string       `json:"generator"`
	Samples   int          `json:"samples"`   // committed by this invocation
	Committed []string     `json:"committed"` // keys of the cells
	Skipped   int          `json:"skipped"`   // samples that were committed before
	Remaining []task.Range `json:"remaining,omitempty"`
	Failures  []Failed     `json:"failures,omitempty"`
}

// Failed is one chunk that failed.
type Failed struct {
	Range  task.Range `json:"range"`
	Cause  task.Cause `json:"cause"`
	Detail string     `json:"detail"`
	Report string     `json:"report,omitempty"` // key of the failure report
}

// New returns a handler that runs as many generator processes at once as Go
// may use CPUs (GOMAXPROCS), or fewer where they need more memory. It takes a
// scratch folder in the temporary folder and removes what an earlier worker left
// there. Logs and metrics go to out, a JSON object a line.
func New(c Config, st *store.Store, queue *sqs.Client, out io.Writer) (*Handler, error) {
	dir, err := openScratch()
	if err != nil {
		return nil, err
	}
	capacity := oneCPU * int64(runtime.GOMAXPROCS(0))
	limits := c.Limits.Filled()
	return &Handler{
		config: c, store: st, messages: newMessages(queue, c.QueueURL, c.DLQURL), log: newLog(out),
		metrics: &metrics{to: out, function: c.Function},
		scratch: dir, limits: limits, guard: limits.Guard(), seen: newSeen(),
		datasets: &datasets{kept: map[string]task.Manifest{}, read: map[string]time.Time{}}, capacity: capacity,
		slots:     semaphore.NewWeighted(capacity),
		generator: generator.Run, retryDelays: cmp.Or(c.RetryDelays, 1),
	}, nil
}

// Close empties the scratch folder and gives it up.
func (h *Handler) Close() error { return h.scratch.Close() }

// Handle answers one invocation: an SQS event with a partial batch response, a
// bare task with a Summary. A direct invocation that fails returns an error.
func (h *Handler) Handle(ctx context.Context, payload json.RawMessage) (any, error) {
	var event struct {
		Records *[]events.SQSMessage
	}
	if err := json.Unmarshal(payload, &event); err != nil || event.Records == nil {
		return h.direct(ctx, payload)
	}
	var response events.SQSEventResponse
	for _, message := range *event.Records {
		d := newDelivery(ctx, message)
		if !h.settle(ctx, d) {
			response.BatchItemFailures = append(response.BatchItemFailures,
				events.SQSBatchItemFailure{ItemIdentifier: message.MessageId})
		}
	}
	return response, nil
}

func (h *Handler) direct(ctx context.Context, payload json.RawMessage) (any, error) {
	d := newDelivery(ctx, events.SQSMessage{Body: string(payload)})
	t, err := task.Parse(payload, d.requestID)
	if err != nil {
		return nil, err
	}
	o := h.run(ctx, t, d)
	summary := h.report(ctx, t, d, o)
	if len(o.held) > 0 {
		return nil, fmt.Errorf("another worker is at work on this range until %s", o.busyUntil.UTC().Format(time.RFC3339))
	}
	if len(summary.Failures) > 0 {
		f := summary.Failures[0]
		return nil, fmt.Errorf("%s: samples %s: %s (report: %s)", f.Cause, f.Range, f.Detail, f.Report)
	}
	return summary, nil
}

// settle computes the task of one message and decides what becomes of the
// message. It reports whether the message is done with and may be deleted.
func (h *Handler) settle(ctx context.Context, d delivery) bool {
	log := h.log.With(d.attrs(task.Task{})...)
	t, err := task.Parse([]byte(d.body), d.messageID)
	if err != nil {
		return h.refuse(ctx, d, err, log)
	}
	log = h.log.With(d.attrs(t)...)
	o := h.run(ctx, t, d)
	summary := h.report(ctx, t, d, o)

	ctx, cancel := d.lastWords(ctx)
	defer cancel()
	switch failed := worst(summary.Failures); {
	case failed != nil && (!failed.Cause.Policy().Retry || h.messages.isLast(ctx, d)):
		return h.giveUp(ctx, d, t, summary.Failures, o, log)
	case failed != nil:
		h.putOff(ctx, d, h.retryDelay(failed.Cause, d), log)
		return false
	case len(o.unfinished) > 0: // run has made sure that something was committed
		return h.sendOn(ctx, d, o.rest(t), 0, log)
	case len(o.held) > 0:
		delay := busyDelay(time.Until(o.busyUntil), d.receives)
		if h.messages.isLast(ctx, d) {
			// The queue would bury it without a cause, though nothing of it has failed. This
			// ends: who holds a chunk commits it, fails it or dies, and then it is free.
			return h.sendOn(ctx, d, o.rest(t), delay, log)
		}
		h.putOff(ctx, d, delay, log)
		return false
	}
	return true
}

// sendOn sends what is left of a task on and reports whether its message is done
// with. If it could not be sent, the message comes back.
func (h *Handler) sendOn(ctx context.Context, d delivery, rest task.Task, delay time.Duration, log *slog.Logger) bool {
	err := h.messages.sendOn(ctx, d, rest, delay)
	if err != nil {
		log.Error("send the rest on", "error", err)
		h.putOff(ctx, d, h.retryDelay(task.Storage, d), log)
	}
	return err == nil
}

// giveUp buries what failed, each part with its own cause, and sends on what did
// not fail but is not committed either. A part that is replayed gets other seeds
// only if its own generator was to blame for it.
func (h *Handler) giveUp(ctx context.Context, d delivery, t task.Task, failures []Failed, o *outcome,
	log *slog.Logger) bool {
	for _, p := range deadParts(t, failures) {
		if err := h.messages.bury(ctx, d, p.task.Body(), p.failed); err != nil {
			log.Error("send to the DLQ", "error", err)
			return false
		}
	}
	for _, p := range parts(t, o.open()) {
		if !h.sendOn(ctx, d, p, 0, log) {
			return false
		}
	}
	return true
}

// refuse reports a message that is no task and moves it to the DLQ.
func (h *Handler) refuse(ctx context.Context, d delivery, cause error, log *slog.Logger) bool {
	failed := Failed{Cause: task.InvalidTask, Detail: cause.Error()}
	key, err := h.store.PutFailure(ctx, store.Failure{
		Cause: failed.Cause, Detail: failed.Detail, Message: d.body,
		MessageID: d.messageID, RequestID: d.requestID, Receives: d.receives, Time: time.Now().UTC(),
	})
	if err != nil {
		log.Error("write failure report", "error", err)
	}
	failed.Report = key
	h.metrics.failure("", failed.Cause)
	log.Error("task refused", "cause", failed.Cause, "detail", failed.Detail, "report", key)
	if err := h.messages.bury(ctx, d, d.body, failed); err != nil {
		log.Error("send to the DLQ", "error", err)
		return false
	}
	return true
}

// putOff keeps the message invisible for a while. If that cannot be said, the
// queue's own visibility timeout does it.
func (h *Handler) putOff(ctx context.Context, d delivery, delay time.Duration, log *slog.Logger) {
	log.Info("task put off", "seconds", delay.Seconds())
	if err := h.messages.putOff(ctx, d, delay); err != nil {
		log.Error("change visibility", "error", err)
	}
}

// retryDelay is how long a message that failed for a cause waits.
func (h *Handler) retryDelay(c task.Cause, d delivery) time.Duration {
	return time.Duration(float64(c.Delay(d.receives)) * h.retryDelays)
}

// busyDelay is how long a message waits for a cell that another worker holds: not as
// long as that could last on the first delivery, because most are released much
// earlier; all of it later, because deliveries are counted.
func busyDelay(left time.Duration, receives int) time.Duration {
	if receives <= 1 {
		left = min(left, 30*time.Second)
	}
	return min(max(left, 0)+time.Second, task.MaxBackoff)
}

// outcome is what became of a task's chunks.
type outcome struct {
	mu         sync.Mutex
	receipts   []store.Receipt // committed now
	skipped    int             // samples committed before
	failures   []failure
	unfinished []failure    // no time was left for their chunks
	held       []task.Range // another worker holds these
	busyUntil  time.Time
	longest    time.Duration // that a process took from its start to its receipt
}

// skip notes samples that were committed before.
func (o *outcome) skip(samples int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.skipped += samples
}

// add notes what became of a chunk: it is committed with a receipt, or there is
// a *failure.
func (o *outcome) add(c task.Chunk, receipt *store.Receipt, err error, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var failed *failure
	switch {
	case errors.As(err, &failed) && failed.cause == task.TimedOut:
		o.unfinished = append(o.unfinished, *failed)
	case failed != nil:
		o.failures = append(o.failures, *failed)
	default:
		o.receipts = append(o.receipts, *receipt)
		o.longest = max(o.longest, took)
	}
}

// open are the ranges that are neither committed nor failed: no time was left for
// them, or another worker holds them.
func (o *outcome) open() []task.Range {
	open := slices.Clone(o.held)
	for _, f := range o.unfinished {
		open = append(open, f.chunk.Keep)
	}
	return open
}

// rest is the task for what was not finished. Chunks in between that are
// committed are skipped by whoever takes it, so it always has fewer to do.
func (o *outcome) rest(t task.Task) task.Task {
	open := o.open()
	all := open[0]
	for _, r := range open {
		all.Start, all.End = min(all.Start, r.Start), max(all.End, r.End)
	}
	return t.Part(all)
}

// hold notes what another worker holds.
func (o *outcome) hold(r task.Range) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held = append(o.held, r)
}

// run computes the chunks of a task that are not committed yet, side by side,
// and returns what became of each. It touches no message.
//
// Requests are tried until half of the reserve is left: what has been made stays on
// the disk for so long. The other half is for what is said of it then.
func (h *Handler) run(ctx context.Context, t task.Task, d delivery) *outcome {
	reserve := Reserve(time.Until(d.deadline))
	ctx, cancel := context.WithDeadline(ctx, d.deadline.Add(-reserve/2))
	defer cancel()
	o := &outcome{}
	h.log.Info("task started", d.attrs(t)...)
	index, err := generator.LoadIndex(h.config.Generators)
	if err != nil {
		return o.failAll(t, task.Environment, err.Error())
	}
	gen, err := index.Find(t.Generator)
	if err != nil {
		return o.failAll(t, task.UnknownGenerator, err.Error())
	}
	if gen.Problem != "" {
		return o.failAll(t, task.Environment, gen.Problem)
	}
	if err := h.datasets.fit(ctx, h.store, &t, gen, h.config.Image); err != nil {
		if wrong, ok := errors.AsType[*task.ContradictionError](err); ok {
			return o.failAll(t, task.Conflict, fmt.Sprintf("%v: ops submit %s", err, wrong.Way()))
		}
		if _, ok := errors.AsType[*task.InvalidError](err); ok {
			return o.failAll(t, task.InvalidTask, err.Error())
		}
		return o.failAll(t, task.Storage, err.Error())
	}
	st := h.store.In(t.Dataset)
	w := &work{Handler: h, store: st, task: t, delivery: d, generator: gen, outcome: o}
	w.generatorDeadline = d.deadline.Add(-reserve)
	w.all(ctx, t.Chunks())
	if len(o.unfinished) > 0 && len(o.receipts) == 0 && len(o.failures) == 0 {
		// Sending the same chunks on would go round for ever.
		o.failures, o.unfinished = o.unfinished, nil
		for i := range o.failures {
			if o.failures[i].refused {
				o.failures[i].cause = task.Storage
			}
		}
	}
	return o
}

func (o *outcome) failAll(t task.Task, cause task.Cause, detail string) *outcome {
	r := t.Range()
	o.failures = append(o.failures, failure{chunk: task.Chunk{Cell: r, Keep: r}, cause: cause, detail: detail})
	return o
}

// worst returns the failure that decides about the message: one that can never
// pass before one that may.
func worst(failures []Failed) *Failed {
	var w *Failed
	for i := range failures {
		if w == nil || w.Cause.Policy().Retry && !failures[i].Cause.Policy().Retry {
			w = &failures[i]
		}
	}
	return w
}

// Reserve is what is kept of an invocation's time to kill generators, to commit
// what is finished and to answer: a tenth of it, at least 2 s and at most 30 s.
func Reserve(total time.Duration) time.Duration {
	return min(max(total/10, 2*time.Second), 30*time.Second)
}

// delivery is one receipt of one message, or one direct invocation.
type delivery struct {
	requestID  string
	messageID  string // empty for a direct invocation
	firstID    string // of the message that started it
	handle     string
	body       string
	receives   int // of this message, counted from 1
	earlier    int // deliveries of the messages it comes from
	attributes map[string]events.SQSMessageAttribute
	began      time.Time
	deadline   time.Time
}

func newDelivery(ctx context.Context, m events.SQSMessage) delivery {
	d := delivery{began: time.Now(), messageID: m.MessageId, firstID: m.MessageId, handle: m.ReceiptHandle, body: m.Body,
		receives: 1, attributes: m.MessageAttributes}
	if n, err := strconv.Atoi(m.Attributes["ApproximateReceiveCount"]); err == nil {
		d.receives = n
	}
	if a := m.MessageAttributes[task.AttributeMessageID]; a.StringValue != nil {
		d.firstID = *a.StringValue
	}
	if a := m.MessageAttributes[task.AttributeReceives]; a.StringValue != nil {
		d.earlier, _ = strconv.Atoi(*a.StringValue)
	}
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		d.requestID = lc.AwsRequestID
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(15 * time.Minute) // Lambda's longest; only a program's own call has no deadline
	}
	d.deadline = deadline
	return d
}

// lastWords is the context of what must be said although the time of the work is
// up. It takes no more than half of what is left of the invocation, so that what
// comes after it has time as well.
func (d delivery) lastWords(ctx context.Context) (context.Context, context.CancelFunc) {
	left := min(messageTimeout, max(time.Until(d.deadline)/2, time.Second))
	return context.WithTimeout(context.WithoutCancel(ctx), left)
}

// attrs are the keys that every log line has.
func (d delivery) attrs(t task.Task) []any {
	r := task.Range{}
	if t.Generator != "" {
		r = t.Range()
	}
	return []any{"request_id", d.requestID, "message_id", d.messageID, "first_message_id", d.firstID, "receives",
		d.receives,
		"dataset", t.Dataset.String(), "run_id", t.RunID, "generator", t.Generator, "start", r.Start, "end", r.End}
}

// report writes a failure report for each failure and logs and measures the
// outcome.
func (h *Handler) report(ctx context.Context, t task.Task, d delivery, o *outcome) Summary {
	ctx, cancel := d.lastWords(ctx)
	defer cancel()
	log := h.log.With(d.attrs(t)...)
	s := Summary{Generator: t.Generator, Skipped: o.skipped, Committed: []string{}}
	for _, r := range o.receipts {
		s.Samples += len(r.Samples)
		cell := task.Range{Start: r.Start / r.ChunkSize * r.ChunkSize}
		cell.End = cell.Start + r.ChunkSize
		s.Committed = append(s.Committed, t.Dataset.CellKey(t.Generator, cell))
	}
	slices.Sort(s.Committed)
	s.Committed = slices.Compact(s.Committed) // a cell may have been made in parts
	for _, f := range o.unfinished {
		s.Remaining = append(s.Remaining, f.chunk.Keep)
	}
	for _, f := range o.failures {
		key, err := h.store.In(t.Dataset).PutFailure(ctx, f.report(t, d))
		if err != nil {
			log.Error("write failure report", "error", err)
		}
		s.Failures = append(s.Failures, Failed{Range: f.chunk.Keep, Cause: f.cause, Detail: f.detail, Report: key})
		log.Error("chunk failed", "chunk", f.chunk.Name(), "cause", f.cause, "detail", f.detail, "report", key)
		h.metrics.failure(t.Generator, f.cause)
	}
	took := time.Since(d.began)
	log.Info("task finished", "samples", s.Samples, "skipped", s.Skipped, "failures", len(s.Failures),
		"unfinished", len(s.Remaining), "busy", len(o.held), "seconds", took.Seconds())
	h.metrics.task(t.Generator, s.Samples, took)
	return s
}
