// Package dataset says what is true of the samples in a bucket: which receipt
// describes each, what is missing, damaged or there twice, and what has to be
// sent to mend it.
package dataset

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// View is what the cells of one generator say of a range of indices. It takes about 100
// bytes for each sample, and 200 for each receipt.
type View struct {
	Generator string
	Range     task.Range
	Drawn     int // samples that were made for the range, those that were replaced since included
	Attempt   int // highest attempt of a repair

	held  table
	seen  map[mark]int32    // how often each puzzle was drawn
	order map[string]int32  // receipts by id, in the order they were added, from 1
	cells map[string]string // ETags of the cells that were read, by key
}

// mark stands for a fingerprint.
type mark [16]byte

func markOf(fingerprint string) mark {
	sum := sha256.Sum256([]byte(fingerprint))
	return mark(sum[:])
}

// holder is the receipt that describes an index, and what it says of it.
type holder struct {
	mark    mark
	bytes   int64
	objects uint64 // sum over the hashes of the objects there should be
	receipt int32  // its place in View.order; 0 for nobody
	round   int32  // 0 for a chunk, 1 and more for a repair: a later round has the later sample
}

// table keeps a holder for each index, in pages: a map of single ones would take
// twice the memory.
type table struct {
	pages map[int]*page
	n     int // indices that are held
}

type page [1024]holder

// get returns the holder of an index, and whether it has one.
func (t *table) get(index int) (holder, bool) {
	p := t.pages[index/len(page{})]
	if p == nil {
		return holder{}, false
	}
	h := p[index%len(page{})]
	return h, h.receipt > 0
}

func (t *table) set(index int, h holder) {
	p := t.pages[index/len(page{})]
	if p == nil {
		p = &page{}
		t.pages[index/len(page{})] = p
	}
	at := &p[index%len(page{})]
	switch was, is := at.receipt > 0, h.receipt > 0; {
	case is && !was:
		t.n++
	case was && !is:
		t.n--
	}
	*at = h
}

// all returns every index that is held, in order.
func (t *table) all() iter.Seq2[int, holder] {
	return func(yield func(int, holder) bool) {
		for _, n := range slices.Sorted(maps.Keys(t.pages)) {
			for i, h := range t.pages[n] {
				if h.receipt > 0 && !yield(n*len(page{})+i, h) {
					return
				}
			}
		}
	}
}

// NewView returns a view of nothing yet.
func NewView(generator string, r task.Range) *View {
	return &View{Generator: generator, Range: r, held: table{pages: map[int]*page{}}, seen: map[mark]int32{},
		order: map[string]int32{}, cells: map[string]string{}}
}

// Read adds the cells that have changed since the last Read. It fails on one that is
// damaged: what is counted beside it could be wrong.
func (v *View) Read(ctx context.Context, st *store.Store) error {
	all, err := st.CellNames(ctx, v.Generator, v.Range)
	if err != nil {
		return err
	}
	var names []store.CellName
	for _, n := range all {
		if v.cells[n.Key] != n.ETag {
			v.cells[n.Key] = n.ETag
			names = append(names, n)
		}
	}
	for c, err := range st.Cells(ctx, names) {
		if err != nil {
			clear(v.cells)
			return err
		}
		v.Add(c)
	}
	return nil
}

// Covered is what is committed of some range: see Coverage.
type Covered struct {
	Names  []store.CellName // of all cells that overlap the range
	Ranges []task.Range     // that are committed, in order
}

// Coverage finds out what of a generator's range is committed, without reading
// cells that are complete or empty: one request for each 1,000 cells, and one for each
// that is partly committed. What known has of such a cell, by its ETag, is not read
// again; it may be nil.
func Coverage(ctx context.Context, st *store.Store, generator string, r task.Range,
	known map[string][]task.Range) (Covered, error) {
	var c Covered
	var partial []store.CellName
	var err error
	if c.Names, err = st.CellNames(ctx, generator, r); err != nil {
		return c, err
	}
	for _, n := range c.Names {
		if ranges, ok := known[n.ETag]; ok || n.State == store.Complete {
			c.Ranges = append(c.Ranges, ranges...)
			if !ok {
				c.Ranges = append(c.Ranges, n.Range)
			}
		} else if n.State == store.Partial {
			partial = append(partial, n)
		}
	}
	for cell, err := range st.Cells(ctx, partial) {
		if err != nil {
			return c, err
		}
		ranges := runs(cell.Committed())
		if known != nil {
			known[cell.ETag()] = ranges
		}
		c.Ranges = append(c.Ranges, ranges...)
	}
	slices.SortFunc(c.Ranges, func(a, b task.Range) int { return a.Start - b.Start })
	return c, nil
}

// runs are the ranges that sorted indices make.
func runs(indices []int) (list []task.Range) {
	for _, i := range indices {
		if n := len(list); n > 0 && list[n-1].End == i {
			list[n-1].End++
		} else {
			list = append(list, task.Range{Start: i, End: i + 1})
		}
	}
	return list
}

// CoverageOf is the coverage of each generator of a run, several at a time.
func CoverageOf(ctx context.Context, st *store.Store, run task.Run) ([]Covered, error) {
	list := make([]Covered, len(run.Generators))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, g := range run.Generators {
		group.Go(func() (err error) {
			list[i], err = Coverage(ctx, st, g.Name, run.Range(), nil)
			return err
		})
	}
	return list, group.Wait()
}

// Add takes a cell in, in place of what it was before.
func (v *View) Add(c *store.Cell) {
	v.add(c, func(store.Receipt, store.ReceiptSample) uint64 { return 0 })
}

// add takes a cell in; objects returns the sum of a sample's.
func (v *View) add(c *store.Cell, objects func(store.Receipt, store.ReceiptSample) uint64) {
	within := func(index int) bool { return v.Range.Start <= index && index < v.Range.End }
	for i := c.Start; i < c.End; i++ {
		if _, there := v.held.get(i); there {
			v.held.set(i, holder{})
		}
	}
	for _, r := range c.Receipts {
		place := v.order[r.ID()]
		if place == 0 {
			place = int32(len(v.order) + 1)
			v.order[r.ID()] = place
			for _, s := range r.Samples {
				if within(s.Index) {
					v.Drawn++
					v.seen[markOf(s.Fingerprint)]++
				}
			}
		}
		round := 0
		if r.Indices != nil {
			round = 1 + r.FirstAttempt
			v.Attempt = max(v.Attempt, r.FirstAttempt, r.Attempt)
		}
		for _, s := range r.Current {
			if !within(s.Index) {
				continue
			}
			h := holder{mark: markOf(s.Fingerprint), receipt: place, round: int32(round), objects: objects(r, s)}
			for _, f := range s.Files {
				h.bytes += f.Size
			}
			v.held.set(s.Index, h)
		}
	}
}

// Samples returns how many indices of the range are committed.
func (v *View) Samples() int { return v.held.n }

// Bounds returns the first and the last index that is committed, or -1 and -1.
func (v *View) Bounds() (first, last int) {
	first, last = -1, -1
	for i := range v.held.all() {
		if first < 0 {
			first = i
		}
		last = i
	}
	return first, last
}

// Bytes returns the size of the samples' files.
func (v *View) Bytes() int64 {
	var n int64
	for _, h := range v.held.all() {
		n += h.bytes
	}
	return n
}

// Missing returns the ranges that are not committed.
func (v *View) Missing() []task.Range {
	var missing []int
	for i := v.Range.Start; i < v.Range.End; i++ {
		if _, there := v.held.get(i); !there {
			missing = append(missing, i)
		}
	}
	return runs(missing)
}

// Duplicate is a sample that is the same puzzle as an earlier one.
type Duplicate struct {
	Index int `json:"index"`
	Of    int `json:"of"`
}

// Duplicates returns the later ones of equal samples, by index. What a repair has
// made is later than what it was compared with, and of the rest the higher index.
func (v *View) Duplicates() []Duplicate {
	type sample struct {
		round, index int
		mark         mark
	}
	var samples []sample
	for i, h := range v.held.all() {
		if v.seen[h.mark] > 1 {
			samples = append(samples, sample{int(h.round), i, h.mark})
		}
	}
	slices.SortFunc(samples, func(a, b sample) int { return cmp.Or(a.round-b.round, a.index-b.index) })
	first := make(map[mark]int, len(samples))
	var list []Duplicate
	for _, s := range samples {
		if of, again := first[s.mark]; again {
			list = append(list, Duplicate{Index: s.index, Of: of})
		} else {
			first[s.mark] = s.index
		}
	}
	slices.SortFunc(list, func(a, b Duplicate) int { return a.Index - b.Index })
	return list
}

// Alike returns how many receipts describe the very samples that another one does,
// in the same order, and how many there are. Receipts that describe fewer than two
// samples are left out, and so are repairs.
func (v *View) Alike() (alike, receipts int) {
	type chunk struct {
		hash    uint64
		samples int
	}
	chunks := map[int32]chunk{}
	for _, h := range v.held.all() {
		if h.round > 0 {
			continue
		}
		c := chunks[h.receipt]
		sum := fnv.New64a()
		_ = binary.Write(sum, binary.BigEndian, c.hash)
		_, _ = sum.Write(h.mark[:])
		chunks[h.receipt] = chunk{sum.Sum64(), c.samples + 1}
	}
	same := map[chunk]int{}
	for _, c := range chunks {
		if c.samples > 1 {
			same[c]++
			receipts++
		}
	}
	for _, n := range same {
		if n > 1 {
			alike += n
		}
	}
	return alike, receipts
}

// Spans writes ranges as first-last, for people.
func Spans(list []task.Range) []string {
	var texts []string
	for _, r := range list {
		texts = append(texts, fmt.Sprintf("%d-%d", r.Start, r.End-1))
	}
	return texts
}

// Find returns the receipt that describes a sample, and what it says of it, or
// store.ErrNotFound.
func Find(ctx context.Context, st *store.Store, generator string, index int) (store.Receipt, store.ReceiptSample,
	error) {
	list, err := st.Receipts(ctx, generator, task.Range{Start: index, End: index + 1})
	if err != nil {
		return store.Receipt{}, store.ReceiptSample{}, err
	}
	for _, r := range list {
		for _, s := range r.Current {
			if s.Index == index {
				return r, s, nil
			}
		}
	}
	return store.Receipt{}, store.ReceiptSample{}, fmt.Errorf("sample %d of %s: %w", index, generator, store.ErrNotFound)
}
