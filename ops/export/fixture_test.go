package export_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestMain(m *testing.M) {
	s3server.Main()
	if os.Getenv("EXPORT_CHILD") != "" {
		child()
	}
	os.Exit(m.Run())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bucket is a bucket of the local stack's server.
type bucket struct {
	store  *store.Store
	client *s3.Client
	folder string // in which the objects lie as plain files
	url    string
}

func newBucket(t testing.TB) *bucket {
	t.Helper()
	dir := t.TempDir()
	server, err := s3server.Start(t.Context(), s3server.Config{Dir: filepath.Join(dir, "objects"),
		Meta: filepath.Join(dir, "metadata"), Address: "127.0.0.1:0", Bucket: "bucket", Region: "us-east-2", AccessKey: "a",
		SecretKey: "b"}, io.Discard)
	check(t, err)
	t.Cleanup(func() { _ = server.Close() })
	client := s3.New(s3.Options{BaseEndpoint: aws.String(server.URL()), Region: "us-east-2",
		HTTPClient: store.HTTPClient(nil), Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")},
		store.ClientOptions)
	return &bucket{store.New(client, "bucket"), client, filepath.Join(dir, "objects", "bucket"), server.URL()}
}

// made is a generator and what it writes.
type made struct {
	name, domain string
	samples      int
	chunk        int
	files        func(index int) map[string]string
}

// picture is a PNG that differs by n.
func picture(n int) string {
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

// video is what a test takes for one.
func video(name string, n int) string { return strings.Repeat(fmt.Sprintf("%s %d;", name, n), 500) }

// maze and chess have other files and other metadata; odd has no rubric, nested metadata with
// what JSON and CSV have to quote, another kind of video, a picture that is missing in the
// others, and a sub-folder.
var (
	maze = made{"maze-task-data-generator", "maze", 25, 10, func(i int) map[string]string {
		return map[string]string{"first_frame.png": picture(i), "final_frame.png": picture(1000 + i),
			"prompt.txt": fmt.Sprintf("Solve maze %d.\n", i), "rubric.txt": "The path is not broken.\n",
			"ground_truth.mp4": video("maze", i),
			"metadata.json":    fmt.Sprintf(`{"task_id": "maze_%08d", "difficulty": %d, "param_hash": "m%d"}`, i, i%5, i)}
	}}
	chess = made{"O-11_chess.data-generator", "chess", 12, 6, func(i int) map[string]string {
		return map[string]string{"first_frame.png": picture(2000 + i), "prompt.txt": fmt.Sprintf("Mate in %d.", i),
			"rubric.txt": "Legal moves.", "ground_truth.mp4": video("chess", i), "first_video.mp4": video("before", i),
			"metadata.json": fmt.Sprintf(`{"generator":"chess","parameters":{"fen":"%d"},"seed":%d}`, i, i)}
	}}
	odd = made{"odd", "odd", 7, 3, func(i int) map[string]string {
		return map[string]string{"first_frame.png": picture(3000 + i), "ground_truth.avi": video("odd", i),
			"prompt.txt":       fmt.Sprintf("Größe \"%d\", \r\n\t<tag> & 猫 \u2028, \\n 'x'; a,b\n", i),
			"frames/0.png":     picture(4000 + i),
			"frames/meta.json": `{"frame": 0}`,
			"metadata.json":    fmt.Sprintf(`[{"a": {"b": [1, 2.5, null, "q\"\\ <é>"]}, "difficulty": "hard", "i": %d}, {}]`, i)}
	}}
)

// commit makes samples of a generator as a worker does: files or shards, then the receipt of
// each chunk.
func (b *bucket) commit(t testing.TB, name task.Dataset, format task.Format, g made, indices ...task.Range) {
	t.Helper()
	ctx, st := t.Context(), b.store.In(name)
	if indices == nil {
		indices = []task.Range{{End: g.samples}}
	}
	_, err := st.ChangeManifest(ctx, func(there *task.Manifest) (*task.Manifest, error) {
		if there == nil {
			there = new(task.NewManifest(name, 42, format))
		}
		there.Add(task.PinnedGenerator{Name: g.name, ChunkSize: g.chunk, Commit: strings.Repeat("c", 40), Lock: "1f"})
		there.Ask(task.Range{End: g.samples}, []string{g.name})
		return there, nil
	})
	check(t, err)
	dir := t.TempDir()
	for start := 0; start < g.samples; start += g.chunk {
		cell := task.Range{Start: start, End: start + g.chunk}
		var list []sample.Sample
		for i := cell.Start; i < min(cell.End, g.samples); i++ {
			if slices.ContainsFunc(indices, func(r task.Range) bool { return r.Start <= i && i < r.End }) {
				list = append(list, writeSample(t, dir, g, i))
			}
		}
		if len(list) == 0 {
			continue
		}
		c, err := st.Take(ctx, g.name, cell, store.Holder{RequestID: "r", Deadline: time.Now().Add(time.Hour)},
			func(*store.Cell) bool { return true })
		check(t, err)
		r := receiptOf(name, format, g, c, list)
		if format == task.Tar {
			shard, err := st.PutShard(ctx, g.name, task.Chunk{Number: start / g.chunk, Cell: cell, Keep: r.Range()}, c.Epoch,
				list)
			check(t, err)
			r.Shard = &shard
		} else {
			check(t, st.PutFiles(ctx, g.name, list))
		}
		check(t, st.Commit(ctx, c, r, -1, true))
	}
}

func receiptOf(name task.Dataset, format task.Format, g made, c *store.Cell, list []sample.Sample) store.Receipt {
	r := store.Receipt{Dataset: name, Generator: g.name, Commit: strings.Repeat("c", 40), Lock: "1f", Python: "3.11.2",
		Platform: "linux-x86_64", RunID: "run", RunSeed: 42, ChunkSize: g.chunk, ChunkStart: c.Start, Seed: 7000 + c.Start,
		Command: []string{"python", "examples/generate.py"}, Start: list[0].Index, End: list[len(list)-1].Index + 1,
		Epoch: c.Epoch, Format: format, Domain: g.domain, Samples: list}
	return r
}

func writeSample(t testing.TB, dir string, g made, i int) sample.Sample {
	t.Helper()
	s := sample.Sample{Index: i, ID: task.SampleID(g.domain, i), Fingerprint: fmt.Sprintf("%s-%d", g.domain, i)}
	files := g.files(i)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, s.ID, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(files[name]), 0o644))
		hash := sha256.Sum256([]byte(files[name]))
		f := sample.File{Name: name, Path: path, Size: int64(len(files[name])), SHA256: hex.EncodeToString(hash[:])}
		if strings.HasPrefix(name, "ground_truth.") {
			f.Media = sample.Media{Width: 64, Height: 48, Frames: 17, FPS: 16, Seconds: 1.0625, Codec: "mpeg4",
				PixelFormat: "yuv420p"}
		}
		s.Files = append(s.Files, f)
	}
	return s
}

// all has the three generators in a dataset.
func (b *bucket) all(t testing.TB, name task.Dataset, format task.Format) *store.Store {
	for _, g := range []made{maze, chess, odd} {
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
