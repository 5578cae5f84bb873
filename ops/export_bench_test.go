package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

var exportSamples = flag.Int("export.samples", 500_000, "samples of BenchmarkExportHalfMillion")

// BenchmarkExportHalfMillion exports a dataset of 500,000 small samples in 5,000 shards to each format, in a process of
// its own.
func BenchmarkExportHalfMillion(b *testing.B) {
	f, dir := newFar(b, 0), b.TempDir()
	f.small(b, "small-task", *exportSamples, 100)
	for _, format := range []string{"webdataset", "parquet", "vbvr", "folder", "manifest"} {
		b.Run(format, func(b *testing.B) {
			to := filepath.Join(dir, format)
			var files, bytes float64
			rounds(b, func() took {
				must(b, os.RemoveAll(to))
				x := f.ops(b, dir, 0, "export", "--as", format, "--to", to)
				files, bytes = 0, 0
				must(b, filepath.WalkDir(to, func(_ string, entry os.DirEntry, err error) error {
					if err == nil && !entry.IsDir() {
						info, failed := entry.Info()
						err = failed
						files, bytes = files+1, bytes+float64(info.Size())
					}
					return err
				}))
				return x
			})
			b.ReportMetric(files, "files")
			b.ReportMetric(bytes/1e6, "MB")
			must(b, os.RemoveAll(to))
		})
	}
}

// small commits samples that all have the same four files, in shards.
func (f *far) small(b *testing.B, generator string, n, chunk int) {
	b.Helper()
	random := rand.NewChaCha8([32]byte{})
	video := make([]byte, 1500)
	_, _ = random.Read(video)
	dir := b.TempDir()
	var files []sample.File
	for _, file := range []struct {
		name string
		text []byte
	}{{"first_frame.png", picture("first")}, {"ground_truth.mp4", video}, {"metadata.json", []byte(`{"difficulty": 3}`)},
		{"prompt.txt", []byte("Show how the ball gets to the goal.\n")}} {
		path := filepath.Join(dir, file.name)
		must(b, os.WriteFile(path, file.text, 0o600))
		files = append(files, sample.File{Name: file.name, Path: path, Size: int64(len(file.text)),
			SHA256: hashOf(file.text)})
	}
	asked := task.Range{End: n}
	_, err := f.store.ChangeManifest(b.Context(), func(*task.Manifest) (*task.Manifest, error) {
		m := task.NewManifest(task.DefaultDataset, 42, task.Tar)
		m.Add(task.PinnedGenerator{Name: generator, ChunkSize: chunk})
		m.Ask(asked, []string{generator})
		return &m, nil
	})
	must(b, err)
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(8)
	for start := 0; start < n; start += chunk {
		group.Go(func() error {
			cell := task.Range{Start: start, End: start + chunk}
			r := store.Receipt{Generator: generator, RunID: "r", RunSeed: 42, ChunkSize: chunk, ChunkStart: start, Seed: start,
				Start: start, End: cell.End, Format: task.Tar, Domain: "small"}
			for i := cell.Start; i < cell.End; i++ {
				r.Samples = append(r.Samples, sample.Sample{Index: i, ID: task.SampleID("small", i),
					Fingerprint: fmt.Sprint("small", i), Files: files})
			}
			c, err := f.store.Take(ctx, generator, cell, store.Holder{RequestID: "r", Deadline: time.Now().Add(time.Hour)},
				func(*store.Cell) bool { return true })
			if err != nil {
				return err
			}
			r.Epoch = c.Epoch
			shard, err := f.store.PutShard(ctx, generator, task.Chunk{Number: start / chunk, Cell: cell, Keep: cell}, c.Epoch,
				r.Samples)
			if err != nil {
				return err
			}
			r.Shard = &shard
			return f.store.Commit(ctx, c, r, -1, true)
		})
	}
	must(b, group.Wait())
}
