package web

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
	"unique"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

const (
	unwatched = 30 * time.Second // nobody has asked for so long: what goes on in the background stops
	batch     = 64               // receipts between two looks at that
)

// record is what of a sample is asked for by filters and orders: 136 bytes.
type record struct {
	dataset.Made
	run, commit string
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
	generators map[string]*indexed
	asked      time.Time
	running    bool
	problem    string // of the receipts that cannot be read
	conditions map[string]*condition
	results    map[string]*result // by the search
}

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
	return &index{of: d, generators: map[string]*indexed{}, conditions: map[string]*condition{},
		results: map[string]*result{}}
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
	i := x.generators[e.Name]
	for _, c := range e.cells {
		if c.empty {
			continue
		}
		listed[c.start] = true
		if there, ok := i.cells[c.start]; !ok || there.etag != c.etag {
			key := x.of.Dataset().CellKey(e.Name, c.rangeOf())
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
			i.cells[c.start] = indexedCell{c.etag, records(cell)}
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

func records(c *store.Cell) (list []record) {
	for n := range c.Receipts {
		r := &c.Receipts[n]
		run, commit := unique.Make(r.RunID).Value(), unique.Make(r.Commit).Value() // mostly shared by receipts read together
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

const (
	readers        = 8 // cells whose metadata are read at once
	keptConditions = 4
)

// condition is what was found out about one --where: metadata are no part of receipts, so each metadata.json is
// read for it, in the background while somebody asks.
type condition struct {
	*export.Condition
	of   *browsed
	used time.Time // index.mu guards it

	mu      sync.Mutex
	cells   map[cellAt]decided
	asked   time.Time
	running bool
	problem string // of samples that it does not fit, or that are damaged
	failed  string // why the last reading ended
}

type cellAt struct {
	generator string
	start     int32
}

// decided is what a cell's samples are.
type decided struct {
	etag    uint64
	answers map[int32]bool // by index: false if its metadata do not have what is asked for; none if it is not like that
}

func (x *index) condition(text string) (*condition, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if c := x.conditions[text]; c != nil {
		c.used = time.Now()
		return c, nil
	}
	parsed, err := export.ParseCondition(text)
	if err != nil {
		return nil, badRequest("%w", err)
	}
	dropOldest(x.conditions, keptConditions, func(c *condition) time.Time { return c.used })
	c := &condition{Condition: parsed, of: x.of, cells: map[cellAt]decided{}, used: time.Now()}
	x.conditions[text] = c
	return c, nil
}

// want has cells read in the background. c is locked.
func (c *condition) want(g *geometry, cells []cellAt) {
	c.asked = time.Now()
	if len(cells) > 0 && !c.running {
		c.running = true
		go c.read(g, cells)
	}
}

func (c *condition) read(g *geometry, cells []cellAt) {
	group, ctx := errgroup.WithContext(c.of.background)
	group.SetLimit(readers)
	for _, at := range cells {
		c.mu.Lock()
		left := time.Since(c.asked) > unwatched
		c.mu.Unlock()
		if left || ctx.Err() != nil {
			break
		}
		group.Go(func() error { return c.cell(ctx, g, at) })
	}
	err := group.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running, c.failed = false, ""
	if err != nil {
		c.failed = describe(err).Error
	}
}

func (c *condition) cell(ctx context.Context, g *geometry, at cellAt) error {
	cell, err := c.of.Cell(ctx, c.of.Dataset().CellKey(at.generator, markAt(g, at).rangeOf()))
	if err != nil {
		return err
	}
	d, problem := decided{etag: markAt(g, at).etag, answers: map[int32]bool{}}, ""
	for row, err := range c.of.reader.Samples(ctx, cell, func(int) bool { return true }, c.WantsFile) {
		if damage, ok := errors.AsType[*export.DamageError](err); ok {
			problem = damage.Error() // what follows of the cell is not known
			break
		}
		if err != nil {
			return err
		}
		yes, known, err := c.Holds(row)
		if err != nil {
			problem = err.Error()
		}
		if yes || !known {
			d.answers[int32(row.Index)] = yes
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cells[at] = d
	if problem != "" {
		c.problem = problem
	}
	return nil
}

func markAt(g *geometry, at cellAt) cellMark {
	mark, _ := g.extent(at.generator).cell(int(at.start))
	return mark
}

// counted is what is known of a generator's samples only once all are read.
type counted struct {
	version    int            // of what was read
	duplicates map[int32]bool // by dataset.Duplicates
	rule       *inspect.Rule
}

// count counts, unless that was done. What was not read yet is missing in it.
func (i *indexed) count() *counted {
	if i.counted != nil && i.counted.version == i.version {
		return i.counted
	}
	c := &counted{version: i.version, duplicates: map[int32]bool{}}
	var made []dataset.Made
	var marks []inspect.Marks
	for _, cell := range i.cells {
		for _, r := range cell.records {
			made, marks = append(made, r.Made), append(marks, r.marks)
		}
	}
	c.rule = inspect.RuleOf(marks)
	for _, d := range dataset.Duplicates(made) {
		c.duplicates[int32(d.Index)] = true
	}
	i.counted = c
	return c
}

// parseHints reads hints of an address: "any", or the key of one.
func parseHints(text string) (inspect.Set, error) {
	if text == "" {
		return 0, nil
	}
	if text == "any" {
		return ^inspect.Set(0), nil
	}
	kind, err := inspect.ParseKind(text)
	if err != nil {
		return 0, badRequest("%v, any", err)
	}
	if kind.Deep() {
		return 0, badRequest("the hint %s is found in files, which ops inspect reads and this page does not", kind)
	}
	return kind.Set(), nil
}

// hints returns what is known of a sample: what its receipt shows and, if its generator was read for a filter, what
// only all samples show.
func (x *index) hints(c committed) []inspect.Hint {
	x.mu.Lock()
	defer x.mu.Unlock()
	rule := inspect.RuleOf(nil)
	if i := x.generators[c.Generator]; i != nil && i.geometry != nil {
		rule = i.count().rule
	}
	return rule.Hints(&c.sample)
}
