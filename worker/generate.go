package worker

import (
	"context"
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

// output is what one generator process left.
type output struct {
	domain  string
	samples []sample.Sample
	result  generator.Result
	seed    int
	attempt int
}

// produce runs the generator until its output is complete. When memory or disk were short it is run again with half as
// many others beside it, in the end alone: only then they count as too little. When the generator itself fails it is
// run again alone; if it fails in the same way and neither was short, the next attempt's seed is tried, three in all.
// So a disturbance changes no seed.
func (w *work) produce(ctx context.Context, p process, dir string, slot *slot, log *slog.Logger) (*output, error) {
	kind := w.kind(p.chunk)
	attempt := w.task.Attempt
	var failed *failure // of this attempt
	least := int64(oneCPU)
	for try := 0; ; try++ {
		if err := slot.resize(ctx, max(least, w.weight(kind))); err != nil {
			return nil, err
		}
		alone := slot.held == w.capacity
		scratch := filepath.Join(dir, fmt.Sprint(try))
		o, f := w.try(ctx, p, scratch, attempt)
		if f == nil {
			return o, nil
		}
		w.scratch.Remove(scratch, log)
		log.Warn("generator failed", "attempt", attempt, "seed", f.Seed, "alone", alone, "cause", f.Cause, "detail", f.Detail)
		switch policy := f.Cause.Policy(); {
		case policy.Fewer && !alone:
			least = min(2*slot.held, w.capacity)
			continue
		case !policy.NextSeed || failed != nil && f.Cause != failed.Cause:
			return nil, f
		case failed == nil:
			failed, least = f, w.capacity
			continue
		}
		if cause := w.short(o.result.Watched); cause != "" {
			f.Cause, f.Detail = cause, "while the machine was short of it: "+f.Detail
			return nil, f
		}
		if attempt++; attempt == w.task.Attempt+task.SeedTries {
			return nil, f
		}
		failed, least = nil, oneCPU
	}
}

// try runs the generator once and checks what it wrote.
func (w *work) try(ctx context.Context, p process, scratch string, attempt int) (*output, *failure) {
	o := &output{seed: p.chunk.Seed(w.task, attempt), attempt: attempt}
	limited, cancel := context.WithDeadline(ctx, w.generatorDeadline)
	defer cancel()
	err := w.runAndCheck(limited, p, scratch, o)
	if err == nil {
		return o, nil
	}
	f := w.failure(limited, p.chunk, err)
	f.Seed, f.Attempt, f.Command = o.seed, attempt, o.result.Command
	f.CPUSeconds, f.WallSeconds, f.PeakRSSBytes = o.result.CPU.Seconds(), o.result.Wall.Seconds(), o.result.PeakRSS
	return o, f
}

func (w *work) runAndCheck(ctx context.Context, p process, scratch string, o *output) (err error) {
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return err
	}
	c, kind, limits := p.chunk, w.kind(p.chunk), w.config.Limits
	deliveries := w.delivery.earlier + w.delivery.receives
	o.result, err = w.Handler.generate(ctx, generator.Request{
		Generator: w.generator, Samples: c.Count(), Seed: o.seed, StartIndex: c.First(), Scratch: scratch,
		Apart: w.config.OwnMachine, Guard: w.guard, MaxBytes: limits.Bytes, MaxFiles: limits.Files * (c.Count() + 1),
		Patience: func() time.Duration { return w.usage.of(kind).patience(limits.Patience, deliveries) },
	})
	w.usage.add(kind, extremes{memory: o.result.PeakRSS})
	if err != nil {
		return err
	}
	var places []sample.Place
	for n, index := range p.keep {
		if c.Indices == nil {
			n = index - c.Cell.Start
		}
		places = append(places, sample.Place{Offset: n, Index: index})
	}
	o.domain, o.samples, err = sample.Collect(o.result.Output, c.Count(), places,
		sample.Rules{Required: slices.Concat(w.generator.Required, w.config.Required), Videoless: w.generator.Videoless,
			FilesVary: w.generator.FilesVary})
	if err == nil {
		w.usage.add(kind, extremes{chunks: 1, wall: o.result.Wall})
	}
	return err
}

// short returns the resource that was short while a generator ran alone.
func (w *work) short(during generator.Watched) task.Cause {
	switch {
	case during.MinFreeDisk > 0 && during.MinFreeDisk < 16<<20: // bytes: less than a chunk's videos take
		return task.DiskFull
	case w.guard.Part(during.PeakGroupRSS) > 0.9:
		return task.OutOfMemory
	}
	return ""
}

func (o *output) receipt(w *work, p process, cell *store.Cell) *store.Receipt {
	c, d := p.chunk, w.delivery
	r := &store.Receipt{
		Dataset: w.task.Dataset, Generator: w.task.Generator, Commit: w.generator.Commit, Image: w.config.Image,
		RunID: w.task.RunID, Options: w.task.Options, Lock: w.generator.Lock, Python: w.generator.Version, Platform: w.generator.Platform,
		RunSeed: w.task.Seed, ChunkSize: w.task.ChunkSize, PartSize: w.task.PartSize, ChunkStart: c.First(), Seed: o.seed,
		Command: o.result.Command, Start: p.keep[0], End: p.keep[len(p.keep)-1] + 1, Indices: c.Indices, Attempt: o.attempt,
		Epoch: cell.Epoch, ReadFrom: cell.Key(), Format: w.task.Format, Domain: o.domain, Samples: o.samples,
		CPUSeconds: o.result.CPU.Seconds(), WallSeconds: o.result.Wall.Seconds(), PeakRSSBytes: o.result.PeakRSS,
		RequestID: d.requestID, MessageID: d.firstID, Receives: d.earlier + d.receives, Committed: time.Now().UTC(),
	}
	if c.Indices != nil {
		r.FirstAttempt = c.Attempt
	}
	return r
}
