package probe_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/probe"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// judged makes a generator with a judge, and samples whose prompts are texts.
func judged(t *testing.T, program string, texts ...string) (*generator.Generator, []sample.Sample) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	g := &generator.Generator{Name: "judged", Dir: filepath.Join(t.TempDir(), "judged"), Python: python}
	if probe.HasJudge(g) {
		t.Error("it has a judge before there is one")
	}
	write(t, filepath.Join(g.Dir, "eval", "verify.py"), program)
	if !probe.HasJudge(g) {
		t.Error("its judge is not found")
	}
	dir := t.TempDir()
	var samples []sample.Sample
	for i, text := range texts {
		s := sample.Sample{ID: fmt.Sprintf("maze_%08d", i), Index: i}
		for name, text := range map[string]string{"prompt.txt": text, "first_frame.png": "picture",
			"ground_truth.mp4": "video"} {
			file := filepath.Join(dir, s.ID, name)
			write(t, file, text)
			s.Files = append(s.Files, sample.File{Name: name, Path: file})
		}
		samples = append(samples, s)
	}
	return g, samples
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fromPrompts is a judge with the command line of the organisation's template: a prompt is what it says of the sample.
const fromPrompts = `
import argparse, json, os, sys, time
p = argparse.ArgumentParser()
p.add_argument("--video"); p.add_argument("--videos-dir"); p.add_argument("--gt-dir"); p.add_argument("--output")
a = p.parse_args()
results = []
for video in sorted(os.listdir(a.videos_dir)):
    folder = os.path.join(a.gt_dir, video.removesuffix(".mp4"))
    assert os.path.exists(os.path.join(folder, "first_frame.png"))
    exec(open(os.path.join(folder, "prompt.txt")).read())
with open(a.output, "w") as f:
    json.dump(results, f)
`

// says is a prompt that has the judge give a result.
func says(result string) string {
	return `results.append({"video_path": video, "gt_dir": folder, "dimensions": {}, ` + result + `})`
}

// A judge's scores are those of the samples; what it cannot score, or does not, has none of the points.
func TestJudge(t *testing.T) {
	g, samples := judged(t, fromPrompts, says(`"score": 1.0`), says(`"score": 0.9999999`),
		says(`"score": 0.65, "faults": ["frame 7: the dot jumps", "more"]`), says(`"score": 0.0, "error": "no \x1b[2Jframes"`),
		"pass",
		says(`"score": 7`), says(`"dimensions": {}`))
	scores, err := probe.Judge(t.Context(), g, t.TempDir(), samples)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"has 100.0 % full", "has 100.0 % full", "has 65.0 % (frame 7: the dot jumps) low",
		"has 0.0 % (no [2Jframes) low", "has 0.0 % (the judge has no score for it) low",
		"has 0.0 % (its score is no number from 0 to 1) low", "has 0.0 % (its score is no number from 0 to 1) low"}
	for i, s := range scores {
		if got := s.String() + map[bool]string{true: " low", false: " full"}[s.Low()]; got != samples[i].ID+" "+want[i] {
			t.Errorf("got %q, want %q", got, samples[i].ID+" "+want[i])
		}
	}
}

// A judge that does not come to an end, or writes nothing that can be read, is at fault and says why.
func TestJudgeFails(t *testing.T) {
	for name, c := range map[string]struct{ prompt, want string }{
		"crashes":      {`raise ValueError("no maze")`, "failed: exit status 1: ValueError: no maze"},
		"says nothing": {`sys.exit(0)`, "wrote no scores: there is no file of results"},
		"no JSON":      {says(`"score": float("nan")`), "wrote no scores: invalid character 'N'"},
		"a link": {`os.symlink("/etc/passwd", a.output); sys.exit(0)`,
			"wrote no scores: openat scores.json: path escapes"},
		"hangs":       {`time.sleep(60)`, "was still running when its time was up"},
		"credentials": {`raise ValueError([k for k in os.environ if "SECRET" in k] + ["none"])`, "ValueError: ['none']"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
			g, samples := judged(t, fromPrompts, c.prompt)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if name == "hangs" {
				ctx, cancel = context.WithTimeout(ctx, time.Second)
				defer cancel()
			}
			_, err := probe.Judge(ctx, g, t.TempDir(), samples)
			if f := probe.Blame(err); f == nil || !strings.Contains(f.Detail, c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// breakVideos takes the sample folders of a generator and breaks their videos in three ways, and leaves the first one.
const breakVideos = `
import os, shutil, sys
import av
root = sys.argv[1]
folders = sorted(os.path.join(root, name) for name in os.listdir(root))
def video(folder): return os.path.join(folder, "ground_truth.mp4")
def frames(folder):
    with av.open(video(folder)) as c: return [f.to_image() for f in c.decode(video=0)]
def rewrite(folder, pictures):
    with av.open(video(folder), "w") as out:
        s = out.add_stream("libx264", rate=16, options={"crf": "18"})
        s.width, s.height, s.pix_fmt = *pictures[0].size, "yuv420p"
        for p in pictures: out.mux(s.encode(av.VideoFrame.from_image(p)))
        out.mux(s.encode())
frozen, swapped, wrong = folders[1:4]
f = frames(frozen); rewrite(frozen, [f[0]] * len(f))
f = frames(swapped); n = len(f); f[n // 3], f[2 * n // 3] = f[2 * n // 3], f[n // 3]; rewrite(swapped, f)
shutil.copy(video(folders[0]), video(wrong))
`

// The judge of our mazes, run as ops does, names a frozen video, swapped frames and the moves of another puzzle, and no other sample.
func TestJudgeNamesBroken(t *testing.T) {
	python := os.Getenv("EXPORT_PYTHON")
	if python == "" {
		t.Skip("EXPORT_PYTHON is not set: it names a Python with PyAV and Pillow")
	}
	for _, name := range []string{"maze-task-data-generator"} { // generators/tests has them all
		dir, err := filepath.Abs(filepath.Join("..", "..", "generators", name))
		if err != nil {
			t.Fatal(err)
		}
		g := &generator.Generator{Name: name, Dir: dir, Entry: "examples/generate.py", Python: python,
			Flags: generator.Flags{Output: "--output", Seed: true}}
		scratch := filepath.Join(t.TempDir(), "scratch")
		if err := os.Mkdir(scratch, 0o700); err != nil {
			t.Fatal(err)
		}
		result, err := generator.Run(t.Context(), generator.Request{Generator: g, Samples: 5, Seed: 7, Scratch: scratch})
		if err != nil {
			t.Fatal(err)
		}
		folders, err := filepath.Glob(filepath.Join(result.Output, "*_task"))
		if err != nil || len(folders) != 1 {
			t.Fatal(folders, err)
		}
		if out, err := exec.CommandContext(t.Context(), python, "-c", breakVideos, folders[0]).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, samples, err := probe.Collect(g, result.Output, 5)
		if err != nil {
			t.Fatal(err)
		}
		scores, err := probe.Judge(t.Context(), g, t.TempDir(), samples)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"", "nothing has moved", "frame", "frame", ""}
		for i, s := range scores {
			if broken := want[i] != ""; s.Low() != broken || !strings.Contains(strings.Join(s.Faults, "; "), want[i]) {
				t.Errorf("%s: %s %q, want faults with %q", name, s, s.Faults, want[i])
			}
			t.Logf("%s: %s", name, s)
		}
	}
}
