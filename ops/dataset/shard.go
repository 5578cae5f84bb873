package dataset

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

func badShard(r store.Receipt, format string, args ...any) error {
	return Damage{Kind: BadShard, Key: r.Shard.Key, Detail: "it " + fmt.Sprintf(format, args...)}
}

// ReadShard reads a shard and calls use with each of its files. The receipt decides: a
// member must be a plain file that it names, with its size, and just once, and none may
// lack. So no member can leave a folder, be a link, or unpack to more than the receipt
// says. What is wrong with the shard is a Damage, also if use could not read on; any
// other error is use's own.
func ReadShard(from io.Reader, r store.Receipt,
	use func(s store.ReceiptSample, f store.ReceiptFile, from io.Reader) error) error {
	type member struct {
		sample store.ReceiptSample
		file   store.ReceiptFile
	}
	want := map[string]member{}
	for _, s := range r.Samples {
		for _, f := range s.Files {
			want[s.ID+"/"+f.Name] = member{s, f}
		}
	}
	unpacked, err := gzip.NewReader(from)
	if err != nil {
		return badShard(r, "is no gzip file")
	}
	archive := tar.NewReader(unpacked)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return badShard(r, "is damaged: %v", err)
		}
		m, named := want[h.Name]
		switch {
		case h.Typeflag != tar.TypeReg:
			return badShard(r, "holds %q, which is no plain file", h.Name)
		case !named:
			return badShard(r, "holds %q, which its receipt does not name, or holds it twice", h.Name)
		case h.Size != m.file.Size:
			return badShard(r, "holds %q with %d bytes, its receipt says %d", h.Name, h.Size, m.file.Size)
		}
		delete(want, h.Name)
		content := &sample.Source{Reader: archive}
		err = use(m.sample, m.file, content)
		if content.Failed != nil {
			return badShard(r, "is damaged at %q: %v", h.Name, content.Failed)
		}
		if err != nil {
			return err
		}
	}
	if len(want) > 0 {
		return badShard(r, "lacks %q", slices.Min(slices.Collect(maps.Keys(want))))
	}
	if n, err := io.Copy(io.Discard, unpacked); err != nil || n > 0 {
		return badShard(r, "does not end where its archive does")
	}
	return nil
}
