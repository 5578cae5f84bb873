// Package dataset finds out what is true of the samples in a bucket: which receipt
// describes each, what is missing, damaged or there twice, and what has to be
// sent to repair it.
package dataset

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// View is what the cells of one generator have of a range of indices. It takes about 30
// bytes for each sample that was made.
type View struct {
	Generator string
	Range     task.Range
	Attempt   int // highest attempt of a repair

	draws []draw
}

// draw is a sample that was made for an index. What a later one replaced is no longer
// current, but shows what the generator can make.
type draw struct {
	puzzle  puzzle
	index   int32
	round   int32 // 0 of a chunk, 1 and more of a repair: a later round has the later sample
	current bool
}

// puzzle stands for a fingerprint.
type puzzle [16]byte

// Read adds all cells of the range. It fails on one that is damaged: what is counted
// beside it could be wrong.
func (v *View) Read(ctx context.Context, st *store.Store) error {
	names, err := st.CellNames(ctx, v.Generator, v.Range)
	if err != nil {
		return err
	}
	for c, err := range st.Cells(ctx, names) {
		if err != nil {
			return err
		}
		v.Add(c)
	}
	return nil
}

// Add adds a cell.
func (v *View) Add(c *store.Cell) {
	for _, r := range c.Receipts {
		round := 0
		if r.Indices != nil {
			round = 1 + r.FirstAttempt
			v.Attempt = max(v.Attempt, r.FirstAttempt, r.Attempt)
		}
		current := r.Current // in the order of all
		for _, s := range r.Samples {
			is := len(current) > 0 && current[0].Index == s.Index
			if is {
				current = current[1:]
			}
			if v.covers(s.Index) {
				sum := sha256.Sum256([]byte(s.Fingerprint))
				v.draws = append(v.draws, draw{puzzle(sum[:16]), int32(s.Index), int32(round), is})
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

// Duplicates returns how many samples are committed, and the later ones of equal
// samples, by index. What a repair has made is later than what it was compared with,
// and of the rest the higher index.
func (v *View) Duplicates() (samples int, list []Duplicate) {
	all := slices.DeleteFunc(slices.Clone(v.draws), func(d draw) bool { return !d.current })
	slices.SortFunc(all, func(a, b draw) int { return cmp.Or(int(a.round-b.round), int(a.index-b.index)) })
	first := make(map[puzzle]int32, len(all))
	for _, d := range all {
		if of, again := first[d.puzzle]; again {
			list = append(list, Duplicate{Index: int(d.index), Of: int(of)})
		} else {
			first[d.puzzle] = d.index
		}
	}
	slices.SortFunc(list, func(a, b Duplicate) int { return a.Index - b.Index })
	return len(all), list
}

// Partial is what is committed of a cell that is partly committed.
type Partial struct {
	etag    string
	indices []int
}

// Missing returns the ranges of a generator's samples that are not committed, and the
// names of all cells that overlap the range. It takes one request for each 1,000 cells,
// and one for each that is partly committed. These are kept in known, by key, and read
// again only after a change.
func Missing(ctx context.Context, st *store.Store, generator string, r task.Range,
	known map[string]Partial) ([]task.Range, []store.CellName, error) {
	names, err := st.CellNames(ctx, generator, r)
	if err != nil {
		return nil, nil, err
	}
	var unread []store.CellName
	for _, n := range names {
		if n.State == store.Partial && known[n.Key].etag == n.ETag {
			continue
		}
		delete(known, n.Key)
		if n.State == store.Partial {
			unread = append(unread, n)
		}
	}
	for c, err := range st.Cells(ctx, unread) {
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
	return Gaps(r, committed), names, nil
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

// Spans writes ranges as first-last, for people.
func Spans(list []task.Range) (texts []string) {
	for _, r := range list {
		texts = append(texts, fmt.Sprintf("%d-%d", r.Start, r.End-1))
	}
	return texts
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

// Find returns the receipt that describes a sample, and its entry there, or
// store.ErrNotFound.
func Find(ctx context.Context, st *store.Store, generator string, index int) (store.Receipt, store.ReceiptSample,
	error) {
	list, err := st.Receipts(ctx, generator, task.Range{Start: index, End: index + 1})
	if err != nil {
		return store.Receipt{}, store.ReceiptSample{}, err
	}
	for _, r := range list { // one at most
		at := slices.IndexFunc(r.Current, func(s store.ReceiptSample) bool { return s.Index == index })
		return r, r.Current[at], nil
	}
	return store.Receipt{}, store.ReceiptSample{}, fmt.Errorf("sample %d of %s: %w", index, generator, store.ErrNotFound)
}
