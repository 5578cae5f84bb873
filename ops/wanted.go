package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// wanted are the flags that say what a run makes.
type wanted struct {
	choice
	Samples int    `help:"Samples per generator." placeholder:"N"`
	Batch   *int   `help:"Samples per task, 1 to 1000; a multiple of the chunk size wastes nothing. Default: what keeps all CPUs of a worker at work to the end of a task, about 600." placeholder:"N"`
	Chunk   *int   `help:"Samples per generator process, the unit of retry and commit, 1 to 1000. The dataset keeps what a generator began with; at first, what the catalogue says, else 50 for ${large_run} samples and more, 20 for fewer." placeholder:"N"`
	Seed    *int   `help:"Seed of the dataset, which keeps it; at first, 42." placeholder:"N"`
	Format  string `help:"How samples are stored: one object per file (files), or one tar.gz per chunk (tar). The dataset keeps what it began with; at first, files." enum:",files,tar" default:"" placeholder:"FORMAT"`
	Start   int    `help:"First sample index." default:"0"`

	UpdateGenerators bool `help:"Take newer commits of the generators into the dataset: what is committed keeps its own."`
}

func (p *wanted) check() error {
	switch {
	case !p.given():
		return ui.Usage("say which generators: --all, or --generator NAME")
	case p.Batch != nil && (*p.Batch < 1 || *p.Batch > task.MaxSamples):
		return ui.Usage("--batch is %d, it must be from 1 to %d", *p.Batch, task.MaxSamples)
	case p.Chunk != nil && (*p.Chunk < 1 || *p.Chunk > task.MaxSamples):
		return ui.Usage("--chunk is %d, it must be from 1 to %d", *p.Chunk, task.MaxSamples)
	case p.Seed != nil && (*p.Seed < 0 || *p.Seed > task.MaxSeed):
		return ui.Usage("--seed is %d, it must be from 0 to %d", *p.Seed, task.MaxSeed)
	}
	return p.checkExtent("", p.Samples, p.Start)
}

// checkExtent checks flags that say which samples a command is about: those of a run,
// or so many of the chosen generators.
func (c *choice) checkExtent(run string, samples, start int) error {
	switch {
	case run != "" && c.given():
		return ui.Usage("--run says which generators: leave --all and --generator out")
	case c.given() && samples < 1:
		return ui.Usage("say how many samples per generator: --samples N, at least 1")
	case !c.given() && (samples != 0 || start != 0):
		return ui.Usage("say which generators: --all, or --generator NAME")
	case start < 0 || samples > task.MaxIndex || start > task.MaxIndex-samples:
		return ui.Usage("the samples must lie between index 0 and %d", task.MaxIndex-1)
	}
	return nil
}

// shape are the flags of how a run is made, as they were given, and its format where
// that is not the default.
func (p *wanted) shape(run task.Run) string {
	s := ""
	if p.Batch != nil {
		s += fmt.Sprintf(" --batch %d", *p.Batch)
	}
	if p.Chunk != nil {
		s += fmt.Sprintf(" --chunk %d", *p.Chunk)
	}
	if run.Format != task.Files {
		s += fmt.Sprintf(" --format %s", run.Format)
	}
	return s
}

// sayCommitted says how much of a run's range is there already, given the run
// that was narrowed to what is missing.
func (p *wanted) sayCommitted(o *Output, left task.Run) {
	done := left.Samples * len(left.Generators)
	for _, g := range left.Generators {
		done -= dataset.Length(g.Missing)
	}
	if done > 0 {
		o.Say("%s of this range are committed already and are not made again", ui.Plural(done, "sample"))
	}
}

// pin gives a run what its dataset pins, and refuses flags and commits that
// contradict it. To write is to make the dataset, or to extend it by what the run
// asks for; else it is only looked at.
func (p *wanted) pin(ctx context.Context, st *store.Store, run *task.Run, write bool) error {
	_, err := st.ChangeManifest(ctx, func(m *task.Manifest) (*task.Manifest, error) {
		changed := m == nil
		if m == nil {
			first := task.NewManifest(st.Dataset(), run.Seed, run.Format)
			m = &first
		}
		var wrong []error
		if p.Seed != nil {
			wrong = append(wrong, m.CheckSeed(*p.Seed))
		}
		if p.Format != "" {
			wrong = append(wrong, m.CheckFormat(task.Format(p.Format)))
		}
		run.Dataset, run.Seed, run.Format = st.Dataset(), m.Seed, m.Format
		names := make([]string, len(run.Generators))
		for i := range run.Generators {
			g := &run.Generators[i]
			g.ChunkSize = run.Chunk(*g)
			pinned := task.PinnedGenerator{Name: g.Name, ChunkSize: g.ChunkSize, Commit: g.Commit, Lock: g.Lock}
			if p.Chunk != nil && *p.Chunk == g.ChunkSize { // else it is the catalogue's
				wrong = append(wrong, m.CheckChunk(g.Name, *p.Chunk))
			}
			if p.UpdateGenerators {
				changed = m.Update(pinned) || changed
			}
			wrong = append(wrong, m.CheckCommit(pinned))
			changed = m.Add(pinned) || changed
			changed = m.Learn(pinned) || changed
			g.ChunkSize, names[i] = m.Generator(g.Name).ChunkSize, g.Name
		}
		for _, err := range wrong {
			if err != nil {
				return nil, err
			}
		}
		if changed = m.Ask(run.Range(), names) || changed; !write || !changed {
			return nil, nil
		}
		return m, nil
	})
	if wrong, ok := errors.AsType[*task.ContradictionError](err); ok {
		return ui.WithHint(err, "%s", wrong.Way())
	}
	return err
}

// run is the run that the flags and the chosen generators make: not cut into tasks
// yet, for the dataset may have other chunks.
func (p *wanted) run(chosen []generator.Generator, costs map[string]plan.Cost) task.Run {
	now := time.Now().UTC()
	run := task.Run{
		ID: task.NewRunID(now, rand.Uint32()), Created: now, Seed: task.DefaultSeed, Start: p.Start, Samples: p.Samples,
		Format: cmp.Or(task.Format(p.Format), task.Files), Version: version(),
	}
	if p.Seed != nil {
		run.Seed = *p.Seed
	}
	for _, g := range chosen {
		x := task.RunGenerator{Name: g.Name, Commit: g.Commit, Lock: g.Lock, ChunkSize: g.ChunkSize}
		switch {
		case x.ChunkSize > 0: // the catalogue's
		case p.Chunk != nil:
			x.ChunkSize = *p.Chunk
		default:
			x.ChunkSize, _ = plan.ChunkSize(costs[g.Name], p.Samples)
		}
		run.Generators = append(run.Generators, x)
	}
	return run
}

// cut decides how many samples a task of each generator has. The run says what most
// of them have.
func (p *wanted) cut(run *task.Run, costs map[string]plan.Cost, s plan.Setting) {
	batches, chunks := map[int]int{}, map[int]int{}
	for i := range run.Generators {
		g := &run.Generators[i]
		if p.Batch != nil {
			g.Batch = *p.Batch
		} else {
			g.Batch = s.Batch(costs[g.Name], g.ChunkSize, run.Samples*len(run.Generators))
		}
		batches[g.Batch]++
		chunks[g.ChunkSize]++
	}
	run.Batch, run.ChunkSize = most(batches), most(chunks)
	for i := range run.Generators {
		if g := &run.Generators[i]; g.Batch == run.Batch {
			g.Batch = 0
		}
		if g := &run.Generators[i]; g.ChunkSize == run.ChunkSize {
			g.ChunkSize = 0
		}
	}
}

// most is the number that is counted most often, the smallest of equals.
func most(counts map[int]int) int {
	return slices.MaxFunc(slices.Sorted(maps.Keys(counts)), func(a, b int) int { return counts[a] - counts[b] })
}

// knownCosts is what generators were measured to take. What cannot be read is not known.
func knownCosts(o *Output) map[string]plan.Cost {
	costs, err := plan.LoadCosts(o.LocalDir)
	if err != nil {
		o.Say("note: %v", err)
	}
	return costs
}
