package export

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sync/semaphore"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
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
	list := slices.DeleteFunc(current(cell), func(c chosen) bool { return !keep(c.sample.Index) })
	return r.source.cell(ctx, cell, list, want)
}

// errStopped says that nobody wants the rest.
var errStopped = errors.New("stopped")

// shard yields the files of samples of a shard. Those and the shard's members are both in the
// order of their ids. If the connection breaks, the shard is read again up to where it was.
func (s *source) shard(ctx context.Context, r store.Receipt, samples []store.ReceiptSample,
	want func(string) bool) iter.Seq2[[]File, error] {
	return func(yield func([]File, error) bool) {
		done := 0 // samples that were yielded
		err := s.open(ctx, r.Shard.Key, func(from io.Reader) error {
			var list []File
			seen := 0 // files of the next sample
			err := dataset.ReadShard(from, r, func(is store.ReceiptSample, f store.ReceiptFile, from io.Reader) error {
				if done == len(samples) {
					return errStopped
				}
				if is.ID != samples[done].ID {
					return nil
				}
				if want == nil || want(f.Name) {
					file, err := take(r.Shard.Key+": "+is.ID+"/"+f.Name, from, f)
					if err != nil {
						return err
					}
					list = append(list, file)
				}
				if seen++; seen < len(is.Files) {
					return nil
				}
				files := list
				done, seen, list = done+1, 0, nil
				if !yield(files, nil) {
					return errStopped
				}
				return nil
			})
			closeAll(list)
			if err == nil && done < len(samples) {
				return &DamageError{r.Shard.Key, "does not have its samples in order"}
			}
			return err
		})
		damage, damaged := errors.AsType[dataset.Damage](err)
		switch {
		case errors.Is(err, store.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
			yield(nil, &DamageError{r.Shard.Key, "is not in the bucket"})
		case damaged:
			yield(nil, &DamageError{damage.Key, strings.TrimPrefix(damage.Detail, "it ")})
		case err != nil && !errors.Is(err, errStopped):
			yield(nil, err)
		}
	}
}

// text returns a text file as UTF-8: byte for byte if it is that already. JSON may be in UTF-16 or UTF-32, too, with or
// without a byte order mark. Anything else has U+FFFD in the place of what is no character.
func text(file []byte) string {
	if utf8.Valid(file) && !bytes.Contains(file, []byte{0}) {
		return string(file)
	}
	if decoding := decodingOf(file); decoding != nil {
		if decoded, err := decoding.NewDecoder().Bytes(file); err == nil {
			return string(decoded)
		}
	}
	return strings.ToValidUTF8(string(file), "\uFFFD")
}

// decodingOf goes by the byte order mark, or by the zeros of the first ASCII characters, as Python does.
func decodingOf(file []byte) encoding.Encoding {
	head := append(bytes.Clone(file[:min(4, len(file))]), 1, 1, 1, 1)
	zero := func(i int) bool { return head[i] == 0 }
	switch {
	case bytes.HasPrefix(file, []byte{0xFF, 0xFE, 0, 0}) || !zero(0) && zero(1) && zero(2) && zero(3):
		return utf32.UTF32(utf32.LittleEndian, utf32.UseBOM)
	case bytes.HasPrefix(file, []byte{0, 0, 0xFE, 0xFF}) || zero(0) && zero(1) && zero(2) && !zero(3):
		return utf32.UTF32(utf32.BigEndian, utf32.UseBOM)
	case bytes.HasPrefix(file, []byte{0xFF, 0xFE}) || !zero(0) && zero(1):
		return unicode.UTF16(unicode.LittleEndian, unicode.UseBOM)
	case bytes.HasPrefix(file, []byte{0xFE, 0xFF}) || zero(0) && !zero(1):
		return unicode.UTF16(unicode.BigEndian, unicode.UseBOM)
	}
	return nil
}
