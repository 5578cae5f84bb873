package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// work is one task being computed.
type work struct {
	*Handler
	task              task.Task
	delivery          delivery
	generator         *generator.Generator
	generatorDeadline time.Time // when generators are killed
	outcome           *outcome
}

// claimWait is how long a worker stays for chunks that somebody else holds,
// after it has made its own. Neighbouring tasks share a cell when the batch is
// no multiple of the chunk size, and a cell is mostly free again soon.
const (
	claimWait = 20 * time.Second
	claimPoll = 500 * time.Millisecond
)

// all makes the chunks, as many at once as there are CPUs, and comes back to
// those that another worker holds for as long as claimWait.
func (w *work) all(ctx context.Context, list []todo) {
	var waited time.Duration
	own := time.Duration(task.SeedFromID(w.delivery.requestID)) % claimPoll
	for {
		busy := w.once(ctx, list)
		if len(busy) == 0 {
			return
		}
		list = busy
		if waited += claimPoll; waited > claimWait || ctx.Err() != nil || time.Until(w.generatorDeadline) < 2*claimPoll {
			for _, item := range list {
				w.outcome.held = append(w.outcome.held, item.chunk.Keep)
			}
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(claimPoll/2 + own): // two that are in each other's way must not stay in step
		}
	}
}

// once tries each chunk and returns those that another worker holds.
func (w *work) once(ctx context.Context, list []todo) (busy []todo) {
	var group sync.WaitGroup
	o := w.outcome
	for _, item := range list {
		if err := w.slots.Acquire(ctx, 1); err != nil {
			o.mu.Lock()
			o.unfinished = append(o.unfinished, *w.late(item.chunk))
			o.mu.Unlock()
			continue
		}
		slot := &slot{work: w, held: 1}
		group.Go(func() {
			defer slot.release()
			began := time.Now()
			receipt, err := w.make(ctx, item, slot)
			o.mu.Lock()
			defer o.mu.Unlock()
			var failed *failure
			var held *store.BusyError
			var changed *changedError
			switch {
			case err == nil && receipt == nil: // somebody else committed it meanwhile
				o.skipped += len(item.chunk.Kept())
			case err == nil:
				o.receipts = append(o.receipts, *receipt)
				o.longest = max(o.longest, time.Since(began))
			case errors.As(err, &held):
				busy = append(busy, item)
				if held.Until.After(o.busyUntil) {
					o.busyUntil = held.Until
				}
			case errors.As(err, &changed):
				busy = append(busy, changed.parts...)
			case errors.As(err, &failed) && failed.cause != task.TimedOut:
				o.failures = append(o.failures, *failed)
			case failed != nil:
				o.unfinished = append(o.unfinished, *failed)
			default: // the invocation ended under a request
				o.unfinished = append(o.unfinished, *w.late(item.chunk))
			}
		})
	}
	group.Wait()
	return busy
}

// slot is the share of the CPUs that one chunk holds.
type slot struct {
	*work
	held int64
}

func (s *slot) release() {
	s.slots.Release(s.held)
	s.held = 0
}

// resize gives the slot back and waits for one of another size.
func (s *slot) resize(ctx context.Context, n int64) error {
	if n == s.held {
		return nil
	}
	s.release()
	if err := s.slots.Acquire(ctx, n); err != nil {
		return err
	}
	s.held = n
	return nil
}

// late is the failure of a chunk for which no time was left.
func (w *work) late(c task.Chunk) *failure {
	seed := c.Seed(w.task, w.task.Attempt)
	return &failure{chunk: c, cause: task.TimedOut, detail: "no time was left to start the generator", seed: seed, attempt: w.task.Attempt,
		commit: w.generator.Commit, image: w.config.Image, command: generator.Command(w.generator, c.Count(), seed, c.Cell.Start)}
}

// make computes one chunk from claim to receipt. The receipt is nil when the
// chunk was committed by somebody else. The error is a *failure, a
// *store.BusyError, or that of a context that ended.
func (w *work) make(ctx context.Context, item todo, slot *slot) (receipt *store.Receipt, err error) {
	c := item.chunk
	w.outcome.mu.Lock()
	expected := w.outcome.longest
	w.outcome.mu.Unlock()
	if left := time.Until(w.generatorDeadline); left <= 0 || left < expected {
		return nil, w.late(c)
	}
	log := w.log.With(w.delivery.attrs(w.task)...).With("chunk", c.Name())

	above := 0
	for _, r := range item.replaces {
		above = max(above, r.Claim)
	}
	if c.Indices != nil && item.restores == nil {
		// A repair stands above everything that holds its samples, and leaves room below.
		above = 1
		stored, err := w.store.Receipts(ctx, w.task.Generator, c.Keep)
		if err != nil {
			return nil, w.storage(ctx, c, err)
		}
		for _, r := range stored {
			above = max(above, r.Claim)
		}
	}
	if err := w.cut(ctx, c, item.replaces); err != nil {
		return nil, w.storage(ctx, c, err)
	}
	holder := store.Holder{RequestID: w.delivery.requestID, MessageID: w.delivery.messageID, Deadline: w.delivery.deadline}
	claim, err := w.store.Claim(ctx, w.task.Generator, c, holder, above)
	if err != nil {
		return nil, w.storage(ctx, c, err)
	}
	clean := true
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), messageTimeout)
		defer cancel()
		if e := w.store.Release(ctx, claim, clean); e != nil {
			log.Error("release claim", "claim", claim.Number, "error", e)
		}
	}()

	// Between the look at the receipts and the claim, another worker may have
	// committed this very range.
	stored, err := w.store.Receipts(ctx, w.task.Generator, c.Keep)
	if err != nil {
		return nil, w.storage(ctx, c, err)
	}
	parts, err := undone(w.task, c, stored)
	switch {
	case err != nil:
		return nil, &failure{chunk: c, cause: task.Conflict, detail: err.Error()}
	case len(parts) == 0:
		return nil, nil
	case len(parts) > 1 || parts[0].chunk.Keep != c.Keep || slices.ContainsFunc(parts[0].replaces, func(r store.Receipt) bool { return sticksOut(r, c.Keep) || r.Claim >= claim.Number }):
		return nil, &changedError{parts}
	}

	dir, err := w.scratch.Folder()
	if err != nil {
		return nil, w.disk(c, err)
	}
	defer w.scratch.Remove(dir, log)
	made, err := w.generate(ctx, c, dir, slot, log)
	if err != nil {
		return nil, err
	}
	slot.release() // the next generator may start while this one's samples are stored
	r := made.receipt(w, parts[0], claim)
	if err := w.commit(ctx, parts[0], &r, made, claim.First); err != nil {
		clean = false // one of its requests may still be executed
		return nil, w.storage(ctx, c, err)
	}
	log.Info("chunk committed", "samples", len(r.Samples), "attempt", r.Attempt, "claim", r.Claim,
		"cpu_seconds", r.CPUSeconds, "wall_seconds", r.WallSeconds, "peak_rss_bytes", r.PeakRSSBytes)
	return &r, nil
}

// made is what one successful generator process left.
type made struct {
	domain  string
	samples []sample.Sample
	result  generator.Result
	seed    int
	attempt int
}

// generate runs the generator until its output is whole. When the generator
// itself fails it is run again alone; if it fails in the same way and neither
// disk nor memory were short, the next attempt's seed is tried, three seeds in
// all. So a disturbance never changes which seed makes a chunk.
func (w *work) generate(ctx context.Context, c task.Chunk, dir string, slot *slot, log *slog.Logger) (*made, error) {
	var failed *failure
	for try := range 2 * task.SeedTries {
		attempt := w.task.Attempt + try/2
		alone := try%2 == 1
		size := int64(1)
		if alone {
			size = w.cpus
		}
		if err := slot.resize(ctx, size); err != nil {
			return nil, err
		}
		scratch := filepath.Join(dir, fmt.Sprint(try))
		m, f := w.try(ctx, c, scratch, attempt, alone)
		if f == nil {
			return m, nil
		}
		w.scratch.Remove(scratch, log)
		log.Warn("generator failed", "attempt", attempt, "seed", f.seed, "alone", alone, "cause", f.cause, "detail", f.detail)
		if !f.cause.Policy().NextSeed || alone && f.cause != failed.cause {
			return nil, f
		}
		if alone {
			if cause := w.short(f.result.Watched); cause != "" {
				f.cause, f.detail = cause, "while the machine was short of it: "+f.detail
				return nil, f
			}
		}
		failed = f
	}
	return nil, failed
}

// try runs the generator once and checks what it wrote.
func (w *work) try(ctx context.Context, c task.Chunk, scratch string, attempt int, alone bool) (*made, *failure) {
	m := &made{seed: c.Seed(w.task, attempt), attempt: attempt}
	f := &failure{chunk: c, seed: m.seed, attempt: attempt, commit: w.generator.Commit, image: w.config.Image}
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return nil, w.disk(c, err)
	}
	limited, cancel := context.WithDeadline(ctx, w.generatorDeadline)
	defer cancel()
	var err error
	m.result, err = w.Handler.generator(limited, generator.Request{
		Generator: w.generator, Samples: c.Count(), Seed: m.seed, StartIndex: c.Cell.Start, Scratch: scratch, Watch: alone,
	})
	f.result, f.command = m.result, m.result.Command
	if err != nil {
		var g *generator.Failure
		if errors.As(err, &g) {
			f.cause, f.detail, f.stdout, f.stderr = g.Cause, g.Detail, g.Stdout, g.Stderr
			f.exitCode, f.signal = g.ExitCode, g.Signal
		} else {
			d := w.disk(c, err)
			f.cause, f.detail = d.cause, d.detail
		}
		if limited.Err() != nil {
			f.cause = task.TimedOut
		}
		return nil, f
	}
	var places []sample.Place
	for n, index := range c.Kept() {
		offset := n
		if c.Indices == nil {
			offset = index - c.Cell.Start
		}
		places = append(places, sample.Place{Offset: offset, Index: index})
	}
	staging := filepath.Join(scratch, "staging")
	m.domain, m.samples, err = sample.Collect(m.result.Output, staging, c.Count(), places,
		sample.Rules{Required: slices.Concat(w.generator.Required, w.config.Required), Videoless: w.generator.Videoless, FilesVary: w.generator.FilesVary})
	if err != nil {
		var bad *sample.Error
		if errors.As(err, &bad) {
			f.cause, f.detail = bad.Cause, bad.Detail
			return nil, f
		}
		d := w.disk(c, err)
		f.cause, f.detail = d.cause, d.detail
		return nil, f
	}
	return m, nil
}

// short says which resource was short while a generator ran alone.
func (w *work) short(seen generator.Watched) task.Cause {
	const little = 16 << 20 // bytes: less than a chunk's videos take
	switch {
	case seen.MinFreeDisk > 0 && seen.MinFreeDisk < little:
		return task.DiskFull
	case memoryLimit() > 0 && seen.PeakGroupRSS > memoryLimit()*9/10:
		return task.OutOfMemory
	}
	return ""
}

func (m *made) receipt(w *work, x todo, claim *store.Claim) store.Receipt {
	c := x.chunk
	r := store.Receipt{
		Generator: w.task.Generator, Commit: w.generator.Commit, Image: w.config.Image, RunID: w.task.RunID,
		RunSeed: w.task.Seed, ChunkSize: w.task.ChunkSize, ChunkStart: c.Cell.Start, Seed: m.seed,
		Command: m.result.Command, Start: c.Keep.Start, End: c.Keep.End, Indices: c.Indices, Attempt: m.attempt,
		Claim: x.order(claim.Number), Format: w.task.Format, Domain: m.domain,
		CPUSeconds: m.result.CPU.Seconds(), WallSeconds: m.result.Wall.Seconds(), PeakRSSBytes: m.result.PeakRSS,
		RequestID: w.delivery.requestID, MessageID: w.delivery.firstID, Receives: w.delivery.earlier + w.delivery.receives,
		Committed: time.Now().UTC(),
	}
	if c.Indices != nil {
		r.FirstAttempt = c.Attempt
	}
	for _, s := range m.samples {
		if x.restores != nil && !holds(*x.restores, []int{s.Index}) {
			continue // overwritten since
		}
		r.Samples = append(r.Samples, store.Described(s))
	}
	return r
}

// storage turns an error of the bucket into what it means for the chunk.
func (w *work) storage(ctx context.Context, c task.Chunk, err error) error {
	var busy *store.BusyError
	if errors.As(err, &busy) || ctx.Err() != nil {
		return err
	}
	return &failure{chunk: c, cause: task.Storage, detail: err.Error(), attempt: w.task.Attempt, seed: c.Seed(w.task, w.task.Attempt)}
}

// disk turns an error of the worker's own disk into a failure.
func (w *work) disk(c task.Chunk, err error) *failure {
	f := &failure{chunk: c, cause: task.Storage, detail: err.Error(), attempt: w.task.Attempt, seed: c.Seed(w.task, w.task.Attempt)}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		f.cause = task.DiskFull
	}
	return f
}
