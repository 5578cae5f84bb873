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

// View is what the receipts of one generator say of a range of indices. Where
// several hold an index, the one with the highest claim describes it. A view takes
// about 100 bytes for each sample, and 200 for each receipt.
type View struct {
	Generator string
	Range     task.Range
	Drawn     int // samples that were made for the range, those that were replaced since included
	Attempt   int // highest attempt of a repair

	held  table
	seen  map[mark]int32 // how often each puzzle was drawn
	order map[string]int // receipts by key, in the order they were added, from 1
	twice map[int]int32  // indices that two receipts of one claim hold, and the claim
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
	claim   int32
	receipt int32 // its place in View.order; 0 for nobody
	round   int32 // 0 for a chunk, 1 and more for a repair: a later round has the later sample
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
	if at := &p[index%len(page{})]; at.receipt == 0 {
		t.n++
	}
	p[index%len(page{})] = h
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
	return &View{Generator: generator, Range: r, held: table{pages: map[int]*page{}}, seen: map[mark]int32{}, order: map[string]int{}, twice: map[int]int32{}}
}

// Read adds the receipts that have come since the last Read. It fails on one that
// is damaged: what is counted beside it could be wrong.
func (v *View) Read(ctx context.Context, st *store.Store) error {
	names, err := Names(ctx, st, v.Generator, v.Range)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n store.ReceiptName) bool { return v.order[n.Key] > 0 })
	for r, err := range st.ReadReceipts(ctx, names) {
		if err != nil {
			return err
		}
		v.Add(r)
	}
	return nil
}

// Names lists the receipts of a generator that overlap a range. What ends before
// the range costs no request.
func Names(ctx context.Context, st *store.Store, generator string, r task.Range) ([]store.ReceiptName, error) {
	var names []store.ReceiptName
	for n, err := range st.ReceiptNames(ctx, generator, r.Start) {
		if err != nil {
			return nil, err
		}
		if n.Range.Start >= r.End {
			break
		}
		if n.Range.Overlaps(r) {
			names = append(names, n)
		}
	}
	return names, nil
}

// NamesOf lists the receipts of each generator of a run that overlap its range,
// several generators at a time: each costs a request or more.
func NamesOf(ctx context.Context, st *store.Store, run task.Run) ([][]store.ReceiptName, error) {
	names := make([][]store.ReceiptName, len(run.Generators))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, g := range run.Generators {
		group.Go(func() (err error) {
			names[i], err = Names(ctx, st, g.Name, run.Range())
			return err
		})
	}
	return names, group.Wait()
}

// Add takes a receipt in.
func (v *View) Add(r store.Receipt) { v.add(r, nil) }

// add takes a receipt in; objects returns the sum of a sample's, and may be nil.
func (v *View) add(r store.Receipt, objects func(store.ReceiptSample) uint64) {
	place := len(v.order) + 1
	v.order[r.Key()] = place
	round := 0
	if r.Indices != nil {
		round = 1 + r.FirstAttempt
		v.Attempt = max(v.Attempt, r.FirstAttempt, r.Attempt)
	}
	for _, s := range r.Samples {
		if s.Index < v.Range.Start || s.Index >= v.Range.End {
			continue
		}
		h := holder{mark: markOf(s.Fingerprint), claim: int32(r.Claim), receipt: int32(place), round: int32(round)}
		v.Drawn++
		v.seen[h.mark]++
		before, there := v.held.get(s.Index)
		switch {
		case there && before.claim > h.claim:
			continue
		case there && before.claim == h.claim:
			v.twice[s.Index] = h.claim
			continue
		}
		for _, f := range s.Files {
			h.bytes += f.Size
		}
		if objects != nil {
			h.objects = objects(s)
		}
		v.held.set(s.Index, h)
	}
}

// Describes reports whether a receipt that was added is the one that describes an
// index.
func (v *View) Describes(r store.Receipt, index int) bool {
	h, there := v.held.get(index)
	return there && int(h.receipt) == v.order[r.Key()]
}

// ties returns the indices for which no claim decides who describes them.
func (v *View) ties() []int {
	var list []int
	for index, claim := range v.twice {
		if h, _ := v.held.get(index); h.claim == claim {
			list = append(list, index)
		}
	}
	slices.Sort(list)
	return list
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
	var list []task.Range
	for i := v.Range.Start; i < v.Range.End; i++ {
		if _, there := v.held.get(i); there {
			continue
		}
		if n := len(list); n > 0 && list[n-1].End == i {
			list[n-1].End++
		} else {
			list = append(list, task.Range{Start: i, End: i + 1})
		}
	}
	return list
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
func Find(ctx context.Context, st *store.Store, generator string, index int) (store.Receipt, store.ReceiptSample, error) {
	at := task.Range{Start: index, End: index + 1}
	receipts, err := st.Receipts(ctx, generator, at) // lowest claim first
	if err != nil {
		return store.Receipt{}, store.ReceiptSample{}, err
	}
	for _, r := range slices.Backward(receipts) {
		for _, s := range r.Samples {
			if s.Index == index {
				return r, s, nil
			}
		}
	}
	return store.Receipt{}, store.ReceiptSample{}, fmt.Errorf("sample %d of %s: %w", index, generator, store.ErrNotFound)
}
