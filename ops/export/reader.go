package export

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"iter"

	"golang.org/x/sync/semaphore"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// Reader reads samples for who exports nothing, each file compared with its receipt.
type Reader struct{ source source }

// NewReader returns a reader of the store's dataset. Its rows take at most 48 MiB at a time.
func NewReader(st *store.Store) *Reader {
	splits, _ := ParseSplits("") // rows of a Reader are in no split
	return &Reader{source{store: st, memory: semaphore.NewWeighted(readAhead), splits: splits}}
}

// Samples returns samples of a cell in the order of their indices, with the files that are wanted, or all if want is
// nil. A shard is read once, to the last sample that is kept. A row's files can be read until the next row is taken.
// The error is a *DamageError if the bucket does not have what the receipt says.
func (r *Reader) Samples(ctx context.Context, cell *store.Cell, keep func(index int) bool,
	want func(file string) bool) iter.Seq2[*Row, error] {
	var list []chosen
	for _, c := range current(cell) {
		if keep(c.sample.Index) {
			list = append(list, c)
		}
	}
	return r.source.cell(ctx, cell, list, want)
}

// Place is what fractions of splits are compared with: the first 53 bits of SHA-256("split " + fingerprint), as a
// number in [0, 1).
func Place(fingerprint string) float64 {
	hash := sha256.Sum256([]byte("split " + fingerprint))
	return float64(binary.BigEndian.Uint64(hash[:8])>>11) / (1 << 53)
}

// At returns the split of a sample by its generator and its Place, or "" if it is in none.
func (s *Splits) At(generator string, place float64) string {
	if s.generators != nil {
		if at := s.placeOf(generator); at >= 0 {
			return s.names[at]
		}
		return ""
	}
	for at, until := range s.until {
		if place < until {
			return s.names[at]
		}
	}
	return s.names[len(s.names)-1] // the fractions are a little less than 1
}
