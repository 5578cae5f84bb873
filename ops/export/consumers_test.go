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
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
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

// withVideos returns the generators of the other tests with real videos, and what a worker measures of them.
func withVideos(t *testing.T) []s3test.Generator {
	t.Helper()
	dir := t.TempDir()
	python(t.Context(), t, "media.py", dir, fmt.Sprint(maze.Samples))
	var list []s3test.Generator
	for _, g := range []s3test.Generator{maze, chess, odd} {
		texts := g.Files
		g.Files = func(i int) map[string]string {
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
		g.Media = func(i int, name string) sample.Media { // as the worker does it
			m, err := sample.Describe(name, []byte(g.Files(i)[name]))
			check(t, err)
			return m
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
	Prompt      string              `json:"prompt"`
	Rubric      string              `json:"rubric"`
	Metadata    string              `json:"metadata"`
	Fingerprint string              `json:"fingerprint"`
	Receipt     map[string]any      `json:"receipt"` // by column
	Files       map[string]trueFile `json:"files"`
}

type trueFile struct {
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
}

// truth writes down what was put into the bucket: the files, and what the receipts there say.
func truth(t *testing.T, st *store.Store, generators []s3test.Generator) string {
	t.Helper()
	var samples []trueSample
	about := map[string]map[string]any{}
	for _, g := range generators {
		licence, repository, category := catalogued(g.Name)
		about[g.Name] = map[string]any{"licence": licence, "repository": repository, "category": category, "commit": g.Commit, "lock": g.Lock,
			"platform": "linux-x86_64, Python 3.11.2", "command": "python examples/generate.py", "image": ""}
		for _, r := range s3test.Receipts(t, st, g.Name) {
			if r.Image != "" {
				about[g.Name]["image"] = strings.Split(r.Image, "@")[1]
			}
			for i := r.Start; i < r.End; i++ {
				files := g.Files(i)
				s := trueSample{Key: key(g, i), Generator: g.Name, Domain: g.Domain, ID: task.SampleID(g.Domain, i), Index: i,
					Prompt: files["prompt.txt"], Rubric: files["rubric.txt"], Metadata: files["metadata.json"],
					Fingerprint: g.Fingerprint(i), Files: map[string]trueFile{}, Receipt: map[string]any{"seed": r.Seed,
						"attempt": r.Attempt, "commit": r.Commit, "lock": r.Lock, "python": r.Python, "platform": r.Platform}}
				for name, text := range files {
					s.Files[name] = trueFile{len(text), sumOf(text)}
				}
				samples = append(samples, s)
			}
		}
	}
	text, err := json.Marshal(map[string]any{"samples": samples, "generators": about, "split": small.Split,
		"account": account})
	check(t, err)
	file := filepath.Join(t.TempDir(), "truth.json")
	check(t, os.WriteFile(file, text, 0o644))
	return file
}

func sumOf(text string) string {
	hash := sha256.Sum256([]byte(text))
	return hex.EncodeToString(hash[:])
}

// catalogued are the licences of the catalogue: one generator is not in it.
func catalogued(generator string) (licence, repository, category string) {
	switch generator {
	case maze.Name:
		return "Apache-2.0", "org/mazes", "spatiality"
	case chess.Name:
		return "MIT", "org/chess", ""
	}
	return "", "", ""
}

// Those for whom an export is made open it, and find every sample, every field and every byte. What they import takes
// seconds, so two processes do it all.
func TestConsumers(t *testing.T) {
	t.Parallel()
	generators := withVideos(t)
	b := newBucket(t)
	for _, g := range generators {
		b.commit(t, "v1", task.Files, g)
	}
	st := b.store.In("v1")
	dirs := map[string]string{}
	for name, format := range formats {
		dirs[name] = t.TempDir()
		_, err := exported(t.Context(), t, export.Export{Store: st, Format: format(), About: catalogued, Options: small},
			dirs[name])
		check(t, err)
		checkSums(t, dirs[name])
	}
	facts := truth(t, st, generators)
	for name, programs := range map[string]string{
		"datasets": "webdataset webdataset_webdataset.py; webdataset webdataset_datasets.py; parquet parquet_datasets.py; " +
			"webdataset card.py; parquet card.py; vbvr card.py; folder card.py; manifest card.py",
		"tables": "parquet parquet_tables.py; vbvr vbvr.py; folder folder.py; manifest folder.py; webdataset croissant.py; " +
			"parquet croissant.py; vbvr croissant.py; folder croissant.py; manifest croissant.py",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{facts}
			for program := range strings.SplitSeq(programs, "; ") {
				format, file, _ := strings.Cut(program, " ")
				args = append(args, file, dirs[format])
			}
			t.Log(python(t.Context(), t, "run.py", args...))
		})
	}
}
