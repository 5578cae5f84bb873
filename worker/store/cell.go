package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Cell is one cell of a generator's grid: who works on it, and what of it is committed. It is one object, changed by
// compare-and-swap: who has lost the cell can change nothing.
type Cell struct {
	Version   int          `json:"version"`
	Dataset   task.Dataset `json:"dataset,omitzero"`
	Generator string       `json:"generator"`
	Start     int          `json:"start"`
	End       int          `json:"end"`              // exclusive
	Epoch     int          `json:"epoch"`            // how often it was taken
	Holder    *Holder      `json:"holder,omitempty"` // nil once the last one was done with it
	Void      []int        `json:"void,omitempty"`   // committed samples that are being overwritten: they do not count
	Receipts  []Receipt    `json:"receipts"`         // of two that hold a sample, the later one describes it

	key   string
	etag  string
	taken bool
	stale bool      // its last holder was not done with it, and may have left objects
	until time.Time // how long the holder has it, by the clock of this machine
}

// State is what a listing shows of a cell, by its size modulo 3: only Partial cells must be read to count samples.
type State int

// The states.
const (
	Empty    State = iota // no sample is committed
	Partial               // some are
	Complete              // every one is
)

// Range returns the indices of the cell.
func (c *Cell) Range() task.Range { return task.Range{Start: c.Start, End: c.End} }

// Key is the key of the cell's object.
func (c *Cell) Key() string { return c.key }

// ETag is another one each time that the cell is changed.
func (c *Cell) ETag() string { return strings.Trim(c.etag, `"`) }

// Has reports whether a sample is committed.
func (c *Cell) Has(index int) bool {
	return slices.ContainsFunc(c.Receipts, func(r Receipt) bool { return r.Describes(index) })
}

// Committed returns the indices that are committed, in order.
func (c *Cell) Committed() (list []int) {
	for _, r := range c.Receipts {
		for _, s := range r.Current {
			list = append(list, s.Index)
		}
	}
	slices.Sort(list)
	return list
}

// Restorable returns the place of the receipt whose objects a task is to make again, or -1 if there is no need.
func (c *Cell) Restorable(t task.Task, chunk task.Chunk) int {
	place := slices.IndexFunc(c.Receipts, func(r Receipt) bool { return r.Epoch == t.Restore && r.Range() == chunk.Keep })
	if place >= 0 && len(c.Replaced(place)) == len(c.Receipts[place].Samples) {
		return -1
	}
	return place
}

// Repaired reports whether the chunk of a repair was made, or a later run has repaired one of its samples.
func (c *Cell) Repaired(t task.Task, chunk task.Chunk) bool {
	return slices.ContainsFunc(c.Receipts, func(r Receipt) bool {
		return r.Indices != nil && (r.FirstAttempt == chunk.Attempt && slices.Equal(r.Indices, chunk.Indices) ||
			t.RunID != "" && r.RunID >= t.RunID && slices.ContainsFunc(chunk.Indices, r.Describes))
	})
}

// Replaced returns the samples of a receipt that a later one holds.
func (c *Cell) Replaced(place int) (list []int) {
	for _, s := range c.Receipts[place].Samples {
		if slices.ContainsFunc(c.Receipts[place+1:], func(later Receipt) bool { return later.Holds(s.Index) }) {
			list = append(list, s.Index)
		}
	}
	return list
}

// objects are the keys of the objects that count, and of those that would but for Void.
func (c *Cell) objects() map[string]bool {
	all := Cell{Receipts: slices.Clone(c.Receipts)}
	all.settle()
	keys := map[string]bool{}
	for _, r := range all.Receipts {
		for _, key := range r.Objects() {
			keys[key] = true
		}
	}
	return keys
}

// settle finds out what each receipt describes.
func (c *Cell) settle() {
	by := map[int]int{}
	for n, r := range c.Receipts {
		for _, s := range r.Samples {
			by[s.Index] = n
		}
	}
	for _, index := range c.Void {
		delete(by, index)
	}
	for n := range c.Receipts {
		r := &c.Receipts[n]
		r.ReadFrom, r.Current = c.key, nil
		for _, s := range r.Samples {
			if at, ok := by[s.Index]; ok && at == n {
				r.Current = append(r.Current, s)
			}
		}
	}
}

func (c *Cell) state() State {
	switch len(c.Committed()) {
	case 0:
		return Empty
	case c.End - c.Start:
		return Complete
	}
	return Partial
}

// Encode writes the cell as its object, with spaces at its end for its State.
func (c *Cell) Encode() ([]byte, error) {
	c.settle()
	text, err := json.Marshal(c)
	for len(text)%3 != int(c.state()) {
		text = append(text, ' ')
	}
	return text, err
}

// ParseCell reads a cell from the text of its object. The error is ErrDamaged.
func ParseCell(key string, text []byte) (*Cell, error) {
	c := &Cell{key: key}
	err := json.Unmarshal(text, c)
	if c.settle(); err == nil && State(len(text)%3) != c.state() {
		err = errors.New("its size does not fit what is committed")
	}
	if err != nil {
		return nil, fail("read", key, fmt.Errorf("%w: %w", ErrDamaged, err))
	}
	return c, nil
}

func decode(o content) (*Cell, error) {
	c, err := ParseCell(o.Key, o.text)
	if err != nil {
		return nil, err
	}
	c.etag = o.etag
	if c.Holder != nil && c.Holder.Seconds > 0 { // else it has given the cell up, though the times have whole seconds
		c.until = time.Now().Add(o.Modified.Sub(o.now) + time.Duration(c.Holder.Seconds*float64(time.Second)))
	}
	return c, nil
}

// Cell reads one cell by its key, or returns ErrNotFound.
func (s *Store) Cell(ctx context.Context, key string) (*Cell, error) {
	o, err := s.read(ctx, key)
	if err != nil {
		return nil, err
	}
	return decode(o)
}

// CellName is what a listing shows of a cell.
type CellName struct {
	Key      string
	Range    task.Range
	State    State
	Modified time.Time // when it was written, by the store's clock
	ETag     string    // another one when it was changed
}

// CellNames lists the cells of a generator that overlap a range, in order, without reading them.
func (s *Store) CellNames(ctx context.Context, generator string, r task.Range) (names []CellName, err error) {
	prefix, after := s.dataset.CellsPrefix(generator), ""
	if from := r.Start - task.MaxSamples; from > 0 { // no cell has more
		after = fmt.Sprintf("%s%08d", prefix, from)
	}
	for o, err := range s.List(ctx, prefix, after) {
		if err != nil {
			return nil, err
		}
		cell, ok := task.CellRange(o.Key)
		if ok && cell.Start >= r.End {
			break
		}
		if ok && cell.Overlaps(r) {
			names = append(names, CellName{o.Key, cell, State(o.Size % 3), o.Modified, strings.Trim(o.etag, `"`)})
		}
	}
	return names, nil
}

// Cells reads cells in the order of their names, some at a time. One that was deleted since it was listed is left out.
// One that cannot be read is an *Error of ErrDamaged, with its key, and others follow; any other error is the last.
func (s *Store) Cells(ctx context.Context, names []CellName) iter.Seq2[*Cell, error] {
	return func(yield func(*Cell, error) bool) {
		for part := range slices.Chunk(names, 2*Parallel) {
			cells, errs := make([]*Cell, len(part)), make([]error, len(part))
			err := s.each(ctx, len(part), func(ctx context.Context, i int) error {
				cells[i], errs[i] = s.Cell(ctx, part[i].Key)
				if errors.Is(errs[i], ErrDamaged) || errors.Is(errs[i], ErrNotFound) {
					return nil
				}
				return errs[i]
			})
			if err != nil {
				yield(nil, err)
				return
			}
			for i, c := range cells {
				if !errors.Is(errs[i], ErrNotFound) && !yield(c, errs[i]) {
					return
				}
			}
		}
	}
}

// CellsIn reads the cells of a generator that overlap a range and are wanted; nil wants all.
func (s *Store) CellsIn(ctx context.Context, generator string, r task.Range,
	wanted func(task.Range) bool) iter.Seq2[*Cell, error] {
	names, err := s.CellNames(ctx, generator, r)
	if err != nil {
		return func(yield func(*Cell, error) bool) { yield(nil, err) }
	}
	return s.Cells(ctx, slices.DeleteFunc(names, func(n CellName) bool { return wanted != nil && !wanted(n.Range) }))
}

// Receipt says what one generator process has made of a cell. It is written after the objects; no others count.
type Receipt struct {
	Dataset      task.Dataset    `json:"dataset,omitzero"`
	Generator    string          `json:"generator"`
	Commit       string          `json:"commit,omitempty"`
	Image        string          `json:"image,omitempty"`
	Lock         string          `json:"lock,omitempty"`     // SHA-256 of what its packages were installed from
	Python       string          `json:"python,omitempty"`   // its version
	Platform     string          `json:"platform,omitempty"` // as in linux-x86_64
	Options      task.Options    `json:"options,omitempty"`  // of the generator
	RunID        string          `json:"run_id,omitempty"`
	RunSeed      int             `json:"run_seed"`
	ChunkSize    int             `json:"chunk_size"`
	PartSize     int             `json:"part_size,omitempty"`     // of the chunk, that one process made; 0 is all of it
	ChunkStart   int             `json:"chunk_start"`             // first index that the process made
	Seed         int             `json:"seed"`                    // that the generator was given
	Attempt      int             `json:"attempt"`                 // whose seed it was
	FirstAttempt int             `json:"first_attempt,omitempty"` // of a repair: that its task began with
	Command      []string        `json:"command"`
	Start        int             `json:"start"` // of what was kept
	End          int             `json:"end"`   // exclusive
	Indices      []int           `json:"indices,omitempty"`
	Epoch        int             `json:"epoch"` // of the cell, when it was committed
	Format       task.Format     `json:"output_format"`
	Domain       string          `json:"domain"`
	Samples      []ReceiptSample `json:"samples"`
	Shard        *Object         `json:"shard,omitempty"`
	CPUSeconds   float64         `json:"cpu_seconds"`
	WallSeconds  float64         `json:"wall_seconds"`
	PeakRSSBytes int64           `json:"peak_rss_bytes"`
	RequestID    string          `json:"request_id,omitempty"`
	MessageID    string          `json:"message_id,omitempty"`
	Receives     int             `json:"receives,omitempty"`
	Committed    time.Time       `json:"committed"`

	ReadFrom string          `json:"-"` // the key of its cell
	Current  []ReceiptSample `json:"-"` // those of Samples that no later receipt describes
}

// ReceiptSample is one sample of a receipt, and ReceiptFile one file of a sample.
type (
	ReceiptSample = sample.Sample
	ReceiptFile   = sample.File
)

// Range returns the range of what was kept, first to last.
func (r Receipt) Range() task.Range { return task.Range{Start: r.Start, End: r.End} }

// ID is unique among the receipts of a generator.
func (r Receipt) ID() string { return fmt.Sprintf("%s#%d-%d", r.ReadFrom, r.Epoch, r.Start) }

// Holds reports whether a sample is in the receipt.
func (r Receipt) Holds(index int) bool { return holds(r.Samples, index) }

// Describes reports whether a sample is now what the receipt has of it.
func (r Receipt) Describes(index int) bool { return holds(r.Current, index) }

func holds(samples []ReceiptSample, index int) bool {
	return slices.ContainsFunc(samples, func(s ReceiptSample) bool { return s.Index == index })
}

// Objects returns the keys of the data objects that the receipt vouches for.
func (r Receipt) Objects() (keys []string) {
	if len(r.Current) > 0 && r.Shard != nil {
		return []string{r.Shard.Key}
	}
	for _, s := range r.Current {
		for _, f := range s.Files {
			keys = append(keys, r.Dataset.FileKey(r.Generator, s.ID, f.Name))
		}
	}
	return keys
}

// Size returns how many files the samples have, and their bytes, as they are unpacked.
func (r Receipt) Size() (files int, bytes int64) {
	for _, s := range r.Samples {
		for _, f := range s.Files {
			files, bytes = files+1, bytes+f.Size
		}
	}
	return files, bytes
}

// Made returns how many samples the generator was asked for.
func (r Receipt) Made() int { return cmp.Or(len(r.Indices), r.PartSize, r.ChunkSize) }
