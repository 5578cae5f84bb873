package local

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A worker that is killed while it is busy is no broken one, however often in a
// row: three tasks lose their worker twice each, and then they are made.
func TestWorkersKilledWhileBusy(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	var kills atomic.Int32
	front := proxy(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, task.DefaultDataset.Prefix(task.ReceiptKind)) &&
			kills.Add(1) <= 6 {
			killWorkers(t, dir)
			return true
		}
		return false
	})
	r := up(t, dir, Config{Workers: 1, front: front})
	for i := range 3 {
		r.sendTask(task.Task{Generator: "good", StartIndex: 2 * i, NumSamples: 2, Seed: 1, ChunkSize: 2})
	}
	eventually(t, "the queue is empty", func() bool {
		select {
		case err := <-r.Failed():
			t.Fatalf("after %d kills the stack ended: %v", kills.Load(), err)
		default:
		}
		return r.Idle()
	})
	if kills.Load() < 6 {
		t.Errorf("%d kills", kills.Load())
	}
	r.holds("good", task.Range{Start: 0, End: 6})
}

// A Docker daemon that hangs holds up the end of a worker for so long, and no
// longer.
func TestDockerKillHangs(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "docker"), []byte("#!/bin/sh\nsleep 60 & wait\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	var said string
	stack := &Stack{config: Config{dockerLimit: 100 * time.Millisecond, Say: func(m string) { said += m }}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stack.endContainer("worker-0", make(chan struct{})) // which is closed when the client has ended
	}()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("after 5 s it still waits for docker kill")
	}
	if !strings.Contains(said, "the container worker-0 did not end") {
		t.Errorf("it said %q", said)
	}
}
