package export_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestMain(m *testing.M) {
	s3server.Main()
	if os.Getenv("EXPORT_CHILD") != "" {
		child()
	}
	debug.SetGCPercent(400) // it is short of CPU and not of memory
	// Exports wait for the disk most of the time, and these are of nobody's data.
	if memory := s3test.Memory(); memory != "" && os.Getenv("TMPDIR") == "" {
		if err := os.Setenv("TMPDIR", memory); err != nil {
			panic(err)
		}
	}
	if err := flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bucket is a bucket with its store.
type bucket struct {
	*s3test.Bucket
	store *store.Store
}

func newBucket(t testing.TB) *bucket {
	t.Helper()
	b := s3test.New(t)
	return &bucket{b, b.Store(nil)}
}

// made returns a generator and what it writes; its videos are MPEG-4 part 2.
func made(name, domain string, samples, chunk int, files func(index int) map[string]string) s3test.Generator {
	return s3test.Generator{Name: name, Domain: domain, Samples: samples, Chunk: chunk, Files: files,
		Commit: strings.Repeat("c", 40), Lock: "1f", Media: func(_ int, file string) (m sample.Media) {
			if strings.HasPrefix(file, "ground_truth.") {
				m = sample.Media{Width: 64, Height: 48, Frames: 17, FPS: 16, Seconds: 1.0625, Codec: "mpeg4",
					PixelFormat: "yuv420p"}
			}
			return m
		}}
}

// video is what a test takes for one.
func video(name string, n int) string { return strings.Repeat(fmt.Sprintf("%s %d;", name, n), 500) }

// maze and chess have other files and other metadata; odd has no rubric, nested metadata with
// what JSON and CSV have to quote, another kind of video, a picture that is missing in the
// others, and a sub-folder. Two samples of maze are puzzles that it has made before, and one of chess is a puzzle of
// maze. The workers of maze ran in an image.
var (
	maze = made("maze-task-data-generator", "maze", 25, 10, func(i int) map[string]string {
		return map[string]string{"first_frame.png": s3test.Picture(i), "final_frame.png": s3test.Picture(1000 + i),
			"prompt.txt": fmt.Sprintf("Solve maze %d.\n", i), "rubric.txt": "The path is not broken.\n",
			"ground_truth.mp4": video("maze", i),
			"metadata.json":    fmt.Sprintf(`{"task_id": "maze_%08d", "difficulty": %d, "param_hash": "m%d"}`, i, i%5, i)}
	})
	chess = made("O-11_chess.data-generator", "chess", 12, 6, func(i int) map[string]string {
		return map[string]string{"first_frame.png": s3test.Picture(2000 + i), "prompt.txt": fmt.Sprintf("Mate in %d.", i),
			"rubric.txt": "Legal moves.", "ground_truth.mp4": video("chess", i), "first_video.mp4": video("before", i),
			"metadata.json": fmt.Sprintf(`{"generator":"chess","parameters":{"fen":"%d"},"seed":%d}`, i, i)}
	})
	odd = made("odd", "odd", 7, 3, func(i int) map[string]string {
		return map[string]string{"first_frame.png": s3test.Picture(3000 + i), "ground_truth.avi": video("odd", i),
			"prompt.txt":       fmt.Sprintf("Größe \"%d\", \r\n\t<tag> & 猫 \u2028, \\n 'x'; a,b\n", i),
			"frames/0.png":     s3test.Picture(4000 + i),
			"frames/meta.json": `{"frame": 0}`,
			"metadata.json":    fmt.Sprintf(`[{"a": {"b": [1, 2.5, null, "q\"\\ <é>"]}, "difficulty": "hard", "i": %d}, {}]`, i)}
	})
)

func (b *bucket) commit(t testing.TB, name task.Dataset, format task.Format, g s3test.Generator, of ...task.Range) {
	t.Helper()
	s3test.Commit(t, b.store.In(name), format, &g, of...)
}

// all has the three generators in a dataset.
func (b *bucket) all(t testing.TB, name task.Dataset, format task.Format) *store.Store {
	for _, g := range []s3test.Generator{maze, chess, odd} {
		b.commit(t, name, format, g)
	}
	return b.store.In(name)
}

// exported exports to a folder.
func exported(ctx context.Context, t testing.TB, e export.Export, dir string) (*export.Summary, error) {
	t.Helper()
	to, err := export.OpenFolder(dir)
	if err != nil {
		return nil, err
	}
	defer to.Close()
	e.To = to
	if e.Progress == nil {
		e.Progress = func(export.Progress) {}
	}
	if e.Say == nil {
		e.Say = t.Logf
	}
	return e.Run(ctx)
}

// content returns the files of a folder.
func content(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	check(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(name)] = string(text)
		return err
	}))
	return files
}

// account is one that no export may name.
const account = "123456789012"

var image = account + ".dkr.ecr.us-east-2.amazonaws.com/workers@sha256:" + strings.Repeat("1a", 32)

func init() {
	maze.Puzzle = func(i int) string { return fmt.Sprint("maze-", i%23) }
	maze.Receipt = func(r *store.Receipt) { r.Image = image }
	chess.Puzzle = func(i int) string {
		if i == 5 {
			return "maze-3"
		}
		return fmt.Sprint("chess-", i)
	}
}

func put(t *testing.T, b *bucket, key, text string) {
	t.Helper()
	_, err := b.Client(nil).PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: &key,
		Body: strings.NewReader(text)})
	check(t, err)
}
