package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Cell is one cell of a generator's grid: who works on it, and what of it is
// committed. It is one object, and each change of it a compare-and-swap: who has lost
// the cell can change nothing.
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

// State is what a listing shows of a cell: the size of its object, modulo 3. Spaces
// at its end see to that. So to count what is committed, nobody reads more than the
// cells that are Partial.
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

// Restorable returns the place of the receipt whose objects a task is to make again, or
// -1 if there is no need any more.
func (c *Cell) Restorable(t task.Task, chunk task.Chunk) int {
	place := slices.IndexFunc(c.Receipts, func(r Receipt) bool { return r.Epoch == t.Restore && r.Range() == chunk.Keep })
	if place >= 0 && len(c.Replaced(place)) == len(c.Receipts[place].Samples) {
		return -1
	}
	return place
}

// Repaired reports whether the chunk of a repair was made, or a later run has repaired
// one of its samples: what that made stays.
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

// objects are the keys of the objects that count, and of those that would but for
// Void.
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

// state is what of the cell is committed.
func (c *Cell) state() State {
	switch len(c.Committed()) {
	case 0:
		return Empty
	case c.End - c.Start:
		return Complete
	}
	return Partial
}

// Encode writes the cell as its object.
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
	if c.Holder != nil && c.Holder.Seconds > 0 { // else it has given the cell up, whatever whole seconds make of the times
		c.until = time.Now().Add(o.Modified.Sub(o.now) + seconds(c.Holder.Seconds))
	}
	return c, nil
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
