package web

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

const (
	unwatched = 30 * time.Second // nobody has asked for so long: what goes on in the background stops
	batch     = 64               // receipts between two looks at that
)

// record is what of a sample is asked for by filters and orders: 112 bytes.
type record struct {
	dataset.Made
	run, commit uint16 // places in index.words
	marks       inspect.Marks
	place       float64
	size        uint32 // bytes, at most 4 GB
	seconds     float32
	took        float32
}

// index has the records of generators. It is read when a filter or an order is first asked for, and again where the
// listing shows a change.
type index struct {
	of *browsed

	mu         sync.Mutex
	words      []string // runs and commits
	places     map[string]uint16
	generators map[string]*indexed
	asked      time.Time
	running    bool
	problem    string // of the receipts that cannot be read
	conditions map[string]*condition
	results    map[string]*result // by the search
}

// indexed are the records of one generator.
type indexed struct {
	cells    map[int32]indexedCell // by their first index
	geometry *geometry             // that was read; nil if not all of it was
	version  int
	counted  *counted
}

type indexedCell struct {
	etag    uint64
	records []record
}

func newIndex(d *browsed) *index {
	return &index{of: d, words: []string{""}, places: map[string]uint16{"": 0}, generators: map[string]*indexed{},
		conditions: map[string]*condition{},
		results:    map[string]*result{}}
}

// want has generators read in the background as a geometry has them. It returns how many of their cells there are and
// how many of these were read.
func (x *index) want(g *geometry, names []string) (read, of int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asked = time.Now()
	missing := false
	for _, name := range names {
		i, e := x.generators[name], g.extent(name)
		if i == nil {
			i = &indexed{cells: map[int32]indexedCell{}}
			x.generators[name] = i
		}
		for _, c := range e.cells {
			if c.empty {
				continue
			}
			of++
			if there, ok := i.cells[c.start]; ok && there.etag == c.etag {
				read++
			}
		}
		missing = missing || i.geometry == nil || i.geometry.version != g.version
	}
	if missing && !x.running {
		x.running, x.problem = true, ""
		go x.read(g, names)
	}
	return read, of
}

// read reads what is not read yet.
func (x *index) read(g *geometry, names []string) {
	defer func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.running = false
	}()
	for _, name := range names {
		if !x.readGenerator(x.of.background, g, g.extent(name)) {
			return
		}
	}
}

func (x *index) readGenerator(ctx context.Context, g *geometry, e *extent) bool {
	marks, listed := map[string]cellMark{}, map[int32]bool{}
	var names []store.CellName
	x.mu.Lock()
	i := x.generators[e.name]
	for _, c := range e.cells {
		if c.empty {
			continue
		}
		listed[c.start] = true
		if there, ok := i.cells[c.start]; !ok || there.etag != c.etag {
			key := x.of.Dataset().CellKey(e.name, c.rangeOf())
			marks[key] = c
			names = append(names, store.CellName{Key: key})
		}
	}
	for start := range i.cells {
		if !listed[start] {
			delete(i.cells, start)
			i.version++
		}
	}
	x.mu.Unlock()
	n := 0
	for cell, err := range x.of.Cells(ctx, names) {
		x.mu.Lock()
		broken, named := errors.AsType[*store.Error](err)
		switch {
		case err == nil:
			c := marks[cell.Key()]
			i.cells[c.start] = indexedCell{c.etag, x.records(cell)}
			i.version++
		case errors.Is(err, store.ErrDamaged) && named:
			c := marks[broken.Key]
			i.cells[c.start] = indexedCell{etag: c.etag}
			x.problem = describe(err).Error
		default:
			x.problem = describe(err).Error
			x.mu.Unlock()
			return false
		}
		left := time.Since(x.asked) > unwatched
		x.mu.Unlock()
		if n++; n%batch == 0 && left {
			return false
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	i.geometry = g
	return true
}

// records are those of a cell. x is locked.
func (x *index) records(c *store.Cell) (list []record) {
	for n := range c.Receipts {
		r := &c.Receipts[n]
		run, commit := x.word(r.RunID), x.word(r.Commit)
		for _, s := range r.Current {
			one := committed{receipt: r, sample: s}
			rec := record{Made: dataset.MadeOf(r, &s), run: run, commit: commit, place: export.Place(s.Fingerprint),
				size: uint32(min(one.size(), 1<<32-1)), took: float32(took(r)), marks: inspect.MarksOf(&s)}
			if v := one.video(); v != nil {
				rec.seconds = float32(v.Media.Seconds)
			}
			list = append(list, rec)
		}
	}
	slices.SortFunc(list, func(a, b record) int { return int(a.Index - b.Index) })
	return slices.Clip(list)
}

// word returns the place of a word. From the 65,536th on they are all "".
func (x *index) word(text string) uint16 {
	at, ok := x.places[text]
	if !ok && len(x.words) < 1<<16 {
		at = uint16(len(x.words))
		x.places[text], x.words = at, append(x.words, text)
	}
	return at
}
