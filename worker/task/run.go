package task

import (
	"cmp"
	"fmt"
	"slices"
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
func (r Run) Chunk(g RunGenerator) int { return cmp.Or(g.ChunkSize, r.ChunkSize) }

// BatchOf returns how many samples a task of a generator of the run has.
func (r Run) BatchOf(g RunGenerator) int { return cmp.Or(g.Batch, r.Batch) }

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

// Range is a half-open range of sample indices: Start is in it, End is not.
type Range struct {
	Start int `json:"start"`
	End   int `json:"end"`
}

// Len returns the number of indices in r.
func (r Range) Len() int { return max(0, r.End-r.Start) }

// Overlaps reports whether r and o share an index.
func (r Range) Overlaps(o Range) bool { return r.Start < o.End && o.Start < r.End }

// Contains reports whether o lies wholly in r.
func (r Range) Contains(o Range) bool { return r.Start <= o.Start && o.End <= r.End }

// String writes the range as keys do: first and last index, 8 digits each.
func (r Range) String() string { return fmt.Sprintf("%08d_%08d", r.Start, r.End-1) }

// Chunk is the unit of generation, retry and commit: one generator process.
type Chunk struct {
	Number  int   // place on the grid
	Cell    Range // [Number*size, (Number+1)*size): what the generator makes, unless there are Indices
	Keep    Range // what the task asked for of it; most often the whole cell
	Indices []int // a repair: the places its samples take, which Keep spans
	Attempt int   // of a repair: part of its name
}

// First is the index of the generator's first sample.
func (c Chunk) First() int {
	if c.Indices != nil {
		return c.Indices[0]
	}
	return c.Cell.Start
}

// Count is the number of samples the generator is asked for.
func (c Chunk) Count() int {
	if c.Indices != nil {
		return len(c.Indices)
	}
	return c.Cell.Len()
}

// Kept returns the indices of the samples that are kept, in order.
func (c Chunk) Kept() []int {
	if c.Indices != nil {
		return c.Indices
	}
	kept := make([]int, 0, c.Keep.Len())
	for i := c.Keep.Start; i < c.Keep.End; i++ {
		kept = append(kept, i)
	}
	return kept
}

// Name is the chunk's part of the names of shards and failure reports.
func (c Chunk) Name() string {
	if c.Indices != nil {
		return fmt.Sprintf("%s_r%d_%s", c.Keep, c.Attempt, IndicesHash(c.Indices))
	}
	return c.Keep.String()
}

// Seed returns the seed the generator gets for this chunk of t at an attempt.
func (c Chunk) Seed(t Task, attempt int) int {
	if c.Indices != nil {
		return RepairSeed(t.Options.Namespace(t.Generator), t.Seed, attempt, c.Indices)
	}
	return Seed(t.Options.Namespace(t.Generator), t.Seed, c.Cell.Len(), c.Number, attempt)
}

// Chunks cuts a task along the grid of its chunk size. A task that starts or ends inside a cell still runs the whole
// cell, because the output of some generators depends on how many samples they are asked for, and keeps its part. A
// repair has a chunk in each cell that it has indices in.
func (t Task) Chunks() (chunks []Chunk) {
	all := t.Range()
	for k := all.Start / t.ChunkSize; k*t.ChunkSize < all.End; k++ {
		c := Chunk{Number: k, Cell: Range{k * t.ChunkSize, (k + 1) * t.ChunkSize}}
		c.Keep = Range{max(c.Cell.Start, all.Start), min(c.Cell.End, all.End)}
		if t.Indices != nil {
			first, _ := slices.BinarySearch(t.Indices, c.Cell.Start)
			end, _ := slices.BinarySearch(t.Indices, c.Cell.End)
			if first == len(t.Indices) {
				break
			}
			if first == end { // on to the cell of the next one
				k = t.Indices[first]/t.ChunkSize - 1
				continue
			}
			c.Indices, c.Attempt = t.Indices[first:end:end], t.Attempt
			c.Keep = Range{c.Indices[0], c.Indices[len(c.Indices)-1] + 1}
		}
		chunks = append(chunks, c)
	}
	return chunks
}

// Parts cuts a chunk of t into those that a generator makes in one process: the chunk itself unless t has a part size,
// else chunks of the finer grid of that size, which is why it must divide the chunk size. Their seeds are those of a
// run with that chunk size.
func (t Task) Parts(c Chunk) []Chunk {
	if t.PartSize == 0 || c.Indices != nil {
		return []Chunk{c}
	}
	t = t.Part(c.Keep)
	t.ChunkSize, t.PartSize = t.PartSize, 0
	return t.Chunks()
}

// Part returns the task for a part of t's range: what a worker sends on when
// its time is up, or the gaps that are sent again. Seed and run stay.
func (t Task) Part(r Range) Task {
	if t.Indices == nil {
		t.StartIndex, t.NumSamples = r.Start, r.Len()
		return t
	}
	t.Indices = slices.DeleteFunc(slices.Clone(t.Indices), func(index int) bool {
		return index < r.Start || index >= r.End
	})
	return t
}
