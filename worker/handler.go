// Package worker computes tasks: it takes one from SQS or from a direct invocation, runs the generator chunk by chunk
// and commits each chunk to the bucket with a receipt. A task is acknowledged only when everything it asked for is
// committed, sent on as a new message, or reported as failed.
package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"golang.org/x/sync/semaphore"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Handler computes tasks. It is safe for concurrent use, though Lambda gives a worker one invocation at a time.
type Handler struct {
	config   Config
	store    *store.Store
	queue    *sqs.Client
	log      *slog.Logger
	metrics  *metrics
	scratch  *scratch
	guard    *generator.Guard
	usage    *usage
	datasets *datasets

	capacity int64               // oneCPU for each CPU
	slots    *semaphore.Weighted // of that size; weight says what a generator holds of them
	// Run, but in tests of the protocol
	generate func(context.Context, generator.Request) (generator.Result, error)
}

// Summary is the answer to a direct invocation whose task did not fail.
type Summary struct {
	Generator string       `json:"generator"`
	Samples   int          `json:"samples"`   // committed by this invocation
	Committed []string     `json:"committed"` // keys of the cells
	Skipped   int          `json:"skipped"`   // samples that were committed before
	Remaining []task.Range `json:"remaining,omitempty"`
}

// New returns a handler. It takes and empties a scratch folder. Logs and metrics go to out as lines of JSON.
func New(c Config, st *store.Store, queue *sqs.Client, out io.Writer) (*Handler, error) {
	c.Limits, c.RetryDelays = c.Limits.Filled(), cmp.Or(c.RetryDelays, 1)
	c.CPUs, c.Folder = cmp.Or(c.CPUs, runtime.GOMAXPROCS(0)), cmp.Or(c.Folder, os.TempDir())
	dir, err := openScratch(c.Folder)
	if err != nil {
		return nil, err
	}
	capacity := oneCPU * int64(c.CPUs)
	return &Handler{config: c, store: st, queue: queue, log: slog.New(slog.NewJSONHandler(out, nil)),
		metrics: &metrics{to: out, function: c.Function}, scratch: dir, guard: c.Limits.Guard(),
		usage: &usage{kinds: map[kind]extremes{}}, datasets: &datasets{known: map[task.Dataset]manifest{}},
		capacity: capacity, slots: semaphore.NewWeighted(capacity), generate: generator.Run}, nil
}

// Handle answers an SQS event with a partial batch response, a bare task with a Summary or an error, and Examine with
// an Examination.
func (h *Handler) Handle(ctx context.Context, payload json.RawMessage) (any, error) {
	var event struct {
		Records *[]events.SQSMessage
		Examine bool
	}
	switch err := json.Unmarshal(payload, &event); {
	case err == nil && event.Examine:
		return h.examine(ctx), nil
	case err != nil || event.Records == nil:
		return h.direct(ctx, payload)
	}
	if h.config.QueueURL == "" || h.config.DLQURL == "" {
		return nil, fmt.Errorf("%s and %s are not set: an event of SQS needs both", stack.EnvQueueURL, stack.EnvDLQURL)
	}
	var response events.SQSEventResponse
	for _, message := range *event.Records {
		if !h.settle(ctx, newDelivery(ctx, message)) {
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
	w := h.run(ctx, t, d)
	if len(w.held) > 0 {
		return nil, fmt.Errorf("another worker is at work on this range until %s", w.busyUntil.UTC().Format(time.RFC3339))
	}
	if len(w.failures) > 0 {
		f := w.failures[0]
		return nil, fmt.Errorf("%w (report: %s)", f, f.key)
	}
	return w.summary(), nil
}

// settle computes the task of one message and decides about the message: it reports whether that may be deleted.
func (h *Handler) settle(ctx context.Context, d delivery) bool {
	t, err := task.Parse([]byte(d.body), d.messageID)
	if err != nil {
		return h.refuse(ctx, d, err)
	}
	w := h.run(ctx, t, d)
	ctx, cancel := d.cleanUp(ctx)
	defer cancel()
	hopeless := func(f *failure) bool { return !f.Cause.Policy().Retry }
	switch {
	case len(w.failures) > 0 && !slices.ContainsFunc(w.failures, hopeless) && !w.isLast(ctx):
		return w.putOff(ctx, w.retryDelay(w.failures[0].Cause))
	case len(w.failures) > 0 || len(w.unfinished) > 0:
		// Of what is unfinished something was committed, or the worker was stopped, or another one shall try.
		return w.handOn(ctx, w.delay)
	case len(w.held) > 0:
		left := max(time.Until(w.busyUntil), 0)
		if d.receives <= 1 { // most are released much earlier; later tries wait that long, because deliveries are counted
			left = min(left, 30*time.Second)
		}
		delay := min(left+time.Second, task.MaxBackoff)
		if !w.isLast(ctx) {
			return w.putOff(ctx, delay)
		}
		// Nothing of it has failed. This ends: who holds a chunk commits it, fails it or dies.
		return w.handOn(ctx, delay)
	}
	return true
}

// handOn sends each part of the task that is not committed on: what failed to the DLQ with its own cause, which decides
// about seeds in a replay, and the rest to the queue, after a delay. It reports whether the message is done with.
func (w *work) handOn(ctx context.Context, delay time.Duration) bool {
	for _, p := range w.parts() {
		part := w.task.Part(p.Range())
		if p.Cause != "" && !w.moveToDLQ(ctx, part.Body(), &p) || p.Cause == "" && !w.sendOn(ctx, part, delay) {
			return false
		}
	}
	return true
}

// refuse reports a message that is no task and moves it to the DLQ.
func (h *Handler) refuse(ctx context.Context, d delivery, cause error) bool {
	w := &work{Handler: h, store: h.store, delivery: d, log: h.log.With(d.attrs(task.Task{})...)}
	f := &failure{Failure: store.Failure{Cause: task.InvalidTask, Detail: cause.Error(), Message: d.body,
		MessageID: d.messageID, RequestID: d.requestID, Receives: d.receives, Time: time.Now().UTC()}}
	w.reportFailure(ctx, f)
	return w.moveToDLQ(ctx, d.body, f)
}

func (w *work) retryDelay(c task.Cause) time.Duration {
	return time.Duration(float64(c.Delay(w.delivery.receives)) * w.config.RetryDelays)
}
