package task

import (
	"fmt"
	"time"
)

// Run is what one `ops submit` wrote down: what it makes of a dataset, whose seed, format and chunk sizes it has. It is
// stored under RunKey before the first task is sent.
type Run struct {
	ID         string         `json:"id"`
	Dataset    Dataset        `json:"dataset,omitzero"`
	Created    time.Time      `json:"created"`
	Seed       int            `json:"seed"`
	Start      int            `json:"start"`   // first index of every generator
	Samples    int            `json:"samples"` // per generator
	Batch      int            `json:"batch"`
	ChunkSize  int            `json:"chunk_size"`
	Format     Format         `json:"output_format"`
	Missing    bool           `json:"missing,omitempty"` // only what had no receipt was sent
	Generators []RunGenerator `json:"generators"`
	Image      string         `json:"image,omitempty"`
	Version    string         `json:"version,omitempty"` // of ops
	// what was replayed in parts of chunks, and is no part of the plan
	Parts []RunPart `json:"parts,omitempty"`
}

// RunPart is a range of a run that was sent again, to be made with fewer samples
// per process than its chunks have: they took too long, or too much.
type RunPart struct {
	Generator string `json:"generator"`
	Range
	PartSize int       `json:"part_size"`
	Time     time.Time `json:"time"`
}

// Note adds a part, unless it is there. It reports whether it has added it.
func (r *Run) Note(p RunPart) bool {
	for _, there := range r.Parts {
		if there.Generator == p.Generator && there.Range == p.Range && there.PartSize == p.PartSize {
			return false
		}
	}
	r.Parts = append(r.Parts, p)
	return true
}

// RunGenerator is one generator of a run.
type RunGenerator struct {
	Name      string  `json:"name"`
	Commit    string  `json:"commit,omitempty"`
	Lock      string  `json:"lock,omitempty"`       // hash of its locked requirements
	ChunkSize int     `json:"chunk_size,omitempty"` // where it is not the run's
	Batch     int     `json:"batch,omitempty"`      // where it is not the run's
	Options   Options `json:"options,omitempty"`
	Missing   []Range `json:"missing,omitempty"` // with Run.Missing: the ranges that were sent
	Repairs   []Task  `json:"repairs,omitempty"` // sent beside them: repair tasks, and tasks that restore
}

// NewRunID returns an id that sorts by time, which is how a repair knows
// what came later: the UTC time to the millisecond and a random part.
func NewRunID(now time.Time, random uint32) string {
	return fmt.Sprintf("%s-%08x", now.UTC().Format("20060102t150405.000"), random)
}

// Range returns the indices each generator of the run covers.
func (r Run) Range() Range { return Range{r.Start, r.Start + r.Samples} }

// Chunk returns the chunk size a generator of the run uses.
func (r Run) Chunk(g RunGenerator) int {
	if g.ChunkSize > 0 {
		return g.ChunkSize
	}
	return r.ChunkSize
}

// BatchOf returns how many samples a task of a generator of the run has.
func (r Run) BatchOf(g RunGenerator) int {
	if g.Batch > 0 {
		return g.Batch
	}
	return r.Batch
}

// Plan cuts the run into its tasks, in rounds over the generators: so a run makes progress on each from the start and
// one that fails shows early. The same run always gives the same list: a task is known by its place in it.
func (r Run) Plan() []Task {
	perGenerator := make([][]Task, len(r.Generators))
	rounds, total := 0, 0
	for i, g := range r.Generators {
		ranges := []Range{r.Range()}
		if r.Missing {
			ranges = g.Missing
		}
		count, batch := len(g.Repairs), r.BatchOf(g)
		for _, r := range ranges {
			count += (r.Len() + batch - 1) / batch
		}
		perGenerator[i] = make([]Task, 0, count) // a large run has half a million
		total += count
		for _, all := range ranges {
			for start := all.Start; start < all.End; start += batch {
				perGenerator[i] = append(perGenerator[i], Task{Dataset: r.Dataset, Generator: g.Name, StartIndex: start,
					NumSamples: min(batch, all.End-start), Seed: r.Seed, Format: r.Format, RunID: r.ID, ChunkSize: r.Chunk(g),
					Options: g.Options})
			}
		}
		for _, t := range g.Repairs {
			t.RunID, t.Dataset = r.ID, r.Dataset
			perGenerator[i] = append(perGenerator[i], t)
		}
		rounds = max(rounds, len(perGenerator[i]))
	}
	tasks := make([]Task, 0, total)
	for n := range rounds {
		for _, list := range perGenerator {
			if n < len(list) {
				tasks = append(tasks, list[n])
			}
		}
	}
	return tasks
}
