// Package dataset finds out what is true of the samples in a bucket: which receipt describes each, what is missing,
// damaged or there twice, and what has to be sent to repair it.
package dataset

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// View is what the cells of one generator have of a range of indices. It takes about 30 bytes for each sample made.
type View struct {
	Generator string
	Range     task.Range
	Attempt   int // highest attempt of a repair

	draws []draw
}

// draw is a sample that was made for an index. What a later one replaced still shows what can be made.
type draw struct {
	Made
	current bool
}

// Made is what of a sample shows whether it is a duplicate.
type Made struct {
	Puzzle [16]byte // beginning of the fingerprint's SHA-256
	Index  int32
	Round  int32 // 0 of a chunk, 1 and more of a repair: a later round has the later sample
}

// MadeOf returns what shows whether a sample of a receipt is a duplicate.
func MadeOf(r *store.Receipt, s *store.ReceiptSample) Made {
	sum := sha256.Sum256([]byte(s.Fingerprint))
	m := Made{Puzzle: [16]byte(sum[:16]), Index: int32(s.Index)}
	if r.Indices != nil {
		m.Round = int32(1 + r.FirstAttempt)
	}
	return m
}

// Read adds all cells of the range. It fails on one that is damaged: what is counted beside it could be wrong.
func (v *View) Read(ctx context.Context, st *store.Store) error {
	for c, err := range st.CellsIn(ctx, v.Generator, v.Range, nil) {
		if err != nil {
			return err
		}
		v.Add(c)
	}
	return nil
}

// CellsOf reads the cells of a generator that hold indices, which are in order.
func CellsOf(ctx context.Context, st *store.Store, generator string, indices []int) iter.Seq2[*store.Cell, error] {
	if len(indices) == 0 {
		return func(func(*store.Cell, error) bool) {}
	}
	all := task.Range{Start: indices[0], End: indices[len(indices)-1] + 1}
	return st.CellsIn(ctx, generator, all, func(cell task.Range) bool {
		at, _ := slices.BinarySearch(indices, cell.Start)
		return at < len(indices) && indices[at] < cell.End
	})
}

// Add adds a cell.
func (v *View) Add(c *store.Cell) {
	for n := range c.Receipts {
		r := &c.Receipts[n]
		if r.Indices != nil {
			v.Attempt = max(v.Attempt, r.FirstAttempt, r.Attempt)
		}
		current := r.Current // in the order of all
		for i := range r.Samples {
			s := &r.Samples[i]
			is := len(current) > 0 && current[0].Index == s.Index
			if is {
				current = current[1:]
			}
			if v.covers(s.Index) {
				v.draws = append(v.draws, draw{MadeOf(r, s), is})
			}
		}
	}
}

func (v *View) covers(index int) bool { return v.Range.Start <= index && index < v.Range.End }

// Duplicate is a sample that is the same puzzle as an earlier one.
type Duplicate struct {
	Index int `json:"index"`
	Of    int `json:"of"`
}

// Duplicates returns how many samples are committed, and the duplicates among them, by index.
func (v *View) Duplicates() (samples int, list []Duplicate) {
	var all []Made
	for _, d := range v.draws {
		if d.current {
			all = append(all, d.Made)
		}
	}
	return len(all), Duplicates(all)
}

// Duplicates returns the later ones of equal samples of a generator, by index. What a repair has made is later than
// what it was compared with, and of the rest the higher index. It sorts the samples.
func Duplicates(all []Made) (list []Duplicate) {
	slices.SortFunc(all, func(a, b Made) int { return cmp.Or(int(a.Round-b.Round), int(a.Index-b.Index)) })
	first := make(map[[16]byte]int32, len(all))
	for _, m := range all {
		if of, again := first[m.Puzzle]; again {
			list = append(list, Duplicate{Index: int(m.Index), Of: int(of)})
		} else {
			first[m.Puzzle] = m.Index
		}
	}
	slices.SortFunc(list, func(a, b Duplicate) int { return a.Index - b.Index })
	return list
}

// Partial is what is committed of a cell that is partly committed.
type Partial struct {
	etag    string
	indices []int
}

// Missing returns the ranges of a generator's samples that are not committed, and the names of all cells that overlap
// the range. It takes a request for each 1,000 cells, and one for each that is partly committed unless known, by key,
// has it unchanged. Samples of damaged cells count as not committed; the error is store.ErrDamaged then.
func Missing(ctx context.Context, st *store.Store, generator string, r task.Range,
	known map[string]Partial) ([]task.Range, []store.CellName, error) {
	names, err := st.CellNames(ctx, generator, r)
	if err != nil {
		return nil, nil, err
	}
	var unread []store.CellName
	for _, n := range names {
		if n.State != store.Partial {
			delete(known, n.Key)
		} else if known[n.Key].etag != n.ETag {
			delete(known, n.Key)
			unread = append(unread, n)
		}
	}
	var damaged error
	for c, err := range st.Cells(ctx, unread) {
		if errors.Is(err, store.ErrDamaged) {
			damaged = err
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		known[c.Key()] = Partial{c.ETag(), c.Committed()}
	}
	var committed []task.Range
	for _, n := range names {
		if n.State == store.Complete {
			committed = append(committed, n.Range)
		}
		for _, i := range known[n.Key].indices {
			committed = append(committed, task.Range{Start: i, End: i + 1})
		}
	}
	return Gaps(r, committed), names, damaged
}

// Narrow narrows a run to what of it is not committed.
func Narrow(ctx context.Context, st *store.Store, run task.Run) (task.Run, error) {
	run.Missing, run.Generators = true, slices.Clone(run.Generators)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range run.Generators {
		group.Go(func() (err error) {
			g := &run.Generators[i]
			g.Missing, _, err = Missing(ctx, st, g.Name, run.Range(), map[string]Partial{})
			return err
		})
	}
	return run, group.Wait()
}

// Length is the number of indices in ranges that do not overlap.
func Length(ranges []task.Range) (n int) {
	for _, r := range ranges {
		n += r.Len()
	}
	return n
}

// Extent formats a range, first to last, "-" for an empty one.
func Extent(r task.Range) string {
	if r.Len() == 0 {
		return "-"
	}
	return fmt.Sprintf("%d-%d", r.Start, r.End-1)
}

// Gaps returns the parts of a range that others do not cover, in order. It sorts these.
func Gaps(r task.Range, covered []task.Range) (list []task.Range) {
	slices.SortFunc(covered, func(a, b task.Range) int { return a.Start - b.Start })
	for _, c := range append(covered, task.Range{Start: r.End, End: r.End}) {
		if gap := (task.Range{Start: r.Start, End: min(c.Start, r.End)}); gap.Len() > 0 {
			list = append(list, gap)
		}
		r.Start = max(r.Start, c.End)
	}
	return list
}

// Find returns the receipt that describes a sample, and its entry there, or store.ErrNotFound.
func Find(ctx context.Context, st *store.Store, generator string, index int) (store.Receipt, store.ReceiptSample,
	error) {
	for c, err := range CellsOf(ctx, st, generator, []int{index}) {
		if err != nil {
			return store.Receipt{}, store.ReceiptSample{}, err
		}
		for _, r := range c.Receipts {
			at := slices.IndexFunc(r.Current, func(s store.ReceiptSample) bool { return s.Index == index })
			if at >= 0 {
				return r, r.Current[at], nil
			}
		}
	}
	return store.Receipt{}, store.ReceiptSample{}, fmt.Errorf("sample %d of %s: %w", index, generator, store.ErrNotFound)
}
