package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// made is what one successful generator process left.
type made struct {
	domain  string
	samples []sample.Sample
	result  generator.Result
	seed    int
	attempt int
}

// generate runs the generator until its output is whole.
//
// When memory or disk were short it is run again with half as many others beside
// it, in the end alone: only then they count as too little. When the generator
// itself fails it is run again alone; if it fails in the same way and neither
// memory nor disk were short, the next attempt's seed is tried, three seeds in
// all. So a disturbance never changes which seed makes a chunk.
func (w *work) generate(ctx context.Context, x todo, dir string, slot *slot, log *slog.Logger) (*made, error) {
	kind := w.kind(x.chunk)
	attempt := w.task.Attempt
	var failed *failure // of this attempt
	least := int64(oneCPU)
	for try := 0; ; try++ {
		if err := slot.resize(ctx, max(least, w.weight(kind))); err != nil {
			return nil, err
		}
		alone := slot.held == w.capacity
		scratch := filepath.Join(dir, fmt.Sprint(try))
		m, f := w.try(ctx, x, kind, scratch, attempt)
		if f == nil {
			return m, nil
		}
		w.scratch.Remove(scratch, log)
		log.Warn("generator failed", "attempt", attempt, "seed", f.seed, "alone", alone, "cause", f.cause, "detail", f.detail)
		switch p := f.cause.Policy(); {
		case p.Fewer && !alone:
			least = min(2*slot.held, w.capacity)
			continue
		case !p.NextSeed || failed != nil && f.cause != failed.cause:
			return nil, f
		case failed == nil:
			failed, least = f, w.capacity
			continue
		}
		if cause := w.short(f.result.Watched); cause != "" {
			f.cause, f.detail = cause, "while the machine was short of it: "+f.detail
			return nil, f
		}
		if attempt++; attempt == w.task.Attempt+task.SeedTries {
			return nil, f
		}
		failed, least = nil, oneCPU
	}
}

// try runs the generator once and checks what it wrote.
func (w *work) try(ctx context.Context, x todo, kind kind, scratch string, attempt int) (*made, *failure) {
	c := x.chunk
	m := &made{seed: c.Seed(w.task, attempt), attempt: attempt}
	f := &failure{chunk: c, seed: m.seed, attempt: attempt, commit: w.generator.Commit, image: w.config.Image}
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return nil, w.disk(c, err)
	}
	limited, cancel := context.WithDeadline(ctx, w.generatorDeadline)
	defer cancel()
	deliveries := w.delivery.earlier + w.delivery.receives
	var err error
	m.result, err = w.Handler.generator(limited, generator.Request{
		Generator: w.generator, Samples: c.Count(), Seed: m.seed, StartIndex: c.First(), Scratch: scratch,
		Guard: w.guard, MaxBytes: w.limits.Bytes, MaxFiles: w.limits.Files * (c.Count() + 1),
		Patience: func() time.Duration { return w.seen.patience(kind, w.limits.Patience, deliveries) },
	})
	f.result, f.command = m.result, m.result.Command
	w.seen.used(kind, m.result.PeakRSS)
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
	for n, index := range x.keep {
		offset := n
		if c.Indices == nil {
			offset = index - c.Cell.Start
		}
		places = append(places, sample.Place{Offset: offset, Index: index})
	}
	m.domain, m.samples, err = sample.Collect(m.result.Output, c.Count(), places,
		sample.Rules{Required: slices.Concat(w.generator.Required, w.config.Required), Videoless: w.generator.Videoless,
			FilesVary: w.generator.FilesVary})
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
	w.seen.took(kind, m.result.Wall, 1)
	return m, nil
}

// short says which resource was short while a generator ran alone.
func (w *work) short(during generator.Watched) task.Cause {
	const little = 16 << 20 // bytes: less than a chunk's videos take
	switch {
	case during.MinFreeDisk > 0 && during.MinFreeDisk < little:
		return task.DiskFull
	case w.guard.Part(during.PeakGroupRSS) > 0.9:
		return task.OutOfMemory
	}
	return ""
}

func (m *made) receipt(w *work, x todo, epoch int) store.Receipt {
	c := x.chunk
	r := store.Receipt{
		Dataset: w.task.Dataset, Generator: w.task.Generator, Commit: w.generator.Commit, Image: w.config.Image,
		RunID: w.task.RunID,
		Lock:  w.generator.Lock, Python: w.generator.Version, Platform: w.generator.Platform,
		RunSeed: w.task.Seed, ChunkSize: w.task.ChunkSize, PartSize: w.task.PartSize, ChunkStart: c.First(), Seed: m.seed,
		Command: m.result.Command, Start: x.keep[0], End: x.keep[len(x.keep)-1] + 1, Indices: c.Indices, Attempt: m.attempt,
		Epoch: epoch, Format: w.task.Format, Domain: m.domain,
		CPUSeconds: m.result.CPU.Seconds(), WallSeconds: m.result.Wall.Seconds(), PeakRSSBytes: m.result.PeakRSS,
		RequestID: w.delivery.requestID, MessageID: w.delivery.firstID, Receives: w.delivery.earlier + w.delivery.receives,
		Committed: time.Now().UTC(),
	}
	if c.Indices != nil {
		r.FirstAttempt = c.Attempt
	}
	for _, s := range m.samples {
		r.Samples = append(r.Samples, store.Described(s))
	}
	return r
}
