package inspect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// picked are samples whose files are read, of one receipt.
type picked struct {
	receipt *store.Receipt
	samples []sample.Sample // in order of their indices
}

// receipts yields the receipts of a generator in the order of their samples. progress may be nil.
func receipts(ctx context.Context, st *store.Store, generator string,
	progress func(what string, done, all int)) iter.Seq2[*store.Receipt, error] {
	return func(yield func(*store.Receipt, error) bool) {
		names, err := st.CellNames(ctx, generator, task.Range{End: task.MaxIndex})
		if err != nil {
			yield(nil, err)
			return
		}
		var order dataset.Order
		done := 0
		for cell, err := range st.Cells(ctx, names) {
			if err != nil {
				yield(nil, err)
				return
			}
			if wrong := order.Contradiction(cell, st.Dataset(), generator); wrong != "" {
				yield(nil, fmt.Errorf("%s cannot be trusted: %s: %w", cell.Key(), wrong, store.ErrDamaged))
				return
			}
			for i := range cell.Receipts {
				if !yield(&cell.Receipts[i], nil) {
					return
				}
			}
			if done++; progress != nil {
				progress("receipts of "+generator, done, len(names))
			}
		}
	}
}

// pick yields the samples of a generator that are wanted, as its receipts are read. Those of a shard, which is read as
// a whole, come together, others at most atOnce.
func (d *Deep) pick(ctx context.Context, generator string, wanted func(*sample.Sample) bool) iter.Seq2[picked, error] {
	return func(yield func(picked, error) bool) {
		for r, err := range receipts(ctx, d.Store, generator, nil) {
			if err != nil {
				yield(picked{}, err)
				return
			}
			most := atOnce
			if r.Shard != nil {
				most = max(1, len(r.Current))
			}
			var samples []sample.Sample
			for i := range r.Current {
				if wanted(&r.Current[i]) {
					samples = append(samples, r.Current[i])
				}
			}
			for group := range slices.Chunk(samples, most) {
				if !yield(picked{r, group}, nil) {
					return
				}
			}
		}
	}
}

// fetch puts those files of samples that are wanted into folders of a folder, each named as its sample, and returns the
// samples with the paths. A file that does not fit its receipt is store.ErrDamaged.
func (p picked) fetch(ctx context.Context, st *store.Store, dir string, want func(string) bool) ([]sample.Sample,
	error) {
	samples := slices.Clone(p.samples)
	at := map[string]int{}
	for i := range samples {
		s := &samples[i]
		at[s.ID] = i
		s.Files = slices.DeleteFunc(slices.Clone(s.Files), func(f sample.File) bool { return !want(f.Name) })
		for j := range s.Files {
			f := &s.Files[j]
			if !fs.ValidPath(s.ID) || !fs.ValidPath(f.Name) {
				return nil, fmt.Errorf("%s: a file cannot be called %.60q: %w", s.ID, f.Name, store.ErrDamaged)
			}
			f.Path = filepath.Join(dir, s.ID, filepath.FromSlash(f.Name))
			if err := os.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
				return nil, err
			}
		}
	}
	r := p.receipt
	if r.Shard == nil {
		for _, s := range samples {
			for _, f := range s.Files {
				key := r.Dataset.FileKey(r.Generator, s.ID, f.Name)
				err := st.Stream(ctx, key, func(from io.Reader, _ store.Object) error { return save(f, key, from) })
				if err != nil {
					return nil, err
				}
			}
		}
		return samples, nil
	}
	err := st.Stream(ctx, r.Shard.Key, func(from io.Reader, _ store.Object) error {
		return dataset.ReadShard(from, *r, func(s store.ReceiptSample, f store.ReceiptFile, from io.Reader) error {
			i, ok := at[s.ID]
			if !ok || !r.Describes(s.Index) {
				return nil
			}
			if j := slices.IndexFunc(samples[i].Files, func(g sample.File) bool { return g.Name == f.Name }); j >= 0 {
				return save(samples[i].Files[j], r.Shard.Key, from)
			}
			return nil
		})
	})
	if d, ok := errors.AsType[dataset.Damage](err); ok {
		err = fmt.Errorf("%w: %w", d, store.ErrDamaged)
	}
	return samples, err
}

func save(f sample.File, key string, from io.Reader) error {
	to, err := os.Create(f.Path)
	if err != nil {
		return err
	}
	defer to.Close()
	hash, source := sha256.New(), &sample.Source{Reader: io.LimitReader(from, f.Size+1)}
	n, err := io.Copy(io.MultiWriter(to, hash), source)
	if err := errors.Join(err, to.Close()); err != nil {
		return err
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); n != f.Size || sum != f.SHA256 {
		return fmt.Errorf("%s of %s in %s is not what its receipt says: %w", f.Name, filepath.Base(filepath.Dir(f.Path)), key,
			store.ErrDamaged)
	}
	return nil
}
