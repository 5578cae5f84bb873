package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// The tests here build the worker's image and run it. Each makes a copy of the
// files in the repository, so that a work tree with other things in it makes no
// difference, and can be changed.

// The image that was built makes samples of every generator of our own, as whole
// and the same as this program does, with the limits of Lambda.
func TestImageRuns(t *testing.T) {
	repo, dir := checkout(t), t.TempDir()
	commits := map[string]string{}
	found, err := generator.Discover(filepath.Join(repo, "generators"))
	if err != nil {
		t.Fatal(err)
	}
	for n, g := range found {
		commits[g.Name] = fmt.Sprintf("%040d", n)
	}
	text, err := json.Marshal(commits)
	if err != nil {
		t.Fatal(err)
	}
	built := build(t, repo, string(text))
	t.Logf("image: %d MB", built.Size/1e6)
	logsOf(t, dir)
	out, said, err := ops(t, dir, "local", "run", "--image", built.ID, "--memory", "2048", "--all", "--samples", "20",
		"--json")
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for _, line := range regexp.MustCompile(`(?m)^.* asked for work .*$`).FindAllString(said, -1) {
		t.Log(line)
	}
	var report LocalResult
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	if !report.Complete || len(report.Generators) != len(commits) || len(commits) < 5 {
		t.Errorf("got %s\n%s", out, said)
	}
	for name, commit := range commits {
		for _, r := range receipts(t, dir, name) {
			if r.Image != built.ID || r.Commit != commit {
				t.Errorf("%s: the receipt says image %q and commit %q, want %q and %q", name, r.Image, r.Commit, built.ID, commit)
			}
		}
	}
	if left := containers(t, dir); left != "" {
		t.Errorf("containers are left: %s", left)
	}
}

// receipts are those that a local stack has stored for a generator.
func receipts(t *testing.T, dir, name string) (list []store.Receipt) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, ".local", "s3", local.Bucket, "receipts", "v1", name, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("receipts of %s: %v, %v", name, files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cell, err := store.ParseCell(file, text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, cell.Receipts...)
	}
	return list
}

// containers are the names of those of a local stack.
func containers(t *testing.T, dir string) string {
	t.Helper()
	return docker(t, "ps", "--all", "--filter", "label=vm-dataset.local="+filepath.Join(dir, ".local"), "--format",
		"{{.Names}}")
}

// A generator in the container finds what one finds on Lambda.
func TestImageLimits(t *testing.T) {
	repo, dir := checkout(t), t.TempDir()
	probe, err := os.ReadFile(filepath.Join("testdata", "image", "probe.py"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(repo, "generators", "probe", "examples", "generate.py"), probe)
	put(t, filepath.Join(repo, "generators", "probe", "helper.py"), nil)
	put(t, filepath.Join(repo, "generators", "catalog.yaml"),
		[]byte("probe: {videoless: true, required: [limits.json]}\n"))
	logsOf(t, dir)
	out, said, err := ops(t, dir, "local", "run", "--image", build(t, repo, "{}").ID, "--memory", "1024", "--tmp", "256",
		"--workers", "1", "--generator", "probe", "--samples", "1", "--chunk", "1")
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, said)
	}
	text, err := os.ReadFile(filepath.Join(local.SamplesDir(filepath.Join(dir, ".local"), ""), "probe", "probe_00000000",
		"limits.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		User                     int
		Passwd, Root, Generators string
		Shm                      bool
		Tmp, Memory              int64
		Files, Threads, Compiled int
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", text)
	// Landlock, where the kernel and Docker have it, refuses before the file system does.
	for name, refusal := range map[string]string{"root": got.Root, "generators": got.Generators} {
		if refusal != "OSError" && refusal != "PermissionError" {
			t.Errorf("%s can be written: %q", name, refusal)
		}
	}
	if got.User == 0 || got.Passwd != "KeyError" || got.Shm || got.Tmp != 256<<20 || got.Memory != 1<<30 ||
		got.Files > 1024 || got.Files < 1000 || got.Threads > 1024 || got.Threads < 900 || got.Compiled != 1 {
		t.Errorf("got %s", text)
	}
}

// Only what the image is made of changes it, and an edit of a generator or of the
// worker leaves the environments as they are.
func TestImageChanges(t *testing.T) {
	repo := checkout(t)
	const environments = 2 // layers above the base image: the system's packages, then these
	first := build(t, repo, "{}")
	base := len(first.RootFS.Layers) - 5
	for _, unrelated := range []string{"README.md", "docs/ARCHITECTURE.md", "worker/worker_test.go",
		"worker/generator/requirements_test.go", "worker/generator/testdata/new", "ops/main.go", "infra/pipeline.go",
		"infra/stack/stack_test.go", "generators/.fetch/x-1/new/examples/generate.py", "generators/tests/test_generators.py",
		".ci/run", "generators/puzzlekit/__pycache__/cli.cpython-311.pyc"} {
		put(t, filepath.Join(repo, unrelated), []byte("changed\n"))
	}
	if again := build(t, repo, "{}"); again.ID != first.ID {
		t.Errorf("files that are not in the image have changed it from %s to %s", first.ID, again.ID)
	}
	changes := []struct {
		name    string
		commits string
		do      func()
		layers  int // that stay as they are, above the base image
	}{
		{"the worker", "{}", func() {
			edit(t, filepath.Join(repo, "worker", "work.go"), `"task started"`,
				`"task begun"`)
		}, environments + 2},
		{"the commit of a generator", `{"maze-task-data-generator":"c"}`, func() {}, environments + 1},
		{"a generator", "{}", func() {
			edit(t, filepath.Join(repo, "generators", "maze-task-data-generator", "maze_drawing.py"), "import",
				"# edited\nimport")
		}, environments},
		{"what a generator requires", "{}", func() {
			put(t, filepath.Join(repo, "generators", "maze-task-data-generator", "requirements.txt"), nil)
		}, environments - 1},
	}
	seen := map[string]string{first.ID: "nothing"}
	last := first
	for _, c := range changes {
		c.do()
		now := build(t, repo, c.commits)
		if before, ok := seen[now.ID]; ok {
			t.Errorf("a change of %s gives the image of a change of %s", c.name, before)
		}
		seen[now.ID] = c.name
		if keep := base + c.layers; !reflect.DeepEqual(now.RootFS.Layers[:keep], last.RootFS.Layers[:keep]) {
			t.Errorf("a change of %s has changed other layers:\n%q\n%q", c.name, last.RootFS.Layers, now.RootFS.Layers)
		}
		last = now
	}
}

// A generator whose environment cannot be used is in the image with the reason, and
// the others work. This one's package lies in the generator's folder, and a module
// of it cannot be imported. Where it is the only one, there is no image.
func TestImageWithoutOne(t *testing.T) {
	repo, dir := checkout(t), t.TempDir()
	broken := filepath.Join(repo, "generators", "broken")
	put(t, filepath.Join(broken, "examples", "generate.py"), nil)
	put(t, filepath.Join(broken, "requirements.txt"), []byte("./pkg\n"))
	put(t, filepath.Join(broken, "pkg", "setup.py"),
		[]byte("from setuptools import setup\nsetup(name='broken-thing', version='1', py_modules=['broken_thing'])\n"))
	put(t, filepath.Join(broken, "pkg", "broken_thing.py"), []byte("import ctypes\nctypes.CDLL('libnothere.so.1')\n"))
	why := "import broken_thing: OSError: libnothere.so.1"
	out, err := plainBuild(t, repo)
	if want := "WARNING: generator broken is in the image and cannot run: " + why; err != nil ||
		!strings.Contains(out, want) {
		t.Errorf("%v, want %q in %s", err, want, out[max(0, len(out)-3000):])
	}
	built := build(t, repo, "{}")
	logsOf(t, dir)
	run := []string{"local", "run", "--image", built.ID, "--memory", "2048", "--samples", "2"}
	if out, said, err := ops(t, dir, append(run, "--generator", "broken")...); err == nil ||
		!strings.Contains(said, "generator broken is not ready: "+why) {
		t.Errorf("%v\n%s%s", err, out, said)
	}
	if out, said, err := ops(t, dir, append(run, "--all")...); err != nil ||
		!strings.Contains(said, "left out: broken: "+why) || !strings.Contains(out, made(t, repo, 1)) {
		t.Errorf("%v\n%s%s", err, out, said)
	}
	found, err := generator.Discover(filepath.Join(repo, "generators"))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range found {
		if g.Name != "broken" {
			if err := os.RemoveAll(g.Dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	if out, err := plainBuild(t, repo); err == nil || !strings.Contains(out, "no generator is ready") {
		t.Errorf("%v, %s", err, out[max(0, len(out)-3000):])
	}
}

// plainBuild builds an image and returns what the build prints.
func plainBuild(t *testing.T, repo string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "docker", append([]string{"build", repo}, bases()...)...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=1", "BUILDKIT_PROGRESS=plain")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A catalogue whose generators need sets of packages that exclude each other makes
// one image, in which each has its own; equal sets, however they are written, have
// one. An edit of a generator makes no environment again.
func TestImageOfSeveralSets(t *testing.T) {
	repo, dir := checkout(t), t.TempDir()
	program, err := os.ReadFile(filepath.Join("local", "testdata", "generate.py"))
	if err != nil {
		t.Fatal(err)
	}
	for name, requires := range map[string][2]string{
		"old-six": {"six==1.16.0\n", "1.16.0"}, "new-six": {"six==1.17.0\n", "1.17.0"},
		"new-six-too": {"# the same\nSix == 1.17.0\n", "1.17.0"}, "without": {"", ""}, "idna": {"idna==3.10\n", ""},
	} {
		source := string(program)
		if requires[1] != "" {
			source += fmt.Sprintf("\nimport six\nassert six.__version__ == %q\n", requires[1])
		}
		put(t, filepath.Join(repo, "generators", name, "examples", "generate.py"), []byte(source))
		put(t, filepath.Join(repo, "generators", name, "requirements.txt"), []byte(requires[0]))
	}
	sizeOf := func(i builtImage) (environments map[string]bool) {
		t.Helper()
		index, err := generator.ParseIndex([]byte(docker(t, "run", "--rm", "--entrypoint", "cat", i.ID,
			"/opt/generators/index.json")))
		if err != nil {
			t.Fatal(err)
		}
		environments = map[string]bool{}
		for _, g := range index.Generators {
			if g.Problem != "" {
				t.Errorf("%s: %s", g.Name, g.Problem)
			}
			environments[g.Environment] = true
		}
		disk := docker(t, "run", "--rm", "--entrypoint", "du", i.ID, "-sm", "/opt/generators/environments")
		t.Logf("image: %d MB, %d layers, %d generators in %d environments of %s MB", i.Size/1e6, len(i.RootFS.Layers),
			len(index.Generators), len(environments), strings.Fields(disk)[0])
		return environments
	}
	first := build(t, repo, "{}")
	if n := len(sizeOf(first)); n != 5 { // ours, two of six, idna, and the empty one
		t.Errorf("%d environments, want 5", n)
	}
	logsOf(t, dir)
	if out, said, err := ops(t, dir, "local", "run", "--image", first.ID, "--memory", "2048", "--all", "--samples",
		"2"); err != nil || !strings.Contains(out, made(t, repo, 0)) {
		t.Errorf("%v\n%s%s", err, out, said)
	}
	const above = 5 // layers above the base image, of which two hold the system's packages and the environments
	keep := len(first.RootFS.Layers) - above + 2
	edit(t, filepath.Join(repo, "generators", "old-six", "examples", "generate.py"), "import six", "import six  # edited")
	if again := build(t, repo, "{}"); again.ID == first.ID || !reflect.DeepEqual(again.RootFS.Layers[:keep],
		first.RootFS.Layers[:keep]) {
		t.Errorf("an edit of a generator has changed the environments:\n%q\n%q", first.RootFS.Layers, again.RootFS.Layers)
	}
	put(t, filepath.Join(repo, "generators", "idna", "requirements.txt"), []byte("idna==3.9\n"))
	if n := len(sizeOf(build(t, repo, "{}"))); n != 5 {
		t.Errorf("%d environments, want 5", n)
	}
}

// made is what a run of two samples of all generators of a repository says, but for some.
func made(t *testing.T, repo string, less int) string {
	t.Helper()
	found, err := generator.Discover(filepath.Join(repo, "generators"))
	if err != nil {
		t.Fatal(err)
	}
	n := len(found) - less
	return fmt.Sprintf(": %d generators, %d samples", n, 2*n)
}

// Killed with kill -9, a local stack leaves no container behind, and the next one
// goes on.
func TestImageStackKilled(t *testing.T) {
	built, dir := build(t, checkout(t), "{}"), t.TempDir()
	logsOf(t, dir)
	run := []string{"local", "run", "--image", built.ID, "--memory", "2048", "--generator", "maze-task-data-generator",
		"--samples", "100"}
	cmd := exec.CommandContext(t.Context(), "ops", run...)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await := func(what string, holds func() bool) {
		t.Helper()
		for limit := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	await("a receipt", func() bool {
		files, _ := filepath.Glob(filepath.Join(dir, ".local", "s3", local.Bucket, "receipts", "v1", "*", "*.json"))
		return len(files) > 0
	})
	if containers(t, dir) == "" {
		t.Error("there are no containers to begin with")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	out, said, err := ops(t, dir, run...)
	if err != nil || !strings.Contains(out, ": 1 generator, 100 samples") {
		t.Errorf("%v\n%s%s", err, out, said)
	}
	await("the containers are gone", func() bool { return containers(t, dir) == "" })
}

// The Dockerfile's base images have exact tags, and the builder is new enough.
func TestImageBases(t *testing.T) {
	text, err := fs.ReadFile(os.DirFS(".."), "Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`(?m)^ARG BUILDER_IMAGE=public\.ecr\.aws/docker/library/golang:\d+\.\d+\.\d+-bookworm@sha256:[0-9a-f]{64}$`,
		`(?m)^ARG BASE_IMAGE=public\.ecr\.aws/docker/library/python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}$`} {
		if !regexp.MustCompile(want).Match(text) {
			t.Errorf("no %s in the Dockerfile", want)
		}
	}
}
