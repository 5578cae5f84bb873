package task

import "fmt"

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
	Cell    Range // what the generator makes: [Number*size, (Number+1)*size)
	Keep    Range // what the task asked for of it; most often the whole cell
	Indices []int // a repair: the places its samples take; Number means nothing then, and Cell is what they span
	Attempt int   // of a repair: part of its name
	Size    int   // of the grid's cells
}

// Cells returns the cells of the grid that the chunk writes to.
func (c Chunk) Cells() []Range {
	if c.Indices == nil {
		return []Range{c.Cell}
	}
	var cells []Range
	for _, index := range c.Indices {
		start := index / c.Size * c.Size
		if len(cells) == 0 || cells[len(cells)-1].Start != start {
			cells = append(cells, Range{start, start + c.Size})
		}
	}
	return cells
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

// Name is the range part of the keys of the chunk's receipt and shard.
func (c Chunk) Name() string {
	if c.Indices != nil {
		return fmt.Sprintf("%s_r%d_%s", c.Keep, c.Attempt, IndicesHash(c.Indices))
	}
	return c.Keep.String()
}

// Seed returns the seed the generator gets for this chunk of t at an attempt.
func (c Chunk) Seed(t Task, attempt int) int {
	if c.Indices != nil {
		return RepairSeed(t.Generator, t.Seed, attempt, c.Indices)
	}
	return Seed(t.Generator, t.Seed, c.Cell.Len(), c.Number, attempt)
}

// Chunks cuts a task along the grid of its chunk size. A task that starts or
// ends inside a cell still runs the whole cell, because the output of some
// generators depends on how many samples they are asked for, and keeps its
// part. A repair task is a single chunk.
func (t Task) Chunks() []Chunk {
	if t.Indices != nil {
		r := t.Range()
		return []Chunk{{Cell: r, Keep: r, Indices: t.Indices, Attempt: t.Attempt, Size: t.ChunkSize}}
	}
	all := t.Range()
	var chunks []Chunk
	for k := all.Start / t.ChunkSize; k*t.ChunkSize < all.End; k++ {
		cell := Range{k * t.ChunkSize, (k + 1) * t.ChunkSize}
		keep := Range{max(cell.Start, all.Start), min(cell.End, all.End)}
		chunks = append(chunks, Chunk{Number: k, Cell: cell, Keep: keep, Size: t.ChunkSize})
	}
	return chunks
}

// Parts cuts a chunk of t into those that a generator makes in one process: the
// chunk itself unless t has a part size, else chunks of the finer grid of that
// size, which is why it must divide the chunk size. Their seeds are those of a run
// with that chunk size.
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
	t.StartIndex, t.NumSamples, t.Indices = r.Start, r.Len(), nil
	return t
}
