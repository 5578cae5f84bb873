package export

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

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
