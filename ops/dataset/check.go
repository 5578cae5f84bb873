package dataset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Checker checks generators one after the other, so that its memory is that of the largest: about 60 bytes for each
// sample that was made, 20 for each object, and 48 MiB for pictures that are decoded.
type Checker struct {
	Store    *store.Store
	Deep     bool     // read the contents of the objects, not only names and sizes
	Trust    bool     // take the store's SHA-256 for the bytes if nothing has to be decoded
	Journal  *Journal // what an interrupted check of contents has done; nil for none
	Progress func(stage string, done, total int)
}

// atOnce is how many cells or listings are read side by side.
const atOnce = 16

// inspection is the check of one generator: it lists all objects, takes off what receipts name, and reports the rest.
type inspection struct {
	*Checker
	name     string
	view     *View
	report   *GeneratorReport
	seed     maphash.Seed
	decoding *semaphore.Weighted

	mu        sync.Mutex      // of the report and of what follows
	stored    map[uint64]bool // objects that no receipt names so far, by hash of key and size
	committed []task.Range
	missing   []task.Range
	chunks    map[uint64]int // receipts by hash of their samples' fingerprints
	corrupt   map[Ref]bool   // receipts with damaged objects; false if these are only missing
	done      int            // cells
}

// Run checks the generators of a run in its range.
func (c *Checker) Run(ctx context.Context, run task.Run) (*Report, error) {
	r := &Report{Dataset: task.Dataset(c.Store.Dataset().String()), Run: run.ID, Range: run.Range(), Deep: c.Deep,
		Complete: true, SameIDs: map[string][]string{}}
	for _, g := range run.Generators {
		found, err := c.Generator(ctx, g.Name, run.Range())
		if err != nil {
			return nil, fmt.Errorf("verify %s: %w", g.Name, err)
		}
		for _, domain := range found.Domains {
			r.SameIDs[domain] = append(r.SameIDs[domain], g.Name)
		}
		r.Generators = append(r.Generators, found)
		r.Complete = r.Complete && found.Complete
		r.Samples += found.Samples
		r.Bytes += found.Bytes
	}
	maps.DeleteFunc(r.SameIDs, func(_ string, names []string) bool { return len(names) < 2 })
	return r, nil
}

// Generator checks one generator in a range of indices. The error is of the store, or ctx's; damage is in the report.
func (c *Checker) Generator(ctx context.Context, name string, r task.Range) (*GeneratorReport, error) {
	i := c.inspect(name, r)
	// Of each object a hash is kept: the names of millions would take too much memory.
	listObjects := func(ctx context.Context) error {
		return i.list(ctx, func(o store.Object) { i.stored[i.hash(o.Key, o.Size)] = true })
	}
	for _, step := range []func(context.Context) error{listObjects, i.readCells, i.findStrays} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return i.conclude(), nil
}

func (c *Checker) inspect(name string, r task.Range) *inspection {
	return &inspection{Checker: c, name: name, view: &View{Generator: name, Range: r}, seed: maphash.MakeSeed(),
		decoding: semaphore.NewWeighted(decoding), stored: map[uint64]bool{}, chunks: map[uint64]int{},
		corrupt: map[Ref]bool{},
		report: &GeneratorReport{Name: name, Expected: r.Len(), Seeds: []int{}, Damaged: map[Kind]int{},
			Commits: map[string]int{}, Locks: map[string]int{}, plan: GeneratorPlan{Name: name}}}
}

func (i *inspection) progress(stage string, done, total int) {
	if i.Progress != nil {
		i.Progress(stage+" of "+i.name, done, total)
	}
}

func (i *inspection) hash(key string, size int64) uint64 {
	return maphash.Comparable(i.seed, store.Object{Key: key, Size: size})
}

// list lists the generator's objects in the range, and those of no samples, from several samples on side by side.
func (i *inspection) list(ctx context.Context, each func(store.Object)) error {
	const enough = 1000 // samples for a listing of their own
	prefix := i.Store.Dataset().SamplesPrefix(i.name)
	bounds := []string{""}
	for o, err := range i.Store.List(ctx, prefix, "") {
		if err != nil {
			return err
		}
		_, stem := placeOf(i.Store.Dataset(), i.name, o.Key)
		for n, k := min(atOnce, i.view.Range.Len()/enough), 1; k < n; k++ {
			bounds = append(bounds, prefix+task.SampleID(stem, i.view.Range.Start+k*i.view.Range.Len()/n))
		}
		break
	}
	listed := 0
	group, ctx := errgroup.WithContext(ctx)
	for n, after := range bounds {
		group.Go(func() error {
			for o, err := range i.Store.List(ctx, prefix, after) {
				if err != nil || n+1 < len(bounds) && o.Key > bounds[n+1] {
					return err
				}
				if at, _ := placeOf(i.Store.Dataset(), i.name, o.Key); at.Len() > 0 && !at.Overlaps(i.view.Range) {
					continue
				}
				i.mu.Lock()
				if listed++; listed%10_000 == 0 {
					i.progress("objects", listed, listed)
				}
				each(o)
				i.mu.Unlock()
			}
			return nil
		})
	}
	return group.Wait()
}

// placeOf returns the indices that the key of a data object names, if any, and its domain, or for shards the generator.
func placeOf(d task.Dataset, generator, key string) (at task.Range, stem string) {
	if r, ok := d.ShardRange(key); ok {
		return r, generator
	}
	id, _, nested := strings.Cut(strings.TrimPrefix(key, d.SamplesPrefix(generator)), "/")
	if end := strings.LastIndexByte(id, '_'); nested && end >= 0 && len(id)-end == 9 {
		if index, err := strconv.Atoi(id[end+1:]); err == nil && index >= 0 {
			return task.Range{Start: index, End: index + 1}, id[:end]
		}
	}
	return task.Range{}, ""
}

// readCells reads every cell, and examines those that can be trusted.
func (i *inspection) readCells(ctx context.Context) error {
	var names []store.CellName
	for o, err := range i.Store.List(ctx, i.Store.Dataset().CellsPrefix(i.name), "") {
		if err != nil {
			return err
		}
		switch r, ok := task.CellRange(o.Key); {
		case !ok:
			i.distrust(o.Key, "no receipt has such a name")
		case r.Overlaps(i.view.Range):
			names = append(names, store.CellName{Key: o.Key, Range: r})
		}
	}
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	var order Order
	for c, err := range i.Store.Cells(limited, names) {
		if damaged, ok := errors.AsType[*store.Error](err); ok && errors.Is(err, store.ErrDamaged) {
			i.distrust(damaged.Key, damaged.Err.Error())
			continue
		}
		if err != nil {
			return cmp.Or(group.Wait(), err)
		}
		if wrong := order.Contradiction(c, i.Store.Dataset(), i.name); wrong != "" {
			i.distrust(c.Key(), wrong)
			continue
		}
		group.Go(func() error { return i.examine(limited, c, len(names)) })
	}
	return group.Wait()
}

func (i *inspection) distrust(key, why string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.report.add(Damage{Kind: BadReceipt, Key: key, Detail: why})
	i.report.plan.Remove = append(i.report.plan.Remove, key)
}

// object is one that a receipt vouches for: a file of a sample, or a shard.
type object struct {
	receipt *store.Receipt
	key     string
	size    int64
	listed  bool
	sample  *store.ReceiptSample // nil of a shard, and so is its file
	file    *store.ReceiptFile
}

// examine takes a cell into the report, and finds out what is wrong with its objects. Those listed have the right size.
func (i *inspection) examine(ctx context.Context, c *store.Cell, cells int) error {
	var objects []object
	i.mu.Lock()
	i.view.Add(c)
	for n := range c.Receipts {
		objects = append(objects, i.record(&c.Receipts[n])...)
	}
	i.mu.Unlock()
	resumed := i.Deep && i.Journal.has(c)
	found := make([][]Damage, len(objects))
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for n, o := range objects {
		if o.listed && (!i.Deep || resumed) {
			continue
		}
		group.Go(func() (err error) {
			if !o.listed {
				found[n], err = i.lookUp(limited, o)
			}
			if i.Deep && err == nil && found[n] == nil {
				found[n], err = i.contents(limited, o)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	healthy := len(slices.Concat(found...)) == 0
	if !healthy {
		now, err := i.Store.Cell(ctx, c.Key())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err != nil || now.ETag() != c.ETag() {
			return fmt.Errorf("%s was changed during the check: a worker is making these samples", c.Key())
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for n, o := range objects {
		for _, d := range found[n] {
			i.damaged(*o.receipt, d)
		}
	}
	i.done++
	stage := "receipts"
	if i.Deep {
		stage = "contents"
	}
	i.progress(stage, i.done, cells)
	switch {
	case resumed:
		i.report.Resumed++
	case i.Deep && healthy:
		return i.Journal.add(c)
	}
	return nil
}

// record takes a receipt into the report and returns the objects that it vouches for.
func (i *inspection) record(r *store.Receipt) (objects []object) {
	addNew(&i.report.Seeds, r.RunSeed)
	addNew(&i.report.Domains, r.Domain)
	add := func(key string, size int64, s *store.ReceiptSample, f *store.ReceiptFile) {
		hash := i.hash(key, size)
		objects = append(objects, object{r, key, size, i.stored[hash], s, f})
		delete(i.stored, hash)
	}
	if r.Shard != nil && len(r.Current) > 0 {
		if of, _ := r.Dataset.ShardRange(r.Shard.Key); of.Overlaps(i.view.Range) {
			add(r.Shard.Key, r.Shard.Size, nil, nil)
		}
	}
	var prints maphash.Hash
	prints.SetSeed(i.seed)
	samples := 0
	for _, s := range r.Current {
		if !i.view.covers(s.Index) {
			continue
		}
		samples++
		_, _ = prints.WriteString(s.Fingerprint + "\n")
		i.committed = append(i.committed, task.Range{Start: s.Index, End: s.Index + 1})
		for n, f := range s.Files {
			if i.report.Bytes += f.Size; r.Shard == nil {
				add(r.Dataset.FileKey(i.name, s.ID, f.Name), f.Size, &s, &s.Files[n])
			}
		}
	}
	if r.Indices == nil && samples > 1 { // from one sample nothing follows, and repairs are small
		i.chunks[prints.Sum64()]++
	}
	i.report.Commits[r.Commit] += samples
	i.report.Locks[r.Lock] += samples
	return objects
}

func addNew[T comparable](list *[]T, x T) {
	if !slices.Contains(*list, x) {
		*list = append(*list, x)
	}
}

// lookUp returns what is wrong with an object that was not listed as it should be.
func (i *inspection) lookUp(ctx context.Context, o object) ([]Damage, error) {
	there, err := i.Store.Head(ctx, o.key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return []Damage{{Kind: MissingObject, Key: o.key}}, nil
	case err != nil || there.Size == o.size: // it came since
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.stored, i.hash(o.key, there.Size)) // it is no stray
	return []Damage{wrongSize(o.key, there.Size, o.size)}, nil
}

// damaged takes damage of a receipt's object into the report, and into the plan what repairs it.
func (i *inspection) damaged(r store.Receipt, d Damage) {
	i.report.add(d)
	if d.Kind == Undecodable { // its bytes are the receipt's: the same seed would make it so again
		at := slices.IndexFunc(r.Samples, func(s store.ReceiptSample) bool { return s.Index == d.index })
		addNew(&i.report.plan.Replace, Draw{d.index, Digest(r.Samples[at])})
		return
	}
	ref := Ref{Key: r.ReadFrom, Digest: digest(r)}
	i.corrupt[ref] = i.corrupt[ref] || d.Kind != MissingObject
}

// findStrays lists again if objects are left that no receipt names. Those of missing samples are for who makes these.
func (i *inspection) findStrays(ctx context.Context) error {
	i.missing = Gaps(i.view.Range, i.committed)
	if len(i.stored) == 0 {
		return nil
	}
	return i.list(ctx, func(o store.Object) {
		if !i.stored[i.hash(o.Key, o.Size)] {
			return
		}
		d := Damage{Kind: StrayObject, Key: o.Key}
		at, _ := placeOf(i.Store.Dataset(), i.name, o.Key)
		n := sort.Search(len(i.missing), func(n int) bool { return i.missing[n].End > at.Start })
		if n < len(i.missing) && i.missing[n].Overlaps(at) {
			d.Detail = "its sample has no receipt"
		} else if len(i.report.plan.Remove) < maxPlanned {
			i.report.plan.Remove = append(i.report.plan.Remove, o.Key)
		}
		i.report.add(d)
	})
}

func (i *inspection) conclude() *GeneratorReport {
	r := i.report
	samples, duplicates := i.view.Duplicates()
	r.Samples, r.Duplicates, r.Distinct = samples, len(duplicates), samples-len(duplicates)
	if r.Duplicates > 0 {
		r.First = duplicates[:min(maxFirst, len(duplicates))]
		pool := i.view.Pool()
		r.Pool = &pool
	}
	for _, n := range i.chunks {
		if r.Chunks += n; n > 1 {
			r.Alike += n
		}
	}
	for _, counts := range []map[string]int{r.Commits, r.Locks} {
		maps.DeleteFunc(counts, func(what string, n int) bool { return what == "" || n == 0 })
	}
	for _, gap := range i.missing {
		r.Missing = append(r.Missing, Extent(gap))
	}
	r.Complete = len(i.missing) == 0 && len(r.Damaged) == 0
	slices.Sort(r.Seeds)
	slices.Sort(r.Domains)
	slices.SortFunc(r.Examples, func(a, b Damage) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key))
	})
	slices.Sort(r.plan.Remove)
	slices.SortFunc(r.plan.Replace, func(a, b Draw) int { return a.Index - b.Index })
	byKey := func(a, b Ref) int { return cmp.Compare(a.Key+a.Digest, b.Key+b.Digest) }
	for _, ref := range slices.SortedFunc(maps.Keys(i.corrupt), byKey) {
		if i.corrupt[ref] {
			r.plan.Corrupt = append(r.plan.Corrupt, ref)
		} else {
			r.plan.Gone = append(r.plan.Gone, ref)
		}
	}
	return r
}
