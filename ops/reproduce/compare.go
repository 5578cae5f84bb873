package reproduce

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/contract"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// compare compares a new sample with the receipt.
func compare(was store.ReceiptSample, is sample.Sample) []File {
	var list []File
	for _, f := range was.Files {
		c := File{Name: f.Name, Verdict: "missing", Was: f.SHA256}
		if i := slices.IndexFunc(is.Files, func(x sample.File) bool { return x.Name == f.Name }); i >= 0 {
			c.Is, c.Verdict = is.Files[i].SHA256, "differs"
		}
		if c.Is == c.Was {
			c.Verdict = "equal"
		}
		list = append(list, c)
	}
	for _, f := range is.Files {
		if !slices.ContainsFunc(was.Files, func(x store.ReceiptFile) bool { return x.Name == f.Name }) {
			list = append(list, File{Name: f.Name, Verdict: "new", Is: f.SHA256})
		}
	}
	return list
}

// explain finds out more of what differs: whether it differs between two runs, too, and which fields of a JSON file do.
func (r *rerun) explain(ctx context.Context, p *Reproduction, first, second sample.Sample) error {
	same := true
	for _, c := range compare(first, second) {
		if c.Verdict == "equal" {
			continue
		}
		same = false
		if i := slices.IndexFunc(p.Files, func(f File) bool { return f.Name == c.Name }); i >= 0 {
			p.Files[i].Varies = true
		}
	}
	p.Deterministic = &same
	p.OnlyTimestamps = true
	for i := range p.Files {
		f := &p.Files[i]
		if f.Verdict == "equal" {
			continue
		}
		if f.Verdict != "differs" || path.Ext(f.Name) != ".json" {
			p.OnlyTimestamps = false
			continue
		}
		before, err := r.stored(ctx, f.Name)
		if err != nil {
			p.Notes = append(p.Notes, fmt.Sprintf("the stored %s cannot be compared: %v", f.Name, err))
			p.OnlyTimestamps = false
			continue
		}
		at := slices.IndexFunc(first.Files, func(x sample.File) bool { return x.Name == f.Name })
		after, err := os.ReadFile(first.Files[at].Path)
		if err != nil {
			return err
		}
		fields, times := contract.DifferingFields(before, after)
		f.Fields = fields
		p.OnlyTimestamps = p.OnlyTimestamps && times && len(fields) > 0
	}
	return nil
}

// stored returns a stored file of the sample, which must be what its receipt says.
func (r *rerun) stored(ctx context.Context, name string) ([]byte, error) {
	i := slices.IndexFunc(r.was.Files, func(f store.ReceiptFile) bool { return f.Name == name })
	f := r.was.Files[i]
	key := r.receipt.Dataset.FileKey(r.receipt.Generator, r.was.ID, name)
	if r.receipt.Shard != nil {
		key = r.receipt.Shard.Key
	}
	var data []byte
	read := func(from io.Reader) (err error) {
		data, err = io.ReadAll(io.LimitReader(from, f.Size+1))
		return err
	}
	err := r.store.Stream(ctx, key, func(from io.Reader, _ store.Object) error {
		if r.receipt.Shard == nil {
			return read(from)
		}
		return dataset.ReadShard(from, r.receipt, func(s store.ReceiptSample, f store.ReceiptFile, from io.Reader) error {
			if s.ID != r.was.ID || f.Name != name {
				return nil
			}
			return read(from)
		})
	})
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != f.SHA256 {
		return nil, errors.New("it differs from its receipt; ops verify --deep finds out more")
	}
	return data, nil
}
