package worker

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// cells are the cells in the bucket.
func (b *bucket) cells() (list []*store.Cell) {
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		if !strings.HasPrefix(key, task.ReceiptKind) {
			continue
		}
		p := b.parsed[key]
		if !bytes.Equal(p.text, b.objects[key]) {
			p.text = b.objects[key]
			var err error
			if p.cell, err = store.ParseCell(key, p.text); err != nil {
				panic(err)
			}
			b.parsed[key] = p
		}
		list = append(list, p.cell)
	}
	return list
}

// receipts are the receipts in the bucket.
func (b *bucket) receipts() (list []store.Receipt) {
	for _, c := range b.cells() {
		list = append(list, c.Receipts...)
	}
	return list
}

// missing narrows a run to the indices that are not committed.
func (b *bucket) missing(run task.Run) task.Run {
	there := map[place]bool{}
	for _, c := range b.cells() {
		for _, i := range c.Committed() {
			there[place{c.Dataset.String(), i}] = true
		}
	}
	run.Missing = true
	g := run.Generators[0]
	for i := run.Start; i < run.Start+run.Samples; i++ {
		if n := len(g.Missing); there[place{run.Dataset.String(), i}] {
			continue
		} else if n > 0 && g.Missing[n-1].End == i {
			g.Missing[n-1].End++
		} else {
			g.Missing = append(g.Missing, task.Range{Start: i, End: i + 1})
		}
	}
	run.Generators = []task.RunGenerator{g}
	return run
}

// truthful says which receipt vouches for what is not there, and which cell has a state
// that a listing would tell wrong.
func (b *bucket) truthful() error {
	for _, c := range b.cells() {
		state := store.Partial
		switch n := len(c.Committed()); n {
		case 0:
			state = store.Empty
		case c.Range().Len():
			state = store.Complete
		}
		if told := store.State(len(b.objects[c.Key()]) % 3); told != state {
			return fmt.Errorf("%s is told to be %d and is %d", c.Key(), told, state)
		}
	}
	for _, r := range b.receipts() {
		for _, s := range r.Current {
			if b.unsure[place{r.Dataset.String(), s.Index}] {
				continue
			}
			files, err := b.files(r, s)
			if err != nil {
				return fmt.Errorf("%s, index %d: %w", r.ID(), s.Index, err)
			}
			for _, f := range s.Files {
				sum := sha256.Sum256(files[f.Name])
				if hex.EncodeToString(sum[:]) != f.SHA256 {
					return fmt.Errorf("%s vouches for other bytes of %s of index %d than %q", r.ID(), f.Name, s.Index, files[f.Name])
				}
			}
		}
	}
	return nil
}

// files are the stored files of a sample.
func (b *bucket) files(r store.Receipt, s store.ReceiptSample) (map[string][]byte, error) {
	files := map[string][]byte{}
	if r.Shard == nil {
		for _, f := range s.Files {
			data, there := b.objects[r.Dataset.FileKey(r.Generator, s.ID, f.Name)]
			if !there {
				return nil, fmt.Errorf("%s is not there", f.Name)
			}
			files[f.Name] = data
		}
		return files, nil
	}
	data, there := b.objects[r.Shard.Key]
	if !there {
		return nil, fmt.Errorf("%s is not there", r.Shard.Key)
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	for archive := tar.NewReader(z); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if name, ok := strings.CutPrefix(h.Name, s.ID+"/"); ok {
			if files[name], err = io.ReadAll(archive); err != nil {
				return nil, err
			}
		}
	}
}
