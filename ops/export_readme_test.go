package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image"
	"image/png"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// The lines of the README that bring a dataset into a training loop do so as written, but for
// the stack.
func TestReadmeExport(t *testing.T) {
	python := os.Getenv("EXPORT_PYTHON")
	if python == "" {
		t.Skip("EXPORT_PYTHON is not set: it names a Python with ops/export/testdata/consumers/requirements.txt")
	}
	readme, err := os.ReadFile(filepath.Join("..", "README.md"))
	must(t, err)
	found := regexp.MustCompile(
		"(?s)```\n\\$ bin/ops --stack local (export [^\n]*)\n```\n\n```python\n(.*?)```").FindSubmatch(readme)
	if found == nil {
		t.Fatal("the README has no export")
	}
	c := newCloud(t)
	media := exportable(t, c.store)
	dir := t.TempDir()
	for _, cmd := range []*exec.Cmd{
		exec.CommandContext(t.Context(), "ops", append([]string{"--outputs", c.outputs},
			strings.Fields(string(found[1]))...)...),
		exec.CommandContext(t.Context(), python, "-c", string(found[2])),
	} {
		cmd.Dir = dir
		cmd.Env = append(append(os.Environ(), c.env...), "HF_HOME="+filepath.Join(dir, "home"), "HF_HUB_OFFLINE=1")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, stderr.String())
		}
		if want := "Move 0. (16, 8)\nMove 1. (16, 8)\nMove 2. (16, 8)\n"; cmd.Args[0] == python && string(out) != want {
			t.Errorf("it prints %q", out)
		}
	}
	size := 0
	tables, err := filepath.Glob(filepath.Join(dir, "exported", "data", "*", "*.parquet"))
	must(t, err)
	for _, name := range tables {
		info, err := os.Stat(name)
		must(t, err)
		size += int(info.Size())
	}
	if ratio := float64(size) / float64(media); len(tables) == 0 || ratio > 1.05 || ratio < 1 {
		t.Errorf("%d bytes of Parquet for %d bytes of media: %.3f", size, media, ratio)
	}
}

// exportable commits three samples of a generator, with videos as large as those of generators, and returns how many
// bytes their pictures and videos have.
func exportable(t *testing.T, st *store.Store) (media int) {
	t.Helper()
	video := make([]byte, 300_000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(video)
	ctx, all := t.Context(), task.Range{End: 3}
	_, err := st.ChangeManifest(ctx, func(*task.Manifest) (*task.Manifest, error) {
		m := task.NewManifest("v1", 42, task.Files)
		m.Add(task.PinnedGenerator{Name: "chess-task", ChunkSize: 3})
		m.Ask(all, []string{"chess-task"})
		return &m, nil
	})
	must(t, err)
	cell, err := st.Take(ctx, "chess-task", all, store.Holder{RequestID: "r", Deadline: time.Now().Add(time.Minute)},
		func(*store.Cell) bool { return true })
	must(t, err)
	r := store.Receipt{Generator: "chess-task", ChunkSize: 3, End: 3, Epoch: cell.Epoch, Format: task.Files,
		Domain: "chess"}
	var picture bytes.Buffer
	must(t, png.Encode(&picture, image.NewGray(image.Rect(0, 0, 16, 8))))
	for i := range all.End {
		s := sample.Sample{Index: i, ID: task.SampleID("chess", i), Fingerprint: fmt.Sprint(i)}
		for _, f := range []struct{ name, text string }{{"first_frame.png", picture.String()},
			{"ground_truth.mp4", string(video)},
			{"prompt.txt", fmt.Sprintf("Move %d.", i)}} {
			if f.name != "prompt.txt" {
				media += len(f.text)
			}
			path := filepath.Join(t.TempDir(), f.name)
			must(t, os.WriteFile(path, []byte(f.text), 0o644))
			hash := sha256.Sum256([]byte(f.text))
			s.Files = append(s.Files, sample.File{Name: f.name, Path: path, Size: int64(len(f.text)),
				SHA256: hex.EncodeToString(hash[:])})
		}
		r.Samples = append(r.Samples, s)
	}
	must(t, st.PutFiles(ctx, "chess-task", r.Samples))
	must(t, st.Commit(ctx, cell, r, -1, true))
	return media
}
