package download

import (
	"context"
	"errors"
	"io"
	"path"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// untar takes the missing files out of a shard, and off that list. What is wrong with the shard is a dataset.Damage.
func (d *download) untar(ctx context.Context, from io.Reader, r store.Receipt, missing map[string]expected) error {
	return dataset.ReadShard(from, r, func(s store.ReceiptSample, f store.ReceiptFile, from io.Reader) error {
		name := path.Join(r.Generator, s.ID, f.Name)
		w, ok := missing[name]
		if !ok {
			return nil // there already, or replaced since
		}
		err := d.save(w, from)
		if err == nil || isFileError(err) { // what is wrong is wrong with this file alone
			err = d.judge(ctx, name, err)
			delete(missing, name)
		}
		return err
	})
}

// isFileError reports whether an error is of writing a file, or its bytes are wrong.
func isFileError(err error) bool {
	_, unsavable := errors.AsType[*unsaved](err)
	_, differs := errors.AsType[*unfit](err)
	return unsavable || differs
}
