package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Receipt commits a chunk: it is written after its objects, and what has no
// receipt does not count. Where two overlap, the one with the higher claim
// number describes what is stored.
type Receipt struct {
	Version      int             `json:"version"`
	Dataset      task.Dataset    `json:"dataset,omitzero"`
	Generator    string          `json:"generator"`
	Commit       string          `json:"commit,omitempty"`
	Image        string          `json:"image,omitempty"`
	Lock         string          `json:"lock,omitempty"`     // SHA-256 of what the generator's packages were installed from
	Python       string          `json:"python,omitempty"`   // its version
	Platform     string          `json:"platform,omitempty"` // as in linux-x86_64
	RunID        string          `json:"run_id,omitempty"`
	RunSeed      int             `json:"run_seed"`
	ChunkSize    int             `json:"chunk_size"`
	PartSize     int             `json:"part_size,omitempty"`     // of the chunk, that one process made; 0 is all of it
	ChunkStart   int             `json:"chunk_start"`             // first index that the process made
	Seed         int             `json:"seed"`                    // that the generator was given
	Attempt      int             `json:"attempt"`                 // whose seed it was
	FirstAttempt int             `json:"first_attempt,omitempty"` // of a repair: what its task began with, and its name says
	Command      []string        `json:"command"`
	Start        int             `json:"start"` // of the kept range
	End          int             `json:"end"`   // exclusive
	Indices      []int           `json:"indices,omitempty"`
	Claim        int             `json:"claim"`
	Format       task.Format     `json:"output_format"`
	Domain       string          `json:"domain"`
	Samples      []ReceiptSample `json:"samples"`
	Shard        *Object         `json:"shard,omitempty"`
	CPUSeconds   float64         `json:"cpu_seconds"`
	WallSeconds  float64         `json:"wall_seconds"`
	PeakRSSBytes int64           `json:"peak_rss_bytes"`
	RequestID    string          `json:"request_id,omitempty"`
	MessageID    string          `json:"message_id,omitempty"`
	Receives     int             `json:"receives,omitempty"`
	Committed    time.Time       `json:"committed"`

	ReadFrom string `json:"-"` // the key it was read from, which should be its Key
}

// ReceiptSample is one sample of a receipt.
type ReceiptSample struct {
	ID          string        `json:"id"`
	Index       int           `json:"index"`
	Fingerprint string        `json:"fingerprint"`
	Files       []ReceiptFile `json:"files"`
}

// ReceiptFile is one file of a sample.
type ReceiptFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // hexadecimal
}

// Described returns a sample as a receipt has it.
func Described(s sample.Sample) ReceiptSample {
	d := ReceiptSample{ID: s.ID, Index: s.Index, Fingerprint: s.Fingerprint}
	for _, f := range s.Files {
		d.Files = append(d.Files, ReceiptFile{Name: f.Name, Size: f.Size, SHA256: f.SHA256})
	}
	return d
}

// Range returns the kept range.
func (r Receipt) Range() task.Range { return task.Range{Start: r.Start, End: r.End} }

// chunk is the part of the chunk that makes its names.
func (r Receipt) chunk() task.Chunk {
	return task.Chunk{Keep: r.Range(), Indices: r.Indices, Attempt: r.FirstAttempt}
}

// Key returns where the receipt stands.
func (r Receipt) Key() string { return r.Dataset.ReceiptKey(r.Generator, r.chunk()) }

// ObjectKeys returns the data objects the receipt vouches for.
func (r Receipt) ObjectKeys() []string {
	if r.Shard != nil {
		return []string{r.Shard.Key}
	}
	var keys []string
	for _, s := range r.Samples {
		for _, f := range s.Files {
			keys = append(keys, r.Dataset.FileKey(r.Generator, s.ID, f.Name))
		}
	}
	return keys
}

// Bytes returns the size of the samples' files, as they are unpacked.
func (r Receipt) Bytes() int64 {
	var n int64
	for _, s := range r.Samples {
		for _, f := range s.Files {
			n += f.Size
		}
	}
	return n
}

// Made returns how many samples the generator was asked for.
func (r Receipt) Made() int {
	switch {
	case r.Indices != nil:
		return len(r.Indices)
	case r.PartSize > 0:
		return r.PartSize
	}
	return r.ChunkSize
}

// PutReceipt commits a chunk. It fails with ErrExists when another receipt
// stands under its key.
func (s *Store) PutReceipt(ctx context.Context, r Receipt) error { return s.putReceipt(ctx, r, true) }

// ReplaceReceipt writes a receipt in the place of the one under its key. Only the
// holder of the claims of its cells may.
func (s *Store) ReplaceReceipt(ctx context.Context, r Receipt) error {
	return s.putReceipt(ctx, r, false)
}

func (s *Store) putReceipt(ctx context.Context, r Receipt, once bool) error {
	r.Version = 1
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.put(ctx, r.Key(), body, once)
}

// DeleteReceipt takes back what stands under r's key.
func (s *Store) DeleteReceipt(ctx context.Context, r Receipt) error {
	return s.Delete(ctx, []string{r.Key()})
}

// Receipt reads one receipt, or returns ErrNotFound.
func (s *Store) Receipt(ctx context.Context, key string) (Receipt, error) {
	r := Receipt{ReadFrom: key}
	err := s.readJSON(ctx, key, &r)
	return r, err
}

// ReceiptName is what a listing tells of a receipt.
type ReceiptName struct {
	Key      string
	Range    task.Range
	Repair   bool      // only some indices of the range
	Modified time.Time // when it was written, by the store's clock
}

// ReceiptNames lists the receipts of a generator in the order of their ranges,
// without reading them: all that reach beyond an index, and a few before.
//
// The range of no receipt, repairs included, is longer than task.MaxSpan, so one
// listing that begins that much before finds them all.
func (s *Store) ReceiptNames(ctx context.Context, generator string, from int) iter.Seq2[ReceiptName, error] {
	after := ""
	if from -= task.MaxSpan; from > 0 {
		after = fmt.Sprintf("%s%08d", s.dataset.ReceiptsPrefix(generator), from)
	}
	return func(yield func(ReceiptName, error) bool) {
		for o, err := range s.List(ctx, s.dataset.ReceiptsPrefix(generator), after) {
			if err != nil {
				yield(ReceiptName{}, err)
				return
			}
			if r, repair, ok := task.ReceiptRange(o.Key); ok && !yield(ReceiptName{o.Key, r, repair, o.Modified}, nil) {
				return
			}
		}
	}
}

// Receipts returns the receipts that overlap a range, lowest claim first.
func (s *Store) Receipts(ctx context.Context, generator string, r task.Range) ([]Receipt, error) {
	var names []ReceiptName
	for name, err := range s.ReceiptNames(ctx, generator, r.Start) {
		if err != nil {
			return nil, err
		}
		if name.Range.Start >= r.End {
			break
		}
		if name.Range.Overlaps(r) {
			names = append(names, name)
		}
	}
	var list []Receipt
	for receipt, err := range s.ReadReceipts(ctx, names) {
		if err != nil {
			return nil, err
		}
		list = append(list, receipt)
	}
	slices.SortStableFunc(list, func(a, b Receipt) int { return a.Claim - b.Claim })
	return list, nil
}

// ReadReceipts reads receipts in the order of their names, some at a time, so
// that a caller which drops them as they come needs little memory. One that was
// deleted since it was listed is left out. One that cannot be understood is an
// *Error of ErrDamaged, with its key; a caller may go on to the next. Any other
// error is the end.
func (s *Store) ReadReceipts(ctx context.Context, names []ReceiptName) iter.Seq2[Receipt, error] {
	type answer struct {
		receipt *Receipt
		damage  error
	}
	return func(yield func(Receipt, error) bool) {
		for part := range slices.Chunk(names, 2*Parallel) {
			answers := make([]answer, len(part))
			group, ctx := errgroup.WithContext(ctx)
			group.SetLimit(Parallel)
			for i, name := range part {
				group.Go(func() error {
					r, err := s.Receipt(ctx, name.Key)
					switch {
					case errors.Is(err, ErrNotFound):
						return nil
					case errors.Is(err, ErrDamaged):
						r, answers[i].damage = Receipt{}, err
					case err != nil:
						return err
					}
					answers[i].receipt = &r
					return nil
				})
			}
			if err := group.Wait(); err != nil {
				yield(Receipt{}, err)
				return
			}
			for _, a := range answers {
				if a.receipt != nil && !yield(*a.receipt, a.damage) {
					return
				}
			}
		}
	}
}
