package download

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// untar takes the missing files out of a shard, and off that list. The receipt is
// what counts: a member must be a plain file that it names, with the size and hash it
// gives, and just once. So no member can leave the folder, be a link, or unpack to
// more than the receipt says. What is wrong with the shard is an *unfit.
func (d *download) untar(ctx context.Context, from io.Reader, r store.Receipt, missing map[string]expected) error {
	inReceipt := map[string]bool{}
	for _, s := range r.Samples {
		for _, f := range s.Files {
			inReceipt[s.ID+"/"+f.Name] = true
		}
	}
	unpacked, err := gzip.NewReader(from)
	if err != nil {
		return &unfit{"is no gzip file"}
	}
	archive := tar.NewReader(unpacked)
	seen := map[string]bool{}
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return &unfit{"is damaged: " + err.Error()}
		}
		switch {
		case h.Typeflag != tar.TypeReg:
			return &unfit{fmt.Sprintf("holds %q, which is no plain file", h.Name)}
		case seen[h.Name]:
			return &unfit{fmt.Sprintf("holds %q twice", h.Name)}
		}
		seen[h.Name] = true
		if !inReceipt[h.Name] {
			return &unfit{fmt.Sprintf("holds %q, which its receipt does not name", h.Name)}
		}
		name := path.Join(r.Generator, h.Name)
		w, ok := missing[name]
		if !ok || !inReceipt[h.Name] {
			continue // there already, replaced since, or beside the part of the shard that this receipt is for
		}
		if h.Size != w.size {
			return &unfit{fmt.Sprintf("holds %q with %d bytes, its receipt says %d", h.Name, h.Size, w.size)}
		}
		err = d.save(w, archive)
		local, here := errors.AsType[*unsaved](err)
		_, differs := errors.AsType[*unfit](err)
		switch {
		case err != nil && !here && !differs:
			return &unfit{"is damaged: " + err.Error()}
		case here && local.hopeless():
			return local
		}
		if err := d.judge(ctx, name, err); err != nil { // what is wrong is wrong with this member alone
			return err
		}
		delete(missing, name)
	}
	if len(missing) > 0 {
		return &unfit{fmt.Sprintf("lacks %q", slices.Min(slices.Collect(maps.Keys(missing))))}
	}
	return nil
}
