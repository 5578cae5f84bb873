package export_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// python runs a program of testdata/consumers and returns what it prints.
func python(ctx context.Context, t *testing.T, program string, args ...string) string {
	t.Helper()
	interpreter := os.Getenv("EXPORT_PYTHON")
	if interpreter == "" {
		t.Skip("EXPORT_PYTHON is not set: it names a Python with testdata/consumers/requirements.txt")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, interpreter, append([]string{filepath.Join("testdata", "consumers", program)},
		args...)...)
	cmd.Env = append(os.Environ(), "HF_HOME="+t.TempDir(), "HF_HUB_OFFLINE=1", "HF_DATASETS_DISABLE_PROGRESS_BARS=1",
		"PYTHONDONTWRITEBYTECODE=1")
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, said)
	}
	return string(said)
}

// withVideos returns the generators of the other tests with real videos.
func withVideos(t *testing.T) []made {
	t.Helper()
	dir := t.TempDir()
	python(t.Context(), t, "media.py", dir, fmt.Sprint(maze.samples))
	var list []made
	for _, g := range []made{maze, chess, odd} {
		texts := g.files
		g.files = func(i int) map[string]string {
			files := texts(i)
			for name := range files {
				kind, ok := map[string]string{"ground_truth.mp4": "mpeg4.mp4", "ground_truth.avi": "mpeg4.avi",
					"first_video.mp4": "h264.mp4"}[name]
				if ok {
					video, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d.%s", i, kind)))
					check(t, err)
					files[name] = string(video)
				}
			}
			return files
		}
		list = append(list, g)
	}
	return list
}

// trueSample is what a consumer has to find of a sample.
type trueSample struct {
	Key         string              `json:"key"`
	Generator   string              `json:"generator"`
	Domain      string              `json:"domain"`
	ID          string              `json:"id"`
	Index       int                 `json:"index"`
	Split       string              `json:"split"`
	Prompt      string              `json:"prompt"`
	Rubric      string              `json:"rubric"`
	Metadata    string              `json:"metadata"`
	Fingerprint string              `json:"fingerprint"`
	Files       map[string]trueFile `json:"files"`
}

type trueFile struct {
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
}

// truth writes down what was put into the bucket. The splits are those of the shards' names.
func truth(t *testing.T, generators []made, shards string) string {
	t.Helper()
	splits := map[string]string{}
	for name, text := range content(t, shards) {
		if strings.HasSuffix(name, ".tar") {
			split, _, _ := strings.Cut(filepath.Base(name), "-")
			for _, m := range members(t, text) {
				key, _, _ := strings.Cut(m.name, ".")
				splits[key] = split
			}
		}
	}
	var samples []trueSample
	for _, g := range generators {
		for i := range g.samples {
			files := g.files(i)
			s := trueSample{Key: strings.ReplaceAll(g.name, ".", "-") + task.SampleID("", i), Generator: g.name, Domain: g.domain,
				ID: task.SampleID(g.domain, i), Index: i, Prompt: files["prompt.txt"], Rubric: files["rubric.txt"],
				Metadata: files["metadata.json"], Fingerprint: fmt.Sprintf("%s-%d", g.domain, i), Files: map[string]trueFile{}}
			if s.Split = splits[s.Key]; s.Split == "" {
				t.Fatalf("%s is in no shard", s.Key)
			}
			for name, text := range files {
				hash := sha256.Sum256([]byte(text))
				s.Files[name] = trueFile{len(text), hex.EncodeToString(hash[:])}
			}
			samples = append(samples, s)
		}
	}
	text, err := json.Marshal(map[string]any{"samples": samples})
	check(t, err)
	file := filepath.Join(t.TempDir(), "truth.json")
	check(t, os.WriteFile(file, text, 0o644))
	return file
}

// Those for whom an export is made open it, and find every sample, every field and every byte.
func TestConsumers(t *testing.T) {
	generators := withVideos(t)
	b := newBucket(t)
	for _, g := range generators {
		b.commit(t, "v1", task.Files, g)
	}
	st := b.store.In("v1")
	dirs := map[string]string{}
	for _, f := range []export.Format{export.Webdataset(), export.Parquet(), export.VBVR(), export.Folder(),
		export.Manifest()} {
		dirs[f.Name()] = t.TempDir()
		_, err := exported(t.Context(), t, export.Export{Store: st, Format: f, About: func(string) (string, string) {
			return "Apache-2.0", "org/repository"
		}, Options: export.Options{
			ShardSize: 60_000, Split: "train=0.7,test=0.3"}}, dirs[f.Name()])
		check(t, err)
	}
	facts := truth(t, generators, dirs["webdataset"])
	for _, dir := range dirs {
		checkSums(t, dir)
	}
	for _, c := range []struct{ format, program string }{
		{"webdataset", "webdataset_webdataset.py"},
		{"webdataset", "webdataset_datasets.py"},
		{"parquet", "parquet_datasets.py"},
		{"parquet", "parquet_duckdb.py"},
		{"webdataset", "card.py"},
		{"parquet", "card.py"},
		{"vbvr", "card.py"},
		{"webdataset", "croissant.py"},
		{"parquet", "croissant.py"},
		{"vbvr", "vbvr.py"},
		{"vbvr", "croissant.py"},
		{"folder", "folder.py"},
		{"manifest", "folder.py"},
		{"manifest", "croissant.py"},
	} {
		t.Run(c.format+"/"+c.program, func(t *testing.T) {
			t.Parallel()
			t.Log(python(t.Context(), t, c.program, dirs[c.format], facts))
		})
	}
}
