package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment/uvtest"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

const (
	mp4vGenerator    = "maze-task-data-generator"  // its videos are MPEG-4 part 2, which no browser plays
	failingGenerator = "hanoi-task-data-generator" // its videos are H.264; one of its tasks goes to the DLQ
	longGenerator    = "shapes-task-data-generator"
	longDataset      = "long"
	longSamples      = 10_000
	hostileSample    = 9_000
)

// TestBrowser drives the pages of ops ui in Chromium: the real program on a local stack with two of our generators.
// The tests are in web/browser; this makes what they need, and keeps their screenshots as artifacts.
func TestBrowser(t *testing.T) {
	modules := os.Getenv("BROWSER_MODULES")
	if modules == "" {
		t.Skip("BROWSER_MODULES is not set: it names a folder in which npm ci ran with ops/web/browser's package.json")
	}
	modules, err := filepath.Abs(modules)
	must(t, err)
	for _, program := range []string{"node", "chromium"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s on the PATH", program)
		}
	}
	must(t, uvtest.Setenv())
	t.Setenv(stack.EnvRetryDelays, "0.01")
	dir := t.TempDir()
	logsOf(t, dir)
	program := filepath.Join(dir, "bin", "ops")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build ops: %v: %s", err, out)
	}
	t.Setenv("PATH", filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
	const chunk, samples = 4, 12
	browserGenerators(t, filepath.Join(dir, "generators"), chunk)
	outputs, _ := startStack(t, dir)
	if _, said, err := ops(t, dir, "--stack", "local", "--yes", "submit", "--all", "--samples", fmt.Sprint(samples),
		"--chunk", fmt.Sprint(chunk), "--batch", fmt.Sprint(chunk)); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	bucket := local.BucketStore(outputs)
	made := firstSample(t, bucket, chunk)
	longOne(t, bucket, made, filepath.Join(dir, "made"))
	settle(t, dir)

	artifacts := t.ArtifactDir()
	t.Logf("screenshots: %s", artifacts)
	settings, err := json.Marshal(map[string]any{"dir": dir, "artifacts": artifacts, "modules": modules,
		"bucket": filepath.Join(dir, ".local", "s3", outputs.BucketName), "mp4v": mp4vGenerator, "failing": failingGenerator,
		"long": longGenerator, "longDataset": longDataset, "longSamples": longSamples, "hostile": hostileSample,
		"samples": samples, "chunk": chunk})
	must(t, err)
	scripts, err := filepath.Abs(filepath.Join("web", "browser"))
	must(t, err)
	args := []string{"--test", "--test-concurrency=1", "--test-reporter=spec"}
	if only := os.Getenv("BROWSER_TESTS"); only != "" {
		args = append(args, "--test-name-pattern", only)
	}
	node := exec.CommandContext(t.Context(), "node", append(args, filepath.Join(scripts, "safe.test.mjs"),
		filepath.Join(scripts, "ui.test.mjs"))...)
	node.Dir, node.Env = dir, append(os.Environ(), "BROWSER_SETTINGS="+string(settings))
	node.Stdout, node.Stderr = t.Output(), t.Output()
	must(t, node.Run())
}

// browserGenerators makes a folder of two of our generators: one writes MPEG-4 part 2, as OpenCV does by default, the
// other one fails with every seed that the second chunk of a run gets, so that its task goes to the DLQ.
func browserGenerators(t *testing.T, dir string, chunk int) {
	t.Helper()
	for _, name := range []string{"puzzlekit", "locks", mp4vGenerator, failingGenerator} {
		must(t, os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join("..", "generators", name))))
	}
	own := filepath.Join(dir, mp4vGenerator, "puzzlekit") // it is found before the common one
	must(t, os.CopyFS(own, os.DirFS(filepath.Join(dir, "puzzlekit"))))
	video := filepath.Join(own, "video.py")
	edit(t, video, `"libx264"`, `"mpeg4"`)
	edit(t, video, `options=quality`, `options={}`)
	var seeds []string
	for attempt := range 3 {
		seeds = append(seeds, fmt.Sprintf("%q", fmt.Sprint(task.Seed(failingGenerator, 42, chunk, 1, attempt))))
	}
	edit(t, filepath.Join(dir, failingGenerator, "examples", "generate.py"), "sys.exit(run(", fmt.Sprintf(
		"if {%s} & {*sys.argv}:\n    raise ValueError(\"no <b>puzzle</b> for this seed\")\nsys.exit(run(",
		strings.Join(seeds, ", ")))
}

// startStack starts the local stack of a folder; it ends with the test. address is that of its pages.
func startStack(t testing.TB, dir string) (outputs stack.Outputs, address string) {
	t.Helper()
	up := exec.CommandContext(t.Context(), "ops", "local", "up", "--workers", "2")
	up.Dir = dir
	said, err := up.StderrPipe()
	must(t, err)
	must(t, up.Start())
	t.Cleanup(func() {
		_ = up.Process.Signal(os.Interrupt)
		_ = up.Wait()
	})
	limit := time.AfterFunc(3*time.Minute, func() { said.Close() }) // it hangs
	lines := bufio.NewScanner(said)
	for address == "" && lines.Scan() {
		if _, at, ok := strings.Cut(lines.Text(), "  ui       "); ok {
			address = at
		}
	}
	limit.Stop()
	if address == "" {
		t.Fatal("the local stack is not up")
	}
	go func() { _, _ = io.Copy(io.Discard, said) }()
	outputs, err = local.Outputs(filepath.Join(dir, ".local"))
	must(t, err)
	return outputs, address
}

// firstSample waits for the first sample with MPEG-4 part 2 and returns it.
func firstSample(t *testing.T, bucket *store.Store, chunk int) map[string][]byte {
	t.Helper()
	key := task.DefaultDataset.CellKey(mp4vGenerator, task.Range{End: chunk})
	for limit := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if cell, err := bucket.Cell(t.Context(), key); err == nil && len(cell.Receipts) > 0 {
			s, files := cell.Receipts[0].Samples[0], map[string][]byte{}
			for _, f := range s.Files {
				data, err := bucket.Read(t.Context(), task.DefaultDataset.FileKey(mp4vGenerator, s.ID, f.Name))
				must(t, err)
				files[f.Name] = data
			}
			return files
		}
		if time.Now().After(limit) {
			t.Fatalf("no receipt of %s", mp4vGenerator)
		}
	}
}

// settle waits until the run has ended but for the task in the DLQ: the tests compare what is in the bucket.
func settle(t *testing.T, dir string) {
	t.Helper()
	for limit := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		out, said, err := ops(t, dir, "local", "status", "--json")
		var s LocalStatus
		if err != nil || json.Unmarshal([]byte(out), &s) != nil {
			t.Fatalf("%v\n%s%s", err, out, said)
		}
		if *s.Queue == (queue.Depth{}) && s.DLQ.Waiting == 1 {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("the run has not ended: %s", out)
		}
	}
}

// longOne commits a dataset of 10,000 samples in shards. They are small, but for one: a generator's whole sample whose
// texts are hostile.
func longOne(t *testing.T, bucket *store.Store, whole map[string][]byte, dir string) {
	t.Helper()
	const chunk = 100
	must(t, os.MkdirAll(dir, 0o755))
	file := func(name string, text []byte) sample.File {
		f := sample.File{Name: name, Path: filepath.Join(dir, hashOf(text)), Size: int64(len(text)), SHA256: hashOf(text)}
		must(t, os.WriteFile(f.Path, text, 0o600))
		if sample.IsVideo(name) || strings.HasSuffix(name, ".png") {
			media, err := sample.Describe(name, text)
			must(t, err)
			f.Media = media
		}
		return f
	}
	var kinds [5][]sample.File
	for i := range kinds {
		kinds[i] = []sample.File{file("first_frame.png", picture(fmt.Sprint("first", i))),
			file("metadata.json", fmt.Appendf(nil, `{"difficulty": %d}`, i+1)),
			file("prompt.txt", fmt.Appendf(nil, "Which of the %d shapes is largest?\n", i+1))}
	}
	hostile := map[string]string{"prompt.txt": "<script>window.hacked = 'prompt'</script><b>bold</b>\n",
		"rubric.txt":    "<img src=x onerror=\"window.hacked = 'rubric'\">\n",
		"metadata.json": `{"difficulty": 9, "note": "<script>window.hacked = 'metadata'</script>"}`,
		"drawing.svg": `<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">` +
			`<script>window.hacked = 'svg'; parent.hacked = 'svg'</script><rect width="9" height="9"/></svg>`,
		"page.html": `<script>window.hacked = 'html'; parent.hacked = 'html'</script>`}
	var worst []sample.File
	for name, text := range hostile {
		worst = append(worst, file(name, []byte(text)))
	}
	for name, text := range whole {
		if hostile[name] == "" {
			worst = append(worst, file(name, text))
		}
	}
	slices.SortFunc(worst, func(a, b sample.File) int { return strings.Compare(a.Name, b.Name) })
	st := bucket.In(longDataset)
	_, err := st.ChangeManifest(t.Context(), func(*task.Manifest) (*task.Manifest, error) {
		m := task.NewManifest(longDataset, 42, task.Tar)
		m.Add(task.PinnedGenerator{Name: longGenerator, ChunkSize: chunk})
		m.Ask(task.Range{End: longSamples}, []string{longGenerator})
		return &m, nil
	})
	must(t, err)
	random := rand.New(rand.NewPCG(1, 2))
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for start := 0; start < longSamples; start += chunk {
		wall := 60 + 60*random.Float64()
		group.Go(func() error {
			cell := task.Range{Start: start, End: start + chunk}
			r := store.Receipt{Dataset: longDataset, Generator: longGenerator, RunID: "made", RunSeed: 42, ChunkSize: chunk,
				ChunkStart: start, Seed: start, Start: start, End: cell.End, Format: task.Tar, Domain: "shapes",
				Command: []string{"python", "examples/generate.py", "--seed", fmt.Sprint(start)}, WallSeconds: wall,
				CPUSeconds: wall}
			for i := start; i < cell.End; i++ {
				files := kinds[i%len(kinds)]
				if i == hostileSample {
					files = worst
				}
				r.Samples = append(r.Samples, sample.Sample{Index: i, ID: task.SampleID("shapes", i),
					Fingerprint: fmt.Sprint("shapes", i), Files: files})
			}
			c, err := st.Take(ctx, longGenerator, cell, store.Holder{RequestID: "r", Deadline: time.Now().Add(time.Hour)},
				func(*store.Cell) bool { return true })
			if err != nil {
				return err
			}
			r.Epoch = c.Epoch
			shard, err := st.PutShard(ctx, longGenerator, task.Chunk{Number: start / chunk, Cell: cell, Keep: cell}, c.Epoch,
				r.Samples)
			if err != nil {
				return err
			}
			r.Shard = &shard
			return st.Commit(ctx, c, r, -1, true)
		})
	}
	must(t, group.Wait())
}
