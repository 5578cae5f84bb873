package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
)

// A container of the fleet's image takes a stack's tasks, with what the image has of generators and
// environments, and stops when there are no more.
func TestImageOfFleet(t *testing.T) {
	repo, c := checkout(t), newCloud(t)
	const worker = "vm-dataset-worker:fleet-test" // FROM takes names, not ids
	docker(t, "tag", build(t, repo, `{}`).ID, worker)
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", worker).Run() })
	fleet := docker(t, append([]string{"build", "--quiet", "--file=" + filepath.Join(repo, "deploy", "Dockerfile"),
		"--build-arg=IMAGE=" + worker, repo}, bases()...)...)
	const maze = "maze-task-data-generator"
	must(t, c.queue.SendMessage(t.Context(), `{"type":"`+maze+`","start_index":0,"num_samples":4,"seed":42}`, nil))
	run := []string{"run", "--rm", "--network=host", "--volume=" + c.outputs + ":/outputs.json:ro"}
	for _, variable := range c.env {
		run = append(run, "--env="+variable)
	}
	t.Log(docker(t, slices.Concat(run, []string{fleet, "--outputs=/outputs.json", "--local-dir=/tmp/ops", "worker",
		"--workers=1", "--idle=2s"})...))
	samples := 0
	for _, r := range s3test.Receipts(t, c.store, maze) {
		samples += r.End - r.Start
		if r.Image != worker || r.Lock == "" {
			t.Errorf("a receipt names the image %q and the lock %q", r.Image, r.Lock)
		}
	}
	if samples != 4 {
		t.Errorf("%d of 4 samples are committed", samples)
	}
}
