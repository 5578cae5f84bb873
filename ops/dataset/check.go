package dataset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Checker checks generators one after the other, so that its memory is that of the
// largest: about 30 bytes for each sample that was made and 200 for each cell, beside
// the groups of cells that are being read and 48 MiB for pictures that are decoded.
type Checker struct {
	Store    *store.Store
	Deep     bool     // read the contents of the objects, not only names and sizes
	Trust    bool     // take the store's SHA-256 for the bytes where nothing has to be decoded
	Journal  *Journal // what an interrupted check of contents has done; nil for none
	Progress func(stage string, done, total int)
}

const (
	atOnce    = 8    // groups of cells that are listed side by side
	reading   = 64   // objects whose contents are read side by side
	groupSize = 1000 // samples of the cells that are read together; their objects fill some pages of a listing
)

// inspection is the check of one generator. It reads the cells in groups and lists the
// objects of each group where they must be. What lies elsewhere, it lists in the end.
type inspection struct {
	*Checker
	name     string
	view     *View
	report   *GeneratorReport
	chunks   map[uint64]int // receipts by a hash of their samples' fingerprints
	seed     maphash.Seed
	reading  *semaphore.Weighted // objects
	decoding *semaphore.Weighted // bytes

	mu          sync.Mutex // of the report and of what follows
	listed      []keys
	strays      []stray // as many as a plan can name
	unplanned   int     // strays beyond these
	done, total int     // cells
}

// keys are those behind one and up to another; "" is no end.
type keys struct{ after, to string }

type stray struct {
	key string
	of  task.Range // indices, by its name
}

func (c *Checker) inspect(name string, r task.Range) *inspection {
	return &inspection{Checker: c, name: name, view: NewView(name, r), chunks: map[uint64]int{}, seed: maphash.MakeSeed(),
		reading: semaphore.NewWeighted(reading), decoding: semaphore.NewWeighted(decoding),
		report: &GeneratorReport{Name: name, Expected: r.Len(), Seeds: []int{}, Damaged: map[Kind]int{},
			Commits: map[string]int{}, Locks: map[string]int{}, plan: GeneratorPlan{Name: name}}}
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

// Generator checks one generator in a range of indices. The error is of the
// store, or ctx's; damage is in the report.
func (c *Checker) Generator(ctx context.Context, name string, r task.Range) (*GeneratorReport, error) {
	i := c.inspect(name, r)
	groups, err := i.groups(ctx)
	if err != nil {
		return nil, err
	}
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, names := range groups {
		var cells []*store.Cell
		if cells, err = i.readCells(limited, names); err != nil {
			break
		}
		group.Go(func() error { return i.compare(limited, cells) })
	}
	if err := cmp.Or(group.Wait(), err); err != nil {
		return nil, err
	}
	if err := i.listRest(ctx); err != nil {
		return nil, err
	}
	return i.conclude(), nil
}

// groups lists the cells and groups neighbours. Cells that overlap by their names are
// in one group.
func (i *inspection) groups(ctx context.Context) (groups [][]store.CellName, err error) {
	end := 0
	for o, err := range i.Store.List(ctx, i.Store.Dataset().CellsPrefix(i.name), "") {
		if err != nil {
			return nil, err
		}
		r, ok := task.CellRange(o.Key)
		if !ok || r.Len() > task.MaxSamples {
			i.distrust(o.Key, "no receipt has such a name")
			continue
		}
		if !r.Overlaps(i.view.Range) {
			continue
		}
		if n := len(groups); n == 0 || r.Start >= end && r.End-groups[n-1][0].Range.Start > groupSize {
			groups = append(groups, nil)
		}
		last := &groups[len(groups)-1]
		*last = append(*last, store.CellName{Key: o.Key, Range: r})
		end = max(end, r.End)
		i.total++
	}
	return groups, nil
}

func (i *inspection) distrust(key, why string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.report.add(Damage{Kind: BadReceipt, Key: key, Detail: why})
	i.report.plan.Remove = append(i.report.plan.Remove, key)
}

// readCells returns those of neighbouring cells that can be trusted.
func (i *inspection) readCells(ctx context.Context, names []store.CellName) (cells []*store.Cell, err error) {
	end := 0
	for c, err := range i.Store.Cells(ctx, names) {
		damaged, ok := errors.AsType[*store.Error](err)
		switch wrong := ""; {
		case ok && errors.Is(err, store.ErrDamaged):
			i.distrust(damaged.Key, damaged.Err.Error())
			continue
		case err != nil:
			return nil, err
		default:
			if wrong = Contradiction(c, i.Store.Dataset(), i.name); wrong == "" && c.Start < end {
				wrong = "it overlaps another"
			}
			if wrong != "" {
				i.distrust(c.Key(), wrong)
				continue
			}
		}
		cells, end = append(cells, c), c.End
		i.record(c)
	}
	return cells, nil
}

// compare lists what is stored for the samples of neighbouring cells and compares it with
// their receipts.
func (i *inspection) compare(ctx context.Context, cells []*store.Cell) error {
	if cells == nil {
		return nil
	}
	stems := map[string]bool{i.name: true} // of the objects' names: the shards', and the domains
	for _, c := range cells {
		for _, r := range c.Receipts {
			stems[r.Domain] = true
		}
	}
	start, end := cells[0].Start, cells[len(cells)-1].End
	stored := map[string]int64{} // sizes by key
	for stem := range stems {
		if err := i.listSamples(ctx, stem, start, end, stored); err != nil {
			return err
		}
	}
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, c := range cells {
		objects := i.objects(c)
		for n := range objects {
			o := &objects[n]
			switch size, there := stored[o.key]; {
			case !there:
				o.found = []Damage{{Kind: MissingObject, Key: o.key}}
			case size != o.size:
				o.found = []Damage{wrongSize(o.key, size, o.size)}
			}
			delete(stored, o.key)
		}
		group.Go(func() error { return i.examine(limited, c, objects) })
	}
	for key := range stored {
		i.stray(key)
	}
	return group.Wait()
}

// record takes a cell into the report.
func (i *inspection) record(c *store.Cell) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.view.Add(c)
	for _, r := range c.Receipts {
		addNew(&i.report.Seeds, r.RunSeed)
		addNew(&i.report.Domains, r.Domain)
		samples := i.inRange(r.Current)
		var prints maphash.Hash
		prints.SetSeed(i.seed)
		for _, s := range samples {
			_, _ = prints.WriteString(s.Fingerprint + "\n")
			for _, f := range s.Files {
				i.report.Bytes += f.Size
			}
		}
		if r.Indices == nil && len(samples) > 1 { // from one sample nothing follows, and repairs are small
			i.chunks[prints.Sum64()]++
		}
		i.report.Commits[r.Commit] += len(samples)
		i.report.Locks[r.Lock] += len(samples)
	}
}

func addNew[T comparable](list *[]T, x T) {
	if !slices.Contains(*list, x) {
		*list = append(*list, x)
	}
}

func (i *inspection) inRange(samples []store.ReceiptSample) []store.ReceiptSample {
	return slices.DeleteFunc(slices.Clone(samples), func(s store.ReceiptSample) bool {
		return s.Index < i.view.Range.Start || s.Index >= i.view.Range.End
	})
}

// object is one that a receipt vouches for: a file of a sample, or a shard.
type object struct {
	receipt int // its place in the cell
	key     string
	size    int64
	sample  *store.ReceiptSample // of the file
	file    *store.ReceiptFile   // nil of a shard
	found   []Damage
}

// objects are those that the receipts of a cell vouch for in the range.
func (i *inspection) objects(c *store.Cell) (list []object) {
	for n, r := range c.Receipts {
		if r.Shard != nil {
			if of, _ := r.Dataset.ShardRange(r.Shard.Key); len(r.Current) > 0 && of.Overlaps(i.view.Range) {
				list = append(list, object{receipt: n, key: r.Shard.Key, size: r.Shard.Size})
			}
			continue
		}
		for _, s := range i.inRange(r.Current) {
			for at, f := range s.Files {
				list = append(list, object{n, r.Dataset.FileKey(i.name, s.ID, f.Name), f.Size, &s, &s.Files[at], nil})
			}
		}
	}
	return list
}

// listSamples lists the objects of samples whose names begin with a stem: a domain, or for
// shards the generator.
func (i *inspection) listSamples(ctx context.Context, stem string, start, end int, stored map[string]int64) error {
	prefix := i.Store.Dataset().SamplesPrefix(i.name) + stem + "_"
	at := func(index int) string { return fmt.Sprintf("%s%08d", prefix, index) }
	within := keys{at(start), at(end)}
	if end >= task.MaxIndex {
		within.to = prefix + ":" // sorts behind all digits
	}
	i.mu.Lock()
	i.listed = append(i.listed, within)
	i.mu.Unlock()
	return i.list(ctx, prefix, within, func(o store.Object) { stored[o.Key] = o.Size })
}

// list lists the objects below a prefix whose keys are within others.
func (i *inspection) list(ctx context.Context, prefix string, within keys, each func(store.Object)) error {
	for o, err := range i.Store.List(ctx, prefix, within.after) {
		if err != nil || within.to != "" && o.Key > within.to {
			return err
		}
		each(o)
	}
	return nil
}

// listRest lists what no group has listed: no receipt names it.
func (i *inspection) listRest(ctx context.Context) error {
	slices.SortFunc(i.listed, func(a, b keys) int { return strings.Compare(a.after, b.after) })
	at := ""
	for _, l := range append(i.listed, keys{}) {
		if l.after == "" || at < l.after {
			err := i.list(ctx, i.Store.Dataset().SamplesPrefix(i.name), keys{at, l.after},
				func(o store.Object) { i.stray(o.Key) })
			if err != nil {
				return err
			}
		}
		at = max(at, l.to)
	}
	return nil
}

// stray notes an object that no receipt names, unless it is of samples beyond the range.
func (i *inspection) stray(key string) {
	of := placeOf(i.Store.Dataset(), i.name, key)
	if of.Len() > 0 && !of.Overlaps(i.view.Range) {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.strays) == maxPlanned {
		i.unplanned++
		return
	}
	i.strays = append(i.strays, stray{key, of})
}

// placeOf returns the indices that a data object is of by its key, none if its key is
// none of the layout's.
func placeOf(d task.Dataset, generator, key string) task.Range {
	if r, ok := d.ShardRange(key); ok {
		return r
	}
	id, _, nested := strings.Cut(strings.TrimPrefix(key, d.SamplesPrefix(generator)), "/")
	if at := strings.LastIndexByte(id, '_'); nested && at >= 0 && len(id)-at == 9 {
		if index, err := strconv.Atoi(id[at+1:]); err == nil && index >= 0 {
			return task.Range{Start: index, End: index + 1}
		}
	}
	return task.Range{}
}

// examine finds out what else is wrong with the objects of a cell, if contents are
// checked, and notes all that is.
func (i *inspection) examine(ctx context.Context, c *store.Cell, objects []object) error {
	resumed := i.Deep && i.Journal.has(c)
	group, limited := errgroup.WithContext(ctx)
	found := make([][]Damage, len(c.Receipts))
	for n := range objects {
		o := &objects[n]
		if o.found == nil && i.Deep && !resumed {
			if err := i.reading.Acquire(limited, 1); err != nil {
				return cmp.Or(group.Wait(), err)
			}
			group.Go(func() (err error) {
				defer i.reading.Release(1)
				o.found, err = i.contents(limited, c.Receipts[o.receipt], *o)
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, o := range objects {
		found[o.receipt] = append(found[o.receipt], o.found...)
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
	for n, all := range found {
		i.damaged(c.Receipts[n], all)
	}
	if resumed {
		i.report.Resumed++
	}
	if i.done++; i.Progress != nil {
		i.Progress(map[bool]string{false: "objects of ", true: "contents of "}[i.Deep]+i.name, i.done, i.total)
	}
	if !i.Deep || resumed || !healthy {
		return nil
	}
	return i.Journal.add(c)
}

// damaged takes damage of a receipt's objects into the report, and into the plan what
// repairs it.
func (i *inspection) damaged(r store.Receipt, found []Damage) {
	plan := &i.report.plan
	gone, corrupt := false, false
	for _, d := range found {
		i.report.add(d)
		switch d.Kind {
		case MissingObject:
			gone = true
		case Undecodable: // its bytes are the receipt's: the same seed would make it so again
			addNew(&plan.Replace, d.index)
		default:
			corrupt = true
		}
	}
	switch ref := (Ref{Key: r.ReadFrom, Digest: digest(r)}); {
	case corrupt:
		plan.Corrupt = append(plan.Corrupt, ref)
	case gone:
		plan.Gone = append(plan.Gone, ref)
	}
}

// conclude fills in what follows from the rest.
func (i *inspection) conclude() *GeneratorReport {
	r := i.report
	missing := i.view.Missing()
	slices.SortFunc(i.strays, func(a, b stray) int { return strings.Compare(a.key, b.key) })
	for _, s := range i.strays {
		// It can be removed if its samples are all committed; else whoever makes them deals with it.
		at, _ := slices.BinarySearchFunc(missing, s.of.Start, func(gap task.Range, index int) int {
			return cmp.Compare(gap.End, index+1)
		})
		d := Damage{Kind: StrayObject, Key: s.key}
		if at < len(missing) && missing[at].Overlaps(s.of) {
			d.Detail = "its sample has no receipt"
		} else {
			r.plan.Remove = append(r.plan.Remove, s.key)
		}
		r.add(d)
	}
	if i.unplanned > 0 {
		r.Damaged[StrayObject] += i.unplanned
	}
	samples, duplicates := i.view.Duplicates()
	r.Samples, r.Duplicates, r.Distinct = samples, len(duplicates), samples-len(duplicates)
	if r.Duplicates > 0 {
		r.First = duplicates[:min(maxFirst, len(duplicates))]
		pool := i.view.Pool()
		r.Pool = &pool
	}
	for _, n := range i.chunks {
		r.Chunks += n
		if n > 1 {
			r.Alike += n
		}
	}
	for _, counts := range []map[string]int{r.Commits, r.Locks} {
		maps.DeleteFunc(counts, func(what string, n int) bool { return what == "" || n == 0 })
	}
	r.Missing, r.Complete = Spans(missing), len(missing) == 0 && len(r.Damaged) == 0
	slices.Sort(r.Seeds)
	slices.Sort(r.Domains)
	slices.SortFunc(r.Examples, func(a, b Damage) int {
		return cmp.Or(slices.Index(Kinds(), a.Kind)-slices.Index(Kinds(), b.Kind), strings.Compare(a.Key, b.Key))
	})
	slices.Sort(r.plan.Remove)
	slices.Sort(r.plan.Replace)
	for _, refs := range [][]Ref{r.plan.Gone, r.plan.Corrupt} {
		slices.SortFunc(refs, func(a, b Ref) int { return strings.Compare(a.Key+a.Digest, b.Key+b.Digest) })
	}
	return r
}
