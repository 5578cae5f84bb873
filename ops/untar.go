package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// archiveError says why a shard is not trusted.
type archiveError struct{ reason string }

func (e *archiveError) Error() string { return e.reason }

// untar unpacks a shard. The receipt is what counts: a member must be a plain
// file that it names, with the size and hash it gives, and just once. So no
// member can leave the folder, be a link, or unpack to more than the receipt
// says.
func (d *download) untar(from io.Reader, r store.Receipt, samples []store.ReceiptSample) error {
	wanted := map[string]*store.ReceiptFile{}
	inReceipt := map[string]bool{}
	for _, s := range r.Samples {
		for _, f := range s.Files {
			inReceipt[s.ID+"/"+f.Name] = true
		}
	}
	for _, s := range samples {
		for i := range s.Files {
			wanted[s.ID+"/"+s.Files[i].Name] = &s.Files[i]
		}
	}
	unpacked, err := gzip.NewReader(from)
	if err != nil {
		return &archiveError{"is no gzip file"}
	}
	archive := tar.NewReader(unpacked)
	seen := map[string]bool{}
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return &archiveError{"is damaged: " + err.Error()}
		}
		switch {
		case h.Typeflag != tar.TypeReg:
			return &archiveError{fmt.Sprintf("holds %q, which is no plain file", h.Name)}
		case seen[h.Name]:
			return &archiveError{fmt.Sprintf("holds %q twice", h.Name)}
		}
		seen[h.Name] = true
		f := wanted[h.Name]
		if f == nil {
			if !inReceipt[h.Name] && r.OwnsShard() {
				return &archiveError{fmt.Sprintf("holds %q, which its receipt does not name", h.Name)}
			}
			continue // replaced since, or beside the part of the shard that this receipt is for
		}
		if h.Size != f.Size {
			return &archiveError{fmt.Sprintf("holds %q with %d bytes, its receipt says %d", h.Name, h.Size, f.Size)}
		}
		if err := d.save(path.Join(r.Generator, h.Name), archive, f.Size, f.SHA256); err != nil {
			return err
		}
	}
	for name := range wanted {
		if !seen[name] {
			return &archiveError{fmt.Sprintf("lacks %q", name)}
		}
	}
	return nil
}
