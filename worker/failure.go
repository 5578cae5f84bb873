package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// failure says why a chunk was not made: its report, and the key of that once it is stored.
type failure struct {
	store.Failure
	refused bool // time was up while the bucket refused what had been made
	key     string
}

func (f *failure) Error() string {
	return fmt.Sprintf("%s: samples %s: %s", f.Cause, f.Range(), f.Detail)
}

// of sets the chunk of a failure.
func (f *failure) of(c task.Chunk) {
	f.Name, f.Start, f.End, f.ChunkStart, f.ChunkSize = c.Name(), c.Keep.Start, c.Keep.End, c.First(), c.Count()
}

// errLate says that no time is left for a chunk.
var errLate = errors.New("no time was left to start the generator")

// failure says what an error means for a chunk. One that ended because its context did had no time.
func (w *work) failure(ctx context.Context, c task.Chunk, err error) *failure {
	f := &failure{Failure: store.Failure{Cause: task.Storage, Detail: err.Error(), Generator: w.task.Generator,
		Image: w.config.Image, RunID: w.task.RunID, Task: w.task, Seed: c.Seed(w.task, w.task.Attempt),
		Attempt: w.task.Attempt, MessageID: w.delivery.messageID, RequestID: w.delivery.requestID,
		Receives: w.delivery.receives, Time: time.Now().UTC()}}
	if f.of(c); w.generator != nil {
		f.Commit, f.Command = w.generator.Commit, generator.Command(w.generator, c.Count(), f.Seed, c.First())
	}
	var ran *generator.Failure
	var bad *sample.Error
	switch {
	case errors.As(err, &ran):
		f.Cause, f.Detail, f.Stdout, f.Stderr, f.ExitCode, f.Signal = ran.Cause, ran.Detail, ran.Stdout, ran.Stderr,
			ran.ExitCode, ran.Signal
	case errors.As(err, &bad):
		f.Cause, f.Detail = bad.Cause, bad.Detail
	case errors.Is(err, errLate), ctx.Err() != nil && !errors.Is(err, store.ErrRefused):
		f.Detail = errLate.Error()
	case ctx.Err() != nil:
		f.refused, f.Detail = true, "no time was left to try again: "+err.Error()
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		f.Cause = task.DiskFull
	}
	if ctx.Err() != nil || errors.Is(err, errLate) {
		f.Cause = task.TimedOut
	}
	return f
}

// fail notes why a chunk was not made.
func (w *work) fail(ctx context.Context, c task.Chunk, err error) {
	failed, ok := errors.AsType[*failure](err)
	if !ok {
		failed = w.failure(ctx, c, err)
	}
	failed.of(c)
	w.mu.Lock()
	defer w.mu.Unlock()
	list := &w.failures
	if failed.Cause == task.TimedOut {
		list = &w.unfinished
	}
	*list = append(*list, failed)
}

// reportFailure writes the report of a failure, and logs and counts it.
func (w *work) reportFailure(ctx context.Context, f *failure) {
	var err error
	if f.key, err = w.store.PutFailure(ctx, f.Failure); err != nil {
		w.log.Error("write failure report", "error", err)
	}
	w.log.Error("chunk failed", "chunk", f.Name, "cause", f.Cause, "detail", f.Detail, "report", f.key)
	w.metrics.failure(f.Generator, f.Cause)
}

// parts are the parts of the task that are not committed, in order; neighbours with one cause are one part. Those
// without a cause did not fail: no time was left for them, or another worker holds them.
func (w *work) parts() (list []failure) {
	var all []failure
	for _, r := range w.held {
		all = append(all, failure{Failure: store.Failure{Start: r.Start, End: r.End}})
	}
	for _, f := range w.unfinished {
		all = append(all, failure{Failure: store.Failure{Start: f.Start, End: f.End}})
	}
	for _, f := range w.failures {
		all = append(all, *f)
	}
	slices.SortFunc(all, func(a, b failure) int { return cmp.Compare(a.Start, b.Start) })
	for _, p := range all {
		if n := len(list) - 1; n >= 0 && list[n].End == p.Start && list[n].Cause == p.Cause {
			list[n].End = p.End
		} else {
			list = append(list, p)
		}
	}
	return list
}
