package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Cell reads one cell by its key, or returns ErrNotFound.
func (s *Store) Cell(ctx context.Context, key string) (*Cell, error) {
	o, err := s.read(ctx, key)
	if err != nil {
		return nil, err
	}
	return decode(o)
}

// CellName is what a listing shows of a cell.
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
			err := each(ctx, len(part), func(ctx context.Context, i int) error {
				c, err := s.Cell(ctx, part[i].Key)
				switch answers[i].cell = c; {
				case errors.Is(err, ErrDamaged):
					answers[i].damage = err
				case !errors.Is(err, ErrNotFound):
					return err
				}
				return nil
			})
			if err != nil {
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
			if slices.ContainsFunc(receipt.Current, func(s ReceiptSample) bool {
				return r.Start <= s.Index &&
					s.Index < r.End
			}) {
				list = append(list, receipt)
			}
		}
	}
	return list, nil
}
