package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Cell is one cell of a generator's grid: who works on it, and what of it is
// committed. It is one object, and each change of it a compare-and-swap: who has lost
// the cell can change nothing.
type Cell struct {
	Version   int          `json:"version"`
	Dataset   task.Dataset `json:"dataset,omitzero"`
	Generator string       `json:"generator"`
	Start     int          `json:"start"`
	End       int          `json:"end"`              // exclusive
	Epoch     int          `json:"epoch"`            // how often it was taken
	Holder    *Holder      `json:"holder,omitempty"` // nil once the last one was done with it
	Void      []int        `json:"void,omitempty"`   // committed samples that are being written over: they do not count
	Receipts  []Receipt    `json:"receipts"`         // of two that hold a sample, the later one describes it

	key   string
	etag  string
	taken bool
	stale bool      // its last holder was not done with it, and may have left objects
	until time.Time // how long the holder has it, by the clock of this machine
}

// Holder is who works on a cell.
type Holder struct {
	RequestID string    `json:"request_id"`
	MessageID string    `json:"message_id,omitempty"`
	Nonce     uint64    `json:"nonce"`   // tells two of one request apart
	Seconds   float64   `json:"seconds"` // that it has the cell, from when the object was written
	Deadline  time.Time `json:"-"`       // after it the platform has killed the holder
}

// grace is how much longer than its holder lives a cell is held: what the holder had
// sent when it was killed may be executed a little later. It also covers that the
// times of an answer have whole seconds. It is less than a message is usually hidden
// beyond the time of an invocation (60 s).
const grace = 10 * time.Second

// BusyError says that another worker holds a cell.
type BusyError struct {
	Until     time.Time // the latest moment at which it is free, by the clock of this machine
	RequestID string    // of the holder
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("held by request %s until %s", e.RequestID, e.Until.UTC().Format(time.RFC3339))
}

// State is what a listing tells of a cell: the size of its object, modulo 3. Spaces
// at its end see to that. So to count what is committed, nobody reads more than the
// cells that are Partial.
type State int

// The states.
const (
	Empty    State = iota // no sample is committed
	Partial               // some are
	Complete              // every one is
)

// Range returns the indices of the cell.
func (c *Cell) Range() task.Range { return task.Range{Start: c.Start, End: c.End} }

// Key is the key of the cell's object.
func (c *Cell) Key() string { return c.key }

// ETag is another one each time that the cell is changed.
func (c *Cell) ETag() string { return strings.Trim(c.etag, `"`) }

// Has reports whether a sample is committed.
func (c *Cell) Has(index int) bool {
	return slices.ContainsFunc(c.Receipts, func(r Receipt) bool { return r.Describes(index) })
}

// Committed returns the indices that are committed, in order.
func (c *Cell) Committed() (list []int) {
	for _, r := range c.Receipts {
		for _, s := range r.Current {
			list = append(list, s.Index)
		}
	}
	slices.Sort(list)
	return list
}

// Restorable returns the place of the receipt whose objects a task is to make again, or
// -1 if there is no need any more.
func (c *Cell) Restorable(t task.Task, chunk task.Chunk) int {
	return slices.IndexFunc(c.Receipts, func(r Receipt) bool {
		return r.Epoch == t.Restore && r.Range() == chunk.Keep && len(c.replaced(r)) < len(r.Samples)
	})
}

// Repaired reports whether the chunk of a repair was made, or a later run has looked at
// one of its samples again: what that made stays.
func (c *Cell) Repaired(t task.Task, chunk task.Chunk) bool {
	return slices.ContainsFunc(c.Receipts, func(r Receipt) bool {
		return r.Indices != nil && (r.FirstAttempt == chunk.Attempt && slices.Equal(r.Indices, chunk.Indices) ||
			t.RunID != "" && r.RunID >= t.RunID && slices.ContainsFunc(chunk.Indices, r.Describes))
	})
}

// Replaced returns the samples of a receipt that a later one holds.
func (c *Cell) Replaced(place int) []ReceiptSample { return c.replaced(c.Receipts[place]) }

func (c *Cell) replaced(r Receipt) (list []ReceiptSample) {
	place := slices.IndexFunc(c.Receipts, func(other Receipt) bool { return other.Epoch == r.Epoch && other.Start == r.Start })
	for _, s := range r.Samples {
		if slices.ContainsFunc(c.Receipts[place+1:], func(later Receipt) bool { return later.Holds(s.Index) }) {
			list = append(list, s)
		}
	}
	return list
}

// objects are the keys of the objects that count, and of those that would but for
// Void.
func (c *Cell) objects() map[string]bool {
	all := Cell{Receipts: slices.Clone(c.Receipts)}
	all.settle()
	keys := map[string]bool{}
	for _, r := range all.Receipts {
		for _, key := range r.Objects() {
			keys[key] = true
		}
	}
	return keys
}

// settle finds out what each receipt describes.
func (c *Cell) settle() {
	by := map[int]int{}
	for n, r := range c.Receipts {
		for _, s := range r.Samples {
			by[s.Index] = n
		}
	}
	for _, index := range c.Void {
		delete(by, index)
	}
	for n := range c.Receipts {
		r := &c.Receipts[n]
		r.ReadFrom, r.Current = c.key, nil
		for _, s := range r.Samples {
			if at, ok := by[s.Index]; ok && at == n {
				r.Current = append(r.Current, s)
			}
		}
	}
}

// state is what of the cell is committed.
func (c *Cell) state() State {
	switch len(c.Committed()) {
	case 0:
		return Empty
	case c.End - c.Start:
		return Complete
	}
	return Partial
}

// Encode writes the cell as its object.
func (c *Cell) Encode() ([]byte, error) {
	c.settle()
	text, err := json.Marshal(c)
	for len(text)%3 != int(c.state()) {
		text = append(text, ' ')
	}
	return text, err
}

// ParseCell reads a cell from the text of its object. The error is ErrDamaged.
func ParseCell(key string, text []byte) (*Cell, error) {
	c := &Cell{key: key}
	err := json.Unmarshal(text, c)
	if c.settle(); err == nil && State(len(text)%3) != c.state() {
		err = errors.New("its size tells otherwise what is committed")
	}
	if err != nil {
		return nil, fail("read", key, fmt.Errorf("%w: %w", ErrDamaged, err))
	}
	return c, nil
}

func decode(o content) (*Cell, error) {
	c, err := ParseCell(o.Key, o.text)
	if err != nil {
		return nil, err
	}
	c.etag = o.etag
	if c.Holder != nil {
		c.until = time.Now().Add(o.Modified.Sub(o.now) + seconds(c.Holder.Seconds))
	}
	return c, nil
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// Cell reads one cell by its key, or returns ErrNotFound.
func (s *Store) Cell(ctx context.Context, key string) (*Cell, error) {
	o, err := s.read(ctx, key)
	if err != nil {
		return nil, err
	}
	return decode(o)
}

// Take takes a cell for a holder. It is returned as it is, not taken, if wanted says
// that nothing is left to do in it, unless a holder before was killed in it: what that
// one left is to be cleared away, by who has its message at the latest. It fails with a
// *BusyError while another worker holds it.
//
// Whether a cell is held goes by the bucket's clock alone, which dates both the object
// and the answer: workers' clocks may differ by any amount. What is taken from the
// worker's clock is how long the holder has left, and that before anything is asked, so
// that a slow answer makes the time longer and not shorter.
//
// A cell that nobody took before takes one request.
func (s *Store) Take(ctx context.Context, generator string, cell task.Range, by Holder, wanted func(*Cell) bool) (*Cell, error) {
	by.Nonce = rand.Uint64()
	c := &Cell{Version: 1, Dataset: s.dataset, Generator: generator, Start: cell.Start, End: cell.End, Receipts: []Receipt{}, key: s.dataset.CellKey(generator, cell)}
	for {
		c.Epoch, c.Holder, c.taken = c.Epoch+1, &by, true
		there, err := s.putCell(ctx, c)
		if !errors.Is(err, ErrExists) {
			return c, err
		}
		if c, err = decode(there); err != nil {
			return nil, err
		}
		held := c.Holder != nil && c.until.After(time.Now())
		switch more := wanted(c); {
		case !more && (c.Holder == nil || held && c.Holder.MessageID != by.MessageID):
			return c, nil
		case held:
			return nil, &BusyError{Until: c.until, RequestID: c.Holder.RequestID}
		}
		c.stale = c.Holder != nil
	}
}

// putCell swaps a cell for what it was. If somebody else has changed it, the error is
// ErrExists, and what is there is returned.
func (s *Store) putCell(ctx context.Context, c *Cell) (there content, err error) {
	if c.Holder != nil && !c.Holder.Deadline.IsZero() { // the time begins anew with each object
		by := *c.Holder
		by.Seconds = max(0, time.Until(by.Deadline)+grace).Seconds()
		c.Holder = &by
	}
	text, err := c.Encode()
	if err == nil {
		if there, err = s.swap(ctx, c.key, text, c.etag); err == nil {
			c.etag = there.etag
		}
	}
	return there, err
}

// replace puts a cell that is changed; it is the cell only if that succeeded.
func (s *Store) replace(ctx context.Context, c, changed *Cell) error {
	_, err := s.putCell(ctx, changed)
	if err == nil {
		*c = *changed
	}
	return err
}

// Overwrite is said before objects of committed samples are written over: from now on
// they do not count, until they are committed again. It takes no request if none of
// them counts.
func (s *Store) Overwrite(ctx context.Context, c *Cell, samples []int) error {
	changed := *c
	changed.Void = slices.Clone(c.Void)
	for _, index := range samples {
		if c.Has(index) {
			changed.Void = append(changed.Void, index)
		}
	}
	if len(changed.Void) == len(c.Void) {
		return nil
	}
	return s.replace(ctx, c, &changed)
}

// Commit adds a receipt to a cell that was taken, or puts it in the place of another.
// The objects must be stored. What a killed holder left is deleted before, and what
// does not count any more after. With done the cell is given up, too.
func (s *Store) Commit(ctx context.Context, c *Cell, r Receipt, place int, done bool) error {
	changed := *c
	changed.Receipts = slices.Clone(c.Receipts)
	if place < 0 {
		place = len(c.Receipts)
		changed.Receipts = append(changed.Receipts, r)
	}
	changed.Receipts[place] = r
	replaced := changed.Replaced(place) // may be void still
	changed.Void = slices.DeleteFunc(slices.Clone(c.Void), func(index int) bool { return r.Holds(index) && !holds(replaced, index) })
	before, after := c.objects(), changed.objects()
	if err := s.Clear(ctx, &changed, before); err != nil {
		return err
	}
	var gone []string
	for key := range before {
		if !after[key] {
			gone = append(gone, key)
		}
	}
	if done && len(gone) == 0 {
		changed.Holder = nil
	}
	if err := s.replace(ctx, c, &changed); err != nil {
		return err
	}
	return s.Delete(ctx, gone)
}

// Clear deletes what a holder that was killed has left in the cell: objects that neither
// the cell nor also names. It takes requests only if there was one.
func (s *Store) Clear(ctx context.Context, c *Cell, also map[string]bool) error {
	if !c.stale {
		return nil
	}
	named, at := c.objects(), s.dataset.SamplesPrefix(c.Generator)
	prefixes := map[string]bool{at + c.Generator + "_": true} // of shards, and of samples
	for _, r := range c.Receipts {
		prefixes[at+r.Domain+"_"] = true
	}
	var left []string
	for prefix := range prefixes {
		for o, err := range s.List(ctx, prefix, fmt.Sprintf("%s%08d", prefix, c.Start)) {
			if err != nil {
				return err
			}
			if o.Key >= fmt.Sprintf("%s%08d", prefix, c.End) {
				break
			}
			if !named[o.Key] && !also[o.Key] {
				left = append(left, o.Key)
			}
		}
	}
	if err := s.Delete(ctx, left); err != nil {
		return fmt.Errorf("clear cell %s: %w", c.Range(), err)
	}
	c.stale = false
	return nil
}

// Release gives a cell up, if its holder still has it. Unless every request of the
// holder has been answered (clean), one may still be executed: then the cell is held
// on for grace. What it has left is cleared away by whoever takes it next.
func (s *Store) Release(ctx context.Context, c *Cell, clean bool) error {
	if !c.taken || c.Holder == nil {
		return nil
	}
	changed, by := *c, *c.Holder
	by.Deadline, by.Seconds = time.Time{}, 0
	if !clean {
		by.Seconds = grace.Seconds()
	}
	if changed.Holder = &by; clean && !c.stale {
		changed.Holder = nil
	}
	if err := s.replace(ctx, c, &changed); !errors.Is(err, ErrExists) {
		return err
	}
	return nil
}

// EndHold ends the hold on a cell of a request, or of whoever holds it if requestID is
// empty. It is for who knows that the holder is dead: the local stack.
func (s *Store) EndHold(ctx context.Context, generator string, cell task.Range, requestID string) error {
	c, err := s.Cell(ctx, s.dataset.CellKey(generator, cell))
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) { // which verify tells
		return nil
	}
	if err != nil || c.Holder == nil || requestID != "" && c.Holder.RequestID != requestID {
		return err
	}
	c.taken, c.stale = true, true
	return s.Release(ctx, c, true)
}

// CellName is what a listing tells of a cell.
type CellName struct {
	Key      string
	Range    task.Range
	State    State
	Modified time.Time // when it was written, by the store's clock
	ETag     string    // another one when it was changed
}

// CellNames lists the cells of a generator that overlap a range, in order, without
// reading them.
func (s *Store) CellNames(ctx context.Context, generator string, r task.Range) (names []CellName, err error) {
	prefix, after := s.dataset.CellsPrefix(generator), ""
	if from := r.Start - task.MaxSamples; from > 0 { // no cell has more
		after = fmt.Sprintf("%s%08d", prefix, from)
	}
	for o, err := range s.List(ctx, prefix, after) {
		if err != nil {
			return nil, err
		}
		cell, ok := task.CellRange(o.Key)
		if ok && cell.Start >= r.End {
			break
		}
		if ok && cell.Overlaps(r) {
			names = append(names, CellName{o.Key, cell, State(o.Size % 3), o.Modified, strings.Trim(o.etag, `"`)})
		}
	}
	return names, nil
}

// Cells reads cells in the order of their names, some at a time, so that a caller which
// drops them as they come needs little memory. One that was deleted since it was listed
// is left out. One that cannot be understood is an *Error of ErrDamaged, with its key; a
// caller may go on to the next. Any other error is the end.
func (s *Store) Cells(ctx context.Context, names []CellName) iter.Seq2[*Cell, error] {
	type answer struct {
		cell   *Cell
		damage error
	}
	return func(yield func(*Cell, error) bool) {
		for part := range slices.Chunk(names, 2*Parallel) {
			answers := make([]answer, len(part))
			group, ctx := errgroup.WithContext(ctx)
			group.SetLimit(Parallel)
			for i, name := range part {
				group.Go(func() error {
					c, err := s.Cell(ctx, name.Key)
					if errors.Is(err, ErrDamaged) {
						answers[i].damage = err
						return nil
					}
					if answers[i].cell = c; errors.Is(err, ErrNotFound) {
						return nil
					}
					return err
				})
			}
			if err := group.Wait(); err != nil {
				yield(nil, err)
				return
			}
			for _, a := range answers {
				if (a.cell != nil || a.damage != nil) && !yield(a.cell, a.damage) {
					return
				}
			}
		}
	}
}

// Receipts returns the receipts that describe a sample of a range, cell by cell.
func (s *Store) Receipts(ctx context.Context, generator string, r task.Range) (list []Receipt, err error) {
	names, err := s.CellNames(ctx, generator, r)
	if err != nil {
		return nil, err
	}
	for c, err := range s.Cells(ctx, names) {
		if err != nil {
			return nil, err
		}
		for _, receipt := range c.Receipts {
			if slices.ContainsFunc(receipt.Current, func(s ReceiptSample) bool { return r.Start <= s.Index && s.Index < r.End }) {
				list = append(list, receipt)
			}
		}
	}
	return list, nil
}

// swap stores a small object in the place of the one with an ETag, or where there is
// none. It fails with ErrExists if another is there, and returns that.
//
// The answer can be lost and the request sent again, by us or by the SDK: then the
// second one finds what the first has written. So a refusal is resolved by reading: if
// our own bytes are there, the put has succeeded. For that no two puts may be alike.
func (s *Store) swap(ctx context.Context, key string, text []byte, etag string) (content, error) {
	in := smallObject(key, text)
	if etag == "" {
		in.IfNoneMatch = aws.String("*")
	} else {
		in.IfMatch = &etag
	}
	own := content{Object: Object{Key: key, Size: int64(len(text))}, text: text}
	var err error
	if own.etag, err = s.putObject(ctx, sum(text), in); err == nil {
		return own, nil
	}
	there, readErr := s.read(ctx, key)
	switch {
	case readErr == nil && bytes.Equal(there.text, text):
		return there, nil
	case readErr == nil && refused(err):
		return there, fmt.Errorf("%s: %w", key, ErrExists)
	case errors.Is(readErr, ErrDamaged):
		return there, readErr
	}
	return content{}, fail("put", key, err)
}
