package web

import (
	"context"
	"errors"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

const (
	cellsAtOnce = 900                    // cells that one call lists: about a page of a listing
	yield       = 300 * time.Millisecond // that the first listing of a large dataset leaves to the first page
	listers     = 4                      // calls at once
	patience    = 150 * time.Millisecond // how long a request waits for a listing
	fresh       = time.Second            // a listing is repeated when it is older, or than 20 times what it took
)

// geometry is which samples are committed, as a listing of receipts shows it, and so which are where in the
// grid: all of one generator after all of another. It never changes.
type geometry struct {
	manifest   task.Manifest
	generators []extent // by name
	complete   bool     // false while the first listing goes on: then it is what was asked for
	problem    string   // of receipts that are damaged, none of whose samples is in it, or of the last listing
	version    int      // another one for other samples
	listed     time.Time
	took       time.Duration
}

type extent struct {
	Name   string
	Total  int
	ranges []task.Range // in order
	cells  []cellMark   // in order
}

func (g *geometry) extent(name string) *extent {
	if list := g.of(name); name != "" && len(list) > 0 {
		return &list[0]
	}
	return nil
}

// of is the extent of a generator, or are those of all if it is "".
func (g *geometry) of(generator string) []extent {
	if generator == "" {
		return g.generators
	}
	i := slices.IndexFunc(g.generators, func(e extent) bool { return e.Name == generator })
	return g.generators[max(i, 0) : i+1]
}

func (g *geometry) total(generator string) (n int) {
	for _, e := range g.of(generator) {
		n += e.Total
	}
	return n
}

// at returns samples from a place on, at most count.
func (g *geometry) at(generator string, from, count int) (list []sampleAt) {
	for _, e := range g.of(generator) {
		if from >= e.Total {
			from -= e.Total
			continue
		}
		for _, r := range e.ranges {
			for i := r.Start + from; i < r.End && len(list) < count; i++ {
				list = append(list, sampleAt{e.Name, i})
			}
			from = max(0, from-r.Len())
		}
		if len(list) == count {
			break
		}
	}
	return list
}

// find returns the place of a sample, or of the next one there is, and whether it is there.
func (g *geometry) find(generator string, at sampleAt) (place int, there bool) {
	for _, e := range g.of(generator) {
		if e.Name != at.Generator {
			place += e.Total
			continue
		}
		for _, r := range e.ranges {
			if at.Index < r.End {
				return place + max(0, at.Index-r.Start), at.Index >= r.Start
			}
			place += r.Len()
		}
		return max(0, place-1), false
	}
	return 0, false
}

// lister keeps the geometry of a dataset up to date while somebody asks for it.
type lister struct {
	store      *store.Store
	background context.Context // of the listings

	mu      sync.Mutex
	current *geometry // nil before the first answer
	running bool
	failed  error                                 // of the last listing
	changed chan struct{}                         // closed, and replaced, with each change of these
	known   map[string]map[string]dataset.Partial // by stretch, cells that are partly committed; for who lists
}

// geometry returns what is known; if the last listing failed, its problem is that. While the first listing goes on it
// waits until enough is known, and after that a moment for a listing that takes no longer.
func (l *lister) geometry(ctx context.Context, enough func(*geometry) bool) (*geometry, error) {
	limit, late := time.After(patience), false
	for {
		l.mu.Lock()
		if !l.running && (l.current == nil || time.Since(l.current.listed) > max(fresh, 20*l.current.took)) {
			l.running, l.failed = true, nil
			go l.list(l.background)
		}
		g, running, failed, changed := l.current, l.running, l.failed, l.changed
		if g != nil && failed != nil { // what was listed before is shown
			before := *g
			before.problem = describe(failed).Error
			g, failed = &before, nil
		}
		l.mu.Unlock()
		switch {
		case failed != nil, g != nil && !running:
			return g, failed
		case g != nil && !g.complete && enough(g), g != nil && g.complete && (late || g.took > patience):
			return g, nil
		}
		select {
		case <-changed:
		case <-limit:
			late, limit = true, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// anything is enough for who asks again; has is for who needs a sample, and more for who needs the one at a place.
func anything(*geometry) bool { return true }

// never is for who needs all of it.
func never(*geometry) bool { return false }

func has(at sampleAt) func(*geometry) bool {
	return func(g *geometry) bool {
		e := g.extent(at.Generator)
		if at.Generator == "" && len(g.generators) > 0 {
			e = &g.generators[0] // who names none means the first
		}
		if e == nil {
			return true
		}
		_, ok := e.cell(at.Index)
		return ok
	}
}

func more(generator string, place int) func(*geometry) bool {
	return func(g *geometry) bool { return g.total(generator) > place }
}

// set makes a change that whoever waits is to see.
func (l *lister) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	close(l.changed)
	l.changed = make(chan struct{})
}

// stretch is a part of a generator's indices that is listed with one call.
type stretch struct {
	generator string
	task.Range
	committed []task.Range
	cells     []cellMark
	damaged   error
}

// stretches cuts the indices of all generators so that a call lists about a page, by what was asked for of them.
func stretches(m *task.Manifest) (list []*stretch) {
	for _, g := range m.Generators {
		asked, step := m.Asked(g.Name), cellsAtOnce*max(1, g.ChunkSize)
		from := 0
		for next := asked.Start/step*step + step; next < asked.End; next += step {
			list = append(list, &stretch{generator: g.Name, Range: task.Range{Start: from, End: next}})
			from = next
		}
		list = append(list, &stretch{generator: g.Name, Range: task.Range{Start: from, End: task.MaxIndex}})
	}
	return list
}

func (l *lister) list(ctx context.Context) {
	began := time.Now()
	m, err := l.store.Manifest(ctx)
	if errors.Is(err, store.ErrNotFound) {
		m, err = task.NewManifest(l.store.Dataset(), 0, task.Files), nil
	}
	if err == nil {
		slices.SortFunc(m.Generators, func(a, b task.PinnedGenerator) int { return strings.Compare(a.Name, b.Name) })
		err = l.listAll(ctx, m, began)
	}
	l.set(func() {
		l.running = false
		if l.failed = err; err != nil && l.current != nil {
			l.current.listed = time.Now() // it is tried again later
		}
	})
}

func (l *lister) listAll(ctx context.Context, m task.Manifest, began time.Time) error {
	l.mu.Lock()
	first := l.current == nil
	l.mu.Unlock()
	if first {
		l.publish(askedFor(m))
	}
	all := stretches(&m)
	if first && len(all) > 2*listers {
		select { // the first page comes first
		case <-time.After(yield):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(listers)
	for _, s := range all {
		name := s.generator + " " + s.String()
		known := l.known[name]
		if known == nil {
			known = map[string]dataset.Partial{}
			l.known[name] = known
		}
		group.Go(func() error {
			missing, names, err := dataset.Missing(ctx, l.store, s.generator, s.Range, known)
			if err != nil && !errors.Is(err, store.ErrDamaged) {
				return err
			}
			s.damaged = err
			s.committed = dataset.Gaps(s.Range, missing)
			for _, n := range names {
				s.cells = append(s.cells, cellMark{int32(n.Range.Start), int32(n.Range.End), n.State == store.Empty,
					etagMark(n.ETag)})
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	g := &geometry{manifest: m, complete: true, listed: time.Now(), took: time.Since(began)}
	for _, pinned := range m.Generators {
		e := extent{Name: pinned.Name}
		for _, s := range all { // in order
			if s.generator != pinned.Name {
				continue
			}
			e.cells = append(e.cells, s.cells...)
			if s.damaged != nil {
				g.problem = describe(s.damaged).Error
			}
			for _, r := range s.committed {
				if n := len(e.ranges); n > 0 && e.ranges[n-1].End == r.Start {
					e.ranges[n-1].End = r.End
				} else {
					e.ranges = append(e.ranges, r)
				}
			}
		}
		e.cells = slices.CompactFunc(e.cells, func(a, b cellMark) bool { return a.start == b.start }) // of two stretches
		e.Total = dataset.Length(e.ranges)
		g.generators = append(g.generators, e)
	}
	l.publish(g)
	return nil
}

// askedFor is the geometry until the listing is done: as if all was committed that was asked for. What a place has is
// read with its receipt, whose key follows from the chunk size.
func askedFor(m task.Manifest) *geometry {
	g := &geometry{manifest: m}
	for _, pinned := range m.Generators {
		e, asked := extent{Name: pinned.Name}, m.Asked(pinned.Name)
		if chunk := pinned.ChunkSize; chunk > 0 && asked.Len() > 0 {
			e.ranges, e.Total = []task.Range{asked}, asked.Len()
			for start := asked.Start / chunk * chunk; start < asked.End; start += chunk {
				e.cells = append(e.cells, cellMark{start: int32(start), end: int32(start + chunk)})
			}
		}
		g.generators = append(g.generators, e)
	}
	return g
}

func (l *lister) publish(g *geometry) {
	l.set(func() {
		if old := l.current; old != nil {
			g.version = old.version
			if !slices.EqualFunc(old.generators, g.generators, func(a, b extent) bool {
				return a.Name == b.Name && slices.Equal(a.ranges, b.ranges) && slices.Equal(a.cells, b.cells)
			}) {
				g.version++
			}
		}
		l.current = g
	})
}

type cellMark struct {
	start, end int32
	empty      bool   // no sample of it is committed
	etag       uint64 // hash of its ETag: another one when it was changed
}

func (c cellMark) rangeOf() task.Range { return task.Range{Start: int(c.start), End: int(c.end)} }

func (e *extent) cell(index int) (cellMark, bool) {
	at, _ := slices.BinarySearchFunc(e.cells, int32(index), func(c cellMark, i int32) int { return int(c.end - 1 - i) })
	if at < len(e.cells) && int(e.cells[at].start) <= index {
		return e.cells[at], true
	}
	return cellMark{}, false
}

func etagMark(etag string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(etag))
	return h.Sum64()
}
