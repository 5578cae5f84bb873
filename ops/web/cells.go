package web

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

const (
	keptCells    = 128              // parsed receipts of about 50 samples each, 100 kB
	keptFor      = 10 * time.Second // for which one counts as it was read: a listing may be minutes old
	keptDatasets = 8
	pageLimit    = 300 // samples of one request
)

// browsed is one dataset, for all who look at it.
type browsed struct {
	*store.Store
	*lister
	Home   task.Dataset // the dataset of addresses that name none
	reader *export.Reader
	index  *index
	flight singleflight.Group
	flags  kept[*flagsRead]

	mu    sync.Mutex
	cells map[string]*keptCell // by key
	used  time.Time
}

type keptCell struct {
	*store.Cell
	etag uint64
	read time.Time
}

func (s *Server) browsed(st *store.Store) *browsed {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := st.Dataset().String()
	d := s.datasets[name]
	if d == nil {
		dropOldest(s.datasets, keptDatasets, func(d *browsed) time.Time { return d.used })
		l := &lister{store: st, background: s.background, changed: make(chan struct{}),
			known: map[string]map[string]dataset.Partial{}}
		d = &browsed{Store: st, lister: l, Home: s.Store.Dataset(), reader: export.NewReader(st),
			cells: map[string]*keptCell{}}
		d.index = newIndex(d)
		s.datasets[name] = d
	}
	d.used = time.Now()
	return d
}

// cellOf reads the cell of a sample, once for keptFor as long as the listing shows no change.
func (d *browsed) cellOf(ctx context.Context, g *geometry, at sampleAt) (*store.Cell, error) {
	e := g.extent(at.Generator)
	if e == nil {
		return nil, notFound("dataset %s has no generator %.100s", d.Dataset(), at.Generator)
	}
	mark, ok := e.cell(at.Index)
	if !ok {
		return nil, notFound("sample %d of %s is not committed", at.Index, at.Generator)
	}
	key := d.Dataset().CellKey(at.Generator, mark.rangeOf())
	d.mu.Lock()
	if k := d.cells[key]; k != nil && (k.etag == mark.etag && time.Since(k.read) < keptFor || time.Since(k.read) < fresh) {
		d.mu.Unlock()
		return k.Cell, nil
	}
	d.mu.Unlock()
	return share(ctx, d, "cell "+key, func(ctx context.Context) (*store.Cell, error) {
		c, err := d.Cell(ctx, key)
		if err == nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			dropOldest(d.cells, keptCells, func(k *keptCell) time.Time { return k.read })
			d.cells[key] = &keptCell{c, etagMark(c.ETag()), time.Now()}
		}
		return c, err
	})
}

// share does something once for all who ask for it at the same time. It goes on when one of them leaves.
func share[T any](ctx context.Context, d *browsed, name string, do func(context.Context) (T, error)) (T, error) {
	return wait[T](ctx, begin(d.background, &d.flight, name, func(ctx context.Context) (any, error) { return do(ctx) }))
}

// committed is a sample with the receipt that describes it.
type committed struct {
	sampleAt
	of      *browsed
	receipt *store.Receipt
	sample  store.ReceiptSample
	cell    *store.Cell
}

// sample finds a sample. The error is a notFound if it is not committed.
func (d *browsed) sample(ctx context.Context, g *geometry, at sampleAt) (committed, error) {
	cell, err := d.cellOf(ctx, g, at)
	if errors.Is(err, store.ErrNotFound) {
		err = notFound("sample %d of %s is gone: its receipt was deleted", at.Index, at.Generator)
	}
	if err != nil {
		return committed{}, err
	}
	for i := range cell.Receipts {
		for _, s := range cell.Receipts[i].Current {
			if s.Index == at.Index {
				return committed{at, d, &cell.Receipts[i], s, cell}, nil
			}
		}
	}
	return committed{}, notFound("sample %d of %s is not committed", at.Index, at.Generator)
}

func (c committed) file(is func(name string) bool) *sample.File {
	for i := range c.sample.Files {
		if is(c.sample.Files[i].Name) {
			return &c.sample.Files[i]
		}
	}
	return nil
}

func (c committed) video() *sample.File { return c.file(sample.IsGroundTruth) }

func named(name string) func(string) bool { return func(n string) bool { return n == name } }

// image is the address of a picture of the sample, or "".
func (c committed) image(name string) string {
	if f := c.file(named(name)); f != nil {
		return c.media(f)
	}
	return ""
}

func (c committed) size() (n int64) {
	for _, f := range c.sample.Files {
		n += f.Size
	}
	return n
}

// took is the time of the generator for each of its samples, in seconds.
func took(r *store.Receipt) float64 { return r.WallSeconds / float64(max(1, r.Made())) }

type item struct {
	Generator string `json:"generator"`
	Index     int    `json:"index"`
	ID        string `json:"id,omitempty"`
	Frame     string `json:"frame,omitempty"` // address of the first frame
	playable
	Size    int64   `json:"size,omitempty"`    // bytes of all files
	Seconds float64 `json:"seconds,omitempty"` // of the video
	Took    float64 `json:"took,omitempty"`    // seconds
	Flag    string  `json:"flag,omitempty"`    // the reason
	Flagged bool    `json:"flagged,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// items returns what the grid shows of samples, reading each of their receipts once.
func (s *Server) items(ctx context.Context, d *browsed, g *geometry, list []sampleAt) ([]item, error) {
	flags, err := d.readFlags(ctx)
	if err != nil {
		return nil, err
	}
	items := make([]item, len(list))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i, at := range list {
		group.Go(func() error {
			c, err := d.sample(ctx, g, at)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			items[i] = s.item(c)
			items[i].Generator, items[i].Index = at.Generator, at.Index
			items[i].Flag, items[i].Flagged = flags.open[at]
			if err != nil {
				items[i].Error = describe(err).Error
			}
			return nil
		})
	}
	return items, group.Wait()
}

func (s *Server) item(c committed) (i item) {
	if c.receipt == nil {
		return i
	}
	i.ID, i.Size, i.Took, i.Frame = c.sample.ID, c.size(), took(c.receipt), c.image("first_frame.png")
	if v := c.video(); v != nil {
		i.Seconds = v.Media.Seconds
		i.playable = s.playable(c, v)
	}
	return i
}

// samplePath is the address of a sample's page, without the dataset.
func samplePath(at sampleAt) string { return fmt.Sprintf("/sample/%s/%d", at.Generator, at.Index) }

// readAt reads the place of a sample from the path of a request.
func readAt(generator, index string) (sampleAt, error) {
	at := sampleAt{Generator: generator}
	if _, err := fmt.Sscanf(index, "%d", &at.Index); err != nil || at.Index < 0 || at.Index >= task.MaxIndex ||
		fmt.Sprint(at.Index) != index {
		return at, notFound("%.40q is no index of a sample: it must be a number below %d", index, task.MaxIndex)
	}
	if err := task.CheckName(generator); err != nil {
		return at, notFound("generator %v", err)
	}
	return at, nil
}
