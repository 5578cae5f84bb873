package worker

import (
	"cmp"
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

type process struct {
	chunk task.Chunk
	keep  []int // indices of its samples that are stored
	place int   // of the receipt that is made again, or -1
}

// remaining returns what is left to make of a chunk: what is not committed, or for a repair all of it unless it was
// made, or the samples of the receipt to restore. A task of no run is refused where samples have another seed.
func remaining(t task.Task, c task.Chunk, cell *store.Cell) (list []process, err error) {
	keep := c.Kept()
	place := -1
	switch {
	case t.Restore > 0:
		if place = cell.Restorable(t, c); place < 0 {
			return nil, nil
		}
		keep = nil
		for _, s := range cell.Receipts[place].Samples {
			keep = append(keep, s.Index)
		}
	case c.Indices != nil:
		if cell.Repaired(t, c) {
			return nil, nil
		}
	default:
		for _, r := range cell.Receipts {
			if t.RunID == "" && r.RunSeed != t.Seed && slices.ContainsFunc(keep, r.Describes) {
				return nil, fmt.Errorf("samples %s are committed with seed %d, this task has seed %d", r.Range(), r.RunSeed, t.Seed)
			}
		}
		keep = slices.DeleteFunc(keep, cell.Has)
	}
	for _, part := range t.Parts(c) {
		p := process{chunk: part, place: place}
		for _, index := range keep {
			if part.Keep.Start <= index && index < part.Keep.End {
				p.keep = append(p.keep, index)
			}
		}
		if len(p.keep) > 0 {
			list = append(list, p)
		}
	}
	return list, nil
}

// makeChunk takes the cell of a chunk and computes what is left to make of it. What becomes of each part is noted.
// The error is of the rest, which was not made: a *store.BusyError or store.ErrExists if another worker has the cell.
func (w *work) makeChunk(ctx context.Context, c task.Chunk, slot *slot) (rest task.Chunk, err error) {
	if w.isLate() {
		return c, errLate
	}
	by := store.Holder{RequestID: w.delivery.requestID, MessageID: cmp.Or(w.delivery.messageID, w.delivery.requestID),
		Deadline: w.delivery.deadline}
	cell, err := w.store.Take(ctx, w.task.Generator, c.Cell, by, func(cell *store.Cell) bool {
		left, err := remaining(w.task, c, cell)
		return err == nil && len(left) > 0
	})
	if err != nil {
		return c, err
	}
	clean := true
	defer func() {
		ctx, cancel := w.delivery.cleanUp(ctx)
		defer cancel()
		if err := w.store.Release(ctx, cell, clean); err != nil {
			w.log.Error("release the cell", "epoch", cell.Epoch, "error", err)
		}
	}()
	left, err := remaining(w.task, c, cell)
	if err != nil {
		f := w.failure(ctx, c, err)
		f.Cause = task.Conflict
		return c, f
	}
	skipped := int64(len(c.Kept()))
	for _, p := range left {
		skipped -= int64(len(p.keep))
	}
	w.skipped.Add(skipped)
	if len(left) == 0 {
		err := w.store.Clear(ctx, cell, nil)
		clean = err == nil
		return c, err
	}
	for n, p := range left {
		rest = c
		rest.Keep.Start = max(c.Keep.Start, p.chunk.Keep.Start)
		err := slot.resize(ctx, w.weight(w.kind(p.chunk)))
		if err == nil && w.isLate() {
			err = errLate
		}
		if err != nil {
			return rest, err
		}
		began := time.Now()
		receipt, stored, err := w.makePart(ctx, p, cell, n == len(left)-1, slot)
		clean = clean && stored
		switch {
		case err == nil:
			w.mu.Lock()
			w.receipts = append(w.receipts, *receipt)
			w.longest = max(w.longest, time.Since(began))
			w.mu.Unlock()
		case errors.Is(err, store.ErrExists):
			w.skipped.Add(-skipped) // the cell is read again
			return rest, err
		default:
			w.fail(ctx, p.chunk, err)
		}
	}
	return rest, nil
}

// isLate reports whether no chunk can be finished any more.
func (w *work) isLate() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	left := time.Until(w.generatorDeadline)
	return left <= 0 || left < w.longest
}

// makePart computes what one process makes of a cell that is held, and commits it; the last one gives the cell up. The
// error is store.ErrExists if the cell was lost. Unless stored, some of its requests may still be executed.
func (w *work) makePart(ctx context.Context, p process, cell *store.Cell, last bool,
	slot *slot) (r *store.Receipt, stored bool, err error) {
	log := w.log.With("chunk", p.chunk.Name())
	dir, err := w.scratch.Folder()
	if err != nil {
		return nil, true, err
	}
	defer w.scratch.Remove(dir, log)
	out, err := w.produce(ctx, p, dir, slot, log)
	if err != nil {
		return nil, true, err
	}
	slot.release() // the next generator may start while this one's samples are stored
	r = out.receipt(w, p, cell)
	if err := w.commit(ctx, p, r, out.samples, cell, last); err != nil {
		return nil, false, err
	}
	log.Info("chunk committed", "samples", len(r.Samples), "attempt", r.Attempt, "epoch", r.Epoch,
		"cpu_seconds", r.CPUSeconds, "wall_seconds", r.WallSeconds, "peak_rss_bytes", r.PeakRSSBytes)
	return r, true, nil
}

// commit stores samples and then, last, their receipt.
func (w *work) commit(ctx context.Context, p process, r *store.Receipt, samples []sample.Sample, cell *store.Cell,
	last bool) error {
	if r.Format == task.Tar {
		named := p.chunk
		if named.Indices == nil {
			named.Keep = r.Range() // some of the chunk may have been there
		}
		shard, err := w.store.PutShard(ctx, w.task.Generator, named, cell.Epoch, samples)
		if err != nil {
			return err
		}
		r.Shard = &shard
	} else {
		if p.place >= 0 { // what was replaced since stays
			gone := cell.Replaced(p.place)
			samples = slices.DeleteFunc(slices.Clone(samples),
				func(s sample.Sample) bool { return slices.Contains(gone, s.Index) })
		}
		if err := w.store.Overwrite(ctx, cell, samples); err != nil {
			return err
		}
		if err := w.store.PutFiles(ctx, w.task.Generator, samples); err != nil {
			return err
		}
	}
	return w.store.Commit(ctx, cell, *r, p.place, last)
}

type output struct {
	domain  string
	samples []sample.Sample
	result  generator.Result
	seed    int
	attempt int
}

// produce runs the generator until its output is complete. When memory or disk were short it is run again with half as
// many others beside it, in the end alone: only then they count as too little. When the generator itself fails it runs
// again alone; if it fails alike and neither was short, the next of three seeds is tried: a disturbance changes none.
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
	return &store.Receipt{
		Dataset: w.task.Dataset, Generator: w.task.Generator, Commit: w.generator.Commit, Image: w.config.Image,
		RunID: w.task.RunID, Options: w.task.Options, Lock: w.generator.Lock, Python: w.generator.Version,
		Platform: w.generator.Platform, RunSeed: w.task.Seed, ChunkSize: w.task.ChunkSize, PartSize: w.task.PartSize,
		ChunkStart: c.First(), Seed: o.seed, Attempt: o.attempt, FirstAttempt: c.Attempt, Command: o.result.Command,
		Start: p.keep[0], End: p.keep[len(p.keep)-1] + 1, Indices: c.Indices, Epoch: cell.Epoch, ReadFrom: cell.Key(),
		Format: w.task.Format, Domain: o.domain, Samples: o.samples, CPUSeconds: o.result.CPU.Seconds(),
		WallSeconds: o.result.Wall.Seconds(), PeakRSSBytes: o.result.PeakRSS, RequestID: d.requestID,
		MessageID: d.firstID, Receives: d.earlier + d.receives, Committed: time.Now().UTC(),
	}
}
