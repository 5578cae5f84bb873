package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/reproduce"
)

// A sample that a container made is made again in a container of the same image,
// also where the generator of this machine has changed.
func TestImageReproduces(t *testing.T) {
	const maze = "maze-task-data-generator"
	repo, dir := checkout(t), t.TempDir()
	built := build(t, repo, `{"`+maze+`":"c1"}`)
	logsOf(t, dir)
	if _, said, err := ops(t, dir, "local", "run", "--image", built.ID, "--memory", "2048", "--generator", maze,
		"--samples", "3", "--chunk", "3", "--format", "tar"); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	edit(t, filepath.Join(repo, "generators", maze, "maze_puzzle.py"), "import random",
		"import random\n\nrandom.Random = lambda seed, real=random.Random: real(f'{seed} changed')")
	up := exec.CommandContext(t.Context(), "ops", "--generators-dir", filepath.Join(repo, "generators"), "local", "up",
		"--workers", "1")
	up.Dir = dir
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = up.Process.Signal(os.Interrupt)
		_ = up.Wait()
	})
	for limit := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := local.Outputs(filepath.Join(dir, ".local")); err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("the local stack is not up")
		}
	}
	again := func(args ...string) (reproduce.Reproduction, error) {
		t.Helper()
		out, said, err := ops(t, dir,
			append([]string{"--stack", "local", "--generators-dir", filepath.Join(repo, "generators"), "--json", "reproduce",
				maze, "2"}, args...)...)
		var r reproduce.Reproduction
		if e := json.Unmarshal([]byte(out), &r); e != nil {
			t.Fatalf("%v, %v: %s\n%s", err, e, out, said)
		}
		return r, err
	}
	if r, err := again(); err != nil || !r.Equal || r.In != built.ID || r.CommitHere != "c1" || len(r.Notes) > 0 {
		t.Errorf("in the image: %+v, %v", r, err)
	}
	r, err := again("--here")
	if err == nil || r.Equal || r.In != "this machine" || !strings.Contains(strings.Join(r.Notes, " "), "commit is c1") ||
		r.Deterministic == nil || !*r.Deterministic {
		t.Errorf("on this machine, where it has changed: %+v, %v", r, err)
	}
}
