// Package runs makes the runs of a dataset, narrows them to what is missing, sends their tasks and waits for them.
package runs

import (
	"cmp"
	"context"
	"errors"
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

// Order says what a run should make. The dataset decides about what is nil or empty.
type Order struct {
	Start, Samples   int
	Batch            *int // samples per task
	Chunk            *int // samples per generator process
	Seed             *int
	Format           task.Format
	Options          map[string]task.Options // of generators, that the dataset must have
	UpdateGenerators bool                    // accept newer commits of the generators
	Version          string                  // of the program
}

// New returns a run of the chosen generators. Pin and Cut complete it.
func (p *Order) New(chosen []generator.Generator, costs map[string]plan.Cost) task.Run {
	now := time.Now().UTC()
	run := task.Run{
		ID: task.NewRunID(now, rand.Uint32()), Created: now, Seed: task.DefaultSeed, Start: p.Start, Samples: p.Samples,
		Format: cmp.Or(p.Format, task.Files), Version: p.Version,
	}
	if p.Seed != nil {
		run.Seed = *p.Seed
	}
	for _, g := range chosen {
		x := task.RunGenerator{Name: g.Name, Commit: g.Commit, Lock: g.Lock, ChunkSize: g.ChunkSize, Options: g.Options}
		if p.Chunk != nil {
			x.ChunkSize = *p.Chunk
		} else if x.ChunkSize == 0 { // nor does the catalogue say one
			x.ChunkSize, _ = plan.ChunkSize(costs[g.Name], p.Samples)
		}
		run.Generators = append(run.Generators, x)
	}
	return run
}

// Pin gives a run what its dataset pins, and refuses orders and commits that contradict it. With write it makes the
// dataset, or extends it by what the run asks for. exists reports whether the dataset existed before.
func (p *Order) Pin(ctx context.Context, st *store.Store, run *task.Run, write bool) (exists bool, err error) {
	_, err = st.ChangeManifest(ctx, func(m *task.Manifest) (*task.Manifest, error) {
		exists = m != nil
		changed := !exists
		if m == nil {
			first := task.NewManifest(st.Dataset(), run.Seed, run.Format)
			m = &first
		}
		var wrong []error
		if p.Seed != nil {
			wrong = append(wrong, m.CheckSeed(*p.Seed))
		}
		if p.Format != "" {
			wrong = append(wrong, m.CheckFormat(p.Format))
		}
		run.Dataset, run.Seed, run.Format = st.Dataset(), m.Seed, m.Format
		names := make([]string, len(run.Generators))
		for i := range run.Generators {
			g := &run.Generators[i]
			g.ChunkSize = run.Chunk(*g)
			pinned := task.PinnedGenerator{Name: g.Name, ChunkSize: g.ChunkSize, Options: g.Options, Commit: g.Commit,
				Lock: g.Lock}
			if p.Chunk != nil {
				wrong = append(wrong, m.CheckChunk(g.Name, *p.Chunk))
			}
			if p.UpdateGenerators {
				changed = m.Update(pinned) || changed
			}
			wrong = append(wrong, m.CheckCommit(pinned))
			changed = m.Add(pinned) || changed
			changed = m.Learn(pinned) || changed
			there := m.Generator(g.Name)
			wrong = append(wrong, m.CheckOptions(g.Name, there.Options.With(p.Options[g.Name])))
			g.ChunkSize, g.Options, names[i] = there.ChunkSize, there.Options, g.Name
		}
		if err := cmp.Or(wrong...); err != nil {
			return nil, err
		}
		if changed = m.Ask(run.Range(), names) || changed; !write || !changed {
			return nil, nil
		}
		return m, nil
	})
	if wrong, ok := errors.AsType[*task.ContradictionError](err); ok {
		return exists, ui.WithHint(err, "%s", wrong.Way())
	}
	return exists, err
}

// Cut decides how many samples a task of each generator has. The run names what most generators have.
func (p *Order) Cut(run *task.Run, costs map[string]plan.Cost, s plan.Setting) {
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

// most returns the number that is counted most often, the smallest of equals.
func most(counts map[int]int) int {
	return slices.MaxFunc(slices.Sorted(maps.Keys(counts)), func(a, b int) int { return counts[a] - counts[b] })
}

// Follow returns a new run over the range of an earlier one, without tasks until it is narrowed or repairs are added.
func Follow(old task.Run) task.Run {
	run := old
	run.ID, run.Created, run.Missing = task.NewRunID(time.Now(), rand.Uint32()), time.Now().UTC(), true
	run.Generators = slices.Clone(old.Generators)
	for i := range run.Generators {
		run.Generators[i].Missing, run.Generators[i].Repairs = nil, nil
	}
	return run
}

// SetCommits gives a run the present commits and locks of its generators.
func SetCommits(run *task.Run, list []generator.Generator) {
	for i := range run.Generators {
		g := &run.Generators[i]
		g.Commit, g.Lock = "", "" // not known
		if now := slices.IndexFunc(list, func(x generator.Generator) bool { return x.Name == g.Name }); now >= 0 {
			g.Commit, g.Lock = list[now].Commit, list[now].Lock
		}
	}
}

// Committed returns how many samples of a run that was narrowed have a receipt.
func Committed(left task.Run) int {
	done := left.Samples * len(left.Generators)
	for _, g := range left.Generators {
		done -= dataset.Length(g.Missing)
	}
	return done
}

// CountSamples returns how many samples tasks ask for.
func CountSamples(tasks []task.Task) int {
	n := 0
	for _, t := range tasks {
		n += t.Count()
	}
	return n
}
