package s3test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Generator is one whose samples a test commits.
type Generator struct {
	Name, Domain string
	Samples      int
	Chunk        int
	Files        func(index int) map[string]string // by name

	Commit, Lock string
	Puzzle       func(index int) string                    // fingerprint; nil: each sample has one of its own
	Media        func(index int, file string) sample.Media // nil: not known
	Receipt      func(*store.Receipt)                      // sets more of each receipt; may be nil
}

// Picture is a PNG that differs by n.
func Picture(n int) string {
	m := image.NewRGBA(image.Rect(0, 0, 16, 16))
	for i := range 256 {
		m.Set(i%16, i/16, color.RGBA{uint8(n), uint8(n >> 8), uint8(i), 255})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		panic(err)
	}
	return b.String()
}

// Pin notes a generator in the manifest of a dataset, with the seed 42.
func Pin(t testing.TB, st *store.Store, format task.Format, g *Generator) {
	t.Helper()
	_, err := st.ChangeManifest(t.Context(), func(there *task.Manifest) (*task.Manifest, error) {
		if there == nil {
			there = new(task.NewManifest(st.Dataset(), 42, format))
		}
		there.Add(task.PinnedGenerator{Name: g.Name, ChunkSize: g.Chunk, Commit: g.Commit, Lock: g.Lock})
		there.Ask(task.Range{End: g.Samples}, []string{g.Name})
		return there, nil
	})
	check(t, err)
}

// Commit makes samples of a generator as a worker does: files or shards, then the receipt of each chunk. Without
// indices it makes all.
func Commit(t testing.TB, st *store.Store, format task.Format, g *Generator, indices ...task.Range) {
	t.Helper()
	if indices == nil {
		indices = []task.Range{{End: g.Samples}}
	}
	Pin(t, st, format, g)
	ctx, dir := t.Context(), t.TempDir()
	for start := 0; start < g.Samples; start += g.Chunk {
		cell := task.Range{Start: start, End: start + g.Chunk}
		var list []sample.Sample
		for i := cell.Start; i < min(cell.End, g.Samples); i++ {
			if slices.ContainsFunc(indices, func(r task.Range) bool { return r.Start <= i && i < r.End }) {
				list = append(list, g.Write(t, dir, i))
			}
		}
		if len(list) == 0 {
			continue
		}
		c, err := st.Take(ctx, g.Name, cell, store.Holder{RequestID: "r", Deadline: time.Now().Add(time.Hour)},
			func(*store.Cell) bool { return true })
		check(t, err)
		r := g.NewReceipt(st.Dataset(), format, c, list)
		if format == task.Tar {
			shard, err := st.PutShard(ctx, g.Name, task.Chunk{Number: start / g.Chunk, Cell: cell, Keep: r.Range()}, c.Epoch,
				list)
			check(t, err)
			r.Shard = &shard
		} else {
			check(t, st.PutFiles(ctx, g.Name, list))
		}
		check(t, st.Commit(ctx, c, r, -1, true))
	}
}

// Receipts returns the receipts of a generator that describe a sample, cell by cell.
func Receipts(t testing.TB, st *store.Store, generator string) (list []store.Receipt) {
	t.Helper()
	for c, err := range st.CellsIn(t.Context(), generator, task.Range{End: task.MaxIndex}, nil) {
		check(t, err)
		for _, r := range c.Receipts {
			if len(r.Current) > 0 {
				list = append(list, r)
			}
		}
	}
	return list
}

// NewReceipt is the receipt of samples of a cell.
func (g *Generator) NewReceipt(name task.Dataset, format task.Format, c *store.Cell,
	list []sample.Sample) store.Receipt {
	r := store.Receipt{Dataset: name, Generator: g.Name, Commit: g.Commit, Lock: g.Lock, Python: "3.11.2",
		Platform: "linux-x86_64", RunID: "run", RunSeed: 42, ChunkSize: g.Chunk, ChunkStart: c.Start,
		Seed: 7000 + c.Start, Epoch: c.Epoch, Command: []string{"python", "examples/generate.py"}, Start: list[0].Index,
		End: list[len(list)-1].Index + 1, Format: format, Domain: g.Domain, Samples: list}
	if g.Receipt != nil {
		g.Receipt(&r)
	}
	return r
}

// Fingerprint is that of a sample.
func (g *Generator) Fingerprint(i int) string {
	if g.Puzzle != nil {
		return g.Puzzle(i)
	}
	return fmt.Sprintf("%s-%d", g.Domain, i)
}

// Write writes the files of a sample below a folder.
func (g *Generator) Write(t testing.TB, dir string, i int) sample.Sample {
	t.Helper()
	s := sample.Sample{Index: i, ID: task.SampleID(g.Domain, i), Fingerprint: g.Fingerprint(i)}
	files := g.Files(i)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, s.ID, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(files[name]), 0o644))
		hash := sha256.Sum256([]byte(files[name]))
		f := sample.File{Name: name, Path: path, Size: int64(len(files[name])), SHA256: hex.EncodeToString(hash[:])}
		if g.Media != nil {
			f.Media = g.Media(i, name)
		}
		s.Files = append(s.Files, f)
	}
	return s
}
