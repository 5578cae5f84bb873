package web

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
)

const (
	readers        = 8 // cells whose metadata are read at once
	keptConditions = 4
)

// condition is what was found out about one --where: metadata are no part of receipts, so each sample's metadata.json is
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

// condition returns what is known of a --where.
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

// cell finds out what a cell's samples are.
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
