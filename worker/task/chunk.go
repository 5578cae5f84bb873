package task

import (
	"fmt"
	"slices"
)

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
