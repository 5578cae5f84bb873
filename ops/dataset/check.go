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

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Checker checks generators one after the other, so that its memory is that of the
// largest: about 230 bytes for each sample and 500 for each receipt, and 64 MiB
// for the objects being read.
type Checker struct {
	Store    *store.Store
	Deep     bool     // look at the contents of the objects, not only at names and sizes
	Trust    bool     // take the store's SHA-256 for the bytes where nothing has to be decoded
	Journal  *Journal // what an interrupted check of contents has done; nil for none
	Progress func(stage string, done, total int)

	seed maphash.Seed
}

// atOnce is how many receipts or listings are looked at side by side.
const atOnce = 16

// inspection is the check of one generator.
type inspection struct {
	*Checker
	name     string
	view     *View
	report   *GeneratorReport
	receipts []recorded        // by place in the view's order, from 0
	shards   map[string]*shard // by key
	objects  int               // that there should be, about
	mu       sync.Mutex        // of the report and of what the receipts have
}

// recorded is what is kept of one receipt.
type recorded struct {
	cell    store.CellName
	id      string
	domain  string
	commit  string
	lock    string
	live    int             // indices it describes
	hurt    map[string]bool // objects that are missing or have another size
	missing bool            // an object is gone
	corrupt bool            // an object is there and wrong
}

type shard struct {
	store.Object
	seen    bool
	receipt int // place of the one that names it
}

// Generator checks one generator in a range of indices. The error is of the
// store, or ctx's; damage is in the report.
func (c *Checker) Generator(ctx context.Context, name string, whole task.Range) (*GeneratorReport, error) {
	if c.seed == (maphash.Seed{}) {
		c.seed = maphash.MakeSeed()
	}
	i := &inspection{Checker: c, name: name, view: NewView(name, whole), shards: map[string]*shard{},
		report: &GeneratorReport{Name: name, Expected: whole.Len(), Seeds: []int{}, plan: GeneratorPlan{Name: name}}}
	for _, step := range []func(context.Context) error{i.readReceipts, i.listObjects, i.explain, i.readContents} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	if err := i.conclude(ctx); err != nil {
		return nil, err
	}
	return i.report, nil
}

func (i *inspection) progress(stage string, done, total int) {
	if i.Progress != nil {
		i.Progress(stage, done, total)
	}
}

// readReceipts takes in every receipt that can be trusted.
func (i *inspection) readReceipts(ctx context.Context) error {
	var names []store.CellName
	for o, err := range i.Store.List(ctx, i.Store.Dataset().CellsPrefix(i.name), "") {
		if err != nil {
			return err
		}
		r, ok := task.CellRange(o.Key)
		switch {
		case !ok:
			i.distrust(o.Key, "no receipt has such a name")
		case r.Overlaps(i.view.Range):
			names = append(names, store.CellName{Key: o.Key, Range: r})
		}
	}
	done := 0
	for c, err := range i.Store.Cells(ctx, names) {
		if broken, ok := errors.AsType[*store.Error](err); ok && errors.Is(err, store.ErrDamaged) {
			i.distrust(broken.Key, broken.Err.Error())
			continue
		}
		if err != nil {
			return err
		}
		if done++; done%256 == 0 {
			i.progress("receipts of "+i.name, done, len(names))
		}
		if wrong := Contradiction(c, i.Store.Dataset(), i.name); wrong != "" {
			i.distrust(c.Key(), wrong)
			continue
		}
		i.record(c)
	}
	for _, h := range i.view.held.all() {
		i.receipts[h.receipt-1].live++
	}
	return nil
}

func (i *inspection) distrust(key, why string) {
	i.report.add(Damage{Kind: BadReceipt, Key: key, Detail: why})
	i.report.plan.Remove = append(i.report.plan.Remove, key)
}

func (i *inspection) record(c *store.Cell) {
	for _, r := range c.Receipts {
		if !slices.Contains(i.report.Seeds, r.RunSeed) {
			i.report.Seeds = append(i.report.Seeds, r.RunSeed)
		}
		if !slices.Contains(i.report.Domains, r.Domain) {
			i.report.Domains = append(i.report.Domains, r.Domain)
		}
		e := recorded{cell: store.CellName{Key: c.Key(), Range: c.Range()}, id: r.ID(), domain: r.Domain, commit: r.Commit,
			lock: r.Lock}
		if r.Shard != nil && len(r.Current) > 0 {
			i.shards[r.Shard.Key] = &shard{Object: *r.Shard, receipt: len(i.receipts)}
		}
		i.objects += len(r.Objects())
		i.receipts = append(i.receipts, e)
	}
	i.view.add(c, func(r store.Receipt, s store.ReceiptSample) (sum uint64) {
		if r.Shard != nil {
			return 0
		}
		for _, f := range s.Files {
			sum += i.hash(f.Name, f.Size)
		}
		return sum
	})
}

// hash is one object's part of the sum of a sample's objects.
func (i *inspection) hash(name string, size int64) uint64 {
	return maphash.Comparable(i.seed, struct {
		name string
		size int64
	}{name, size})
}

// listObjects takes what is stored off the sums of what there should be: the sum
// of a sample whose objects are all there, with their sizes, and nothing else,
// becomes 0. So no list of all objects has to be kept.
//
// S3 lists one page after the other. A generator of many objects is listed from
// several places side by side.
func (i *inspection) listObjects(ctx context.Context) error {
	prefix := i.Store.Dataset().SamplesPrefix(i.name)
	places := append([]string{""}, i.places(prefix)...)
	var mu sync.Mutex // of what the inspection knows
	listed := 0
	group, ctx := errgroup.WithContext(ctx)
	for n, after := range places {
		end := ""
		if n+1 < len(places) {
			end = places[n+1]
		}
		group.Go(func() error {
			for o, err := range i.Store.List(ctx, prefix, after) {
				if err != nil {
					return err
				}
				if end != "" && o.Key > end {
					return nil
				}
				mu.Lock()
				if listed++; listed%10_000 == 0 {
					i.progress("objects of "+i.name, listed, max(i.objects, listed+1))
				}
				i.take(o)
				mu.Unlock()
			}
			return nil
		})
	}
	return group.Wait()
}

// places are keys between which there are about as many objects each, 20 pages at
// least.
func (i *inspection) places(prefix string) []string {
	const enough = 20_000
	n := min(atOnce, i.objects/enough)
	if n < 2 || len(i.receipts) == 0 {
		return nil
	}
	var list []string
	for k := 1; k < n; k++ {
		list = append(list, prefix+task.SampleID(i.receipts[0].domain, i.view.Range.Start+k*i.view.Range.Len()/n))
	}
	return list
}

// take takes one object off what there should be.
func (i *inspection) take(o store.Object) {
	id, file, nested := strings.Cut(strings.TrimPrefix(o.Key, i.Store.Dataset().SamplesPrefix(i.name)), "/")
	if known := i.shards[o.Key]; known != nil {
		known.seen = true
		if known.Size != o.Size {
			i.hurtShard(known, Damage{Kind: WrongSize, Key: o.Key, Detail: sizes(o.Size, known.Size)})
		}
		return
	}
	if held, ok := i.Store.Dataset().ShardRange(o.Key); ok {
		if held.Overlaps(i.view.Range) {
			i.stray(o.Key, held)
		}
		return
	}
	domain, index, ok := parseID(id)
	if !ok || !nested {
		i.stray(o.Key, task.Range{})
		return
	}
	if index < i.view.Range.Start || index >= i.view.Range.End {
		return
	}
	h, there := i.view.held.get(index)
	if !there || i.receipts[h.receipt-1].domain != domain {
		i.stray(o.Key, task.Range{Start: index, End: index + 1})
		return
	}
	h.objects -= i.hash(file, o.Size)
	i.view.held.set(index, h)
}

func sizes(is, should int64) string {
	return fmt.Sprintf("it has %d bytes, its receipt says %d", is, should)
}

// parseID reads domain and index back from a sample's id.
func parseID(id string) (domain string, index int, ok bool) {
	at := strings.LastIndexByte(id, '_')
	if at < 0 || len(id)-at != 9 {
		return "", 0, false
	}
	index, err := strconv.Atoi(id[at+1:])
	return id[:at], index, err == nil && index >= 0
}

// stray notes an object that no receipt names. It can be removed when the samples
// it looks like are all committed; else whoever makes them deals with it.
func (i *inspection) stray(key string, of task.Range) {
	d := Damage{Kind: StrayObject, Key: key}
	removable := true
	for index := max(of.Start, i.view.Range.Start); index < min(of.End, i.view.Range.End); index++ {
		if _, there := i.view.held.get(index); !there {
			removable, d.Detail = false, "its sample has no receipt"
		}
	}
	i.report.add(d)
	if removable && len(i.report.plan.Remove) < maxPlanned {
		i.report.plan.Remove = append(i.report.plan.Remove, key)
	}
}

// hurtShard notes damage of a shard whose receipt describes anything.
func (i *inspection) hurtShard(s *shard, d Damage) {
	if e := &i.receipts[s.receipt]; e.live > 0 {
		e.hurts(d)
		i.report.add(d)
	}
}

// hurts notes damage of an object that the receipt vouches for.
func (e *recorded) hurts(d Damage) {
	if e.hurt == nil {
		e.hurt = map[string]bool{}
	}
	e.hurt[d.Key] = true
	if d.Kind == MissingObject {
		e.missing = true
	} else {
		e.corrupt = true
	}
}

// explain finds out what is wrong with each sample whose sum is not 0.
func (i *inspection) explain(ctx context.Context) error {
	for key, s := range i.shards {
		if !s.seen {
			i.hurtShard(s, Damage{Kind: MissingObject, Key: key})
		}
	}
	wrong := map[int][]int{} // place of a receipt: indices
	for index, h := range i.view.held.all() {
		if h.objects != 0 {
			wrong[int(h.receipt)-1] = append(wrong[int(h.receipt)-1], index)
		}
	}
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, place := range slices.Sorted(maps.Keys(wrong)) {
		indices := wrong[place]
		slices.Sort(indices)
		group.Go(func() error { return i.explainReceipt(limited, place, indices) })
	}
	return group.Wait()
}

// again reads a receipt once more.
func (i *inspection) again(ctx context.Context, e *recorded) (store.Receipt, error) {
	c, err := i.Store.Cell(ctx, e.cell.Key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return store.Receipt{}, err
	}
	if err == nil {
		for _, r := range c.Receipts {
			if r.ID() == e.id {
				return r, nil
			}
		}
	}
	return store.Receipt{}, fmt.Errorf("%s was changed while it was checked: somebody is at work on these samples",
		e.cell.Key)
}

func (i *inspection) explainReceipt(ctx context.Context, place int, indices []int) error {
	e := &i.receipts[place]
	r, err := i.again(ctx, e)
	if err != nil {
		return err
	}
	for _, s := range r.Current {
		if _, asked := slices.BinarySearch(indices, s.Index); !asked {
			continue
		}
		want := map[string]int64{}
		if r.Shard == nil {
			for _, f := range s.Files {
				want[i.Store.Dataset().FileKey(i.name, s.ID, f.Name)] = f.Size
			}
		}
		var found []Damage
		for o, err := range i.Store.List(ctx, i.Store.Dataset().FileKey(i.name, s.ID, ""), "") {
			if err != nil {
				return err
			}
			size, named := want[o.Key]
			switch {
			case !named:
				found = append(found, Damage{Kind: StrayObject, Key: o.Key})
			case size != o.Size:
				found = append(found, Damage{Kind: WrongSize, Key: o.Key, Detail: sizes(o.Size, size)})
			}
			delete(want, o.Key)
		}
		for _, key := range slices.Sorted(maps.Keys(want)) {
			found = append(found, Damage{Kind: MissingObject, Key: key})
		}
		i.note(e, found...)
	}
	return nil
}

// note takes damage of a receipt's objects into the report.
func (i *inspection) note(e *recorded, found ...Damage) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, d := range found {
		if d.Kind == StrayObject {
			i.stray(d.Key, task.Range{})
			continue
		}
		i.report.add(d)
		e.hurts(d)
	}
}

// conclude fills in what follows from the rest.
func (i *inspection) conclude(ctx context.Context) error {
	r := i.report
	missing := i.view.Missing()
	r.Samples, r.Bytes, r.Missing = i.view.Samples(), i.view.Bytes(), Spans(missing)
	r.Alike, r.Chunks = i.view.Alike()
	duplicates := i.view.Duplicates()
	r.Duplicates, r.Distinct = len(duplicates), r.Samples-len(duplicates)
	if r.Duplicates > 0 {
		r.First = duplicates[:min(maxFirst, len(duplicates))]
		pool := i.view.Pool()
		r.Pool = &pool
	}
	order := Kinds()
	slices.SortStableFunc(r.Examples, func(a, b Damage) int {
		return cmp.Or(slices.Index(order, a.Kind)-slices.Index(order, b.Kind), strings.Compare(a.Key, b.Key))
	})
	r.Whole = len(missing) == 0 && len(r.Damaged) == 0
	r.plan.Missing = missing
	slices.Sort(r.plan.Remove)
	slices.Sort(r.plan.Replace)
	r.plan.Replace = slices.Compact(r.plan.Replace)
	for _, e := range i.receipts {
		tally(&r.Commits, e.commit, e.live)
		tally(&r.Locks, e.lock, e.live)
		if !e.missing && !e.corrupt {
			continue
		}
		receipt, err := i.again(ctx, &e)
		if err != nil {
			return err
		}
		ref := Ref{Key: e.cell.Key, Digest: digest(receipt)}
		if e.corrupt {
			r.plan.Corrupt = append(r.plan.Corrupt, ref)
		} else {
			r.plan.Gone = append(r.plan.Gone, ref)
		}
	}
	return nil
}

// tally counts samples by what is known of them.
func tally(of *map[string]int, what string, samples int) {
	if what == "" || samples == 0 {
		return
	}
	if *of == nil {
		*of = map[string]int{}
	}
	(*of)[what] += samples
}
