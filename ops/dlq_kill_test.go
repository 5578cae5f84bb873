package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// ops is a process of the command line on the cloud, in a folder of its own, that
// is not started yet.
func (c *cloud) ops(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ops", append([]string{"--outputs", c.outputs}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), c.env...)
	return cmd
}

// A replay is killed, as by kill -9, before and after each of its requests. Run
// again, it has sent each task exactly once, but for those of the request in which
// it was killed: that SQS does not tell.
func TestReplayKilledAtEveryRequest(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	const messages = 12 // two receives
	for _, from := range []string{"DLQ", "folder"} {
		for _, when := range []string{"before", "after"} {
			for at := 1; ; at++ {
				dir := t.TempDir()
				for i := range messages {
					x := task.Task{Generator: "m", StartIndex: i, NumSamples: 1, Seed: 7, RunID: "r", Format: task.Files, ChunkSize: 1}
					if err := c.dead.SendMessage(t.Context(), x.Body(),
						map[string]queue.Attribute{task.AttributeCause: {Type: "String", Text: "crashed"}}); err != nil {
						t.Fatal(err)
					}
				}
				args := []string{"dlq", "replay"}
				if from == "folder" {
					saved := filepath.Join(dir, "saved")
					if out, err := c.ops(t, dir, "dlq", "download", "--to", saved).CombinedOutput(); err != nil {
						t.Fatalf("%v: %s", err, out)
					}
					if _, err := c.take(t.Context(), testDead); err != nil {
						t.Fatal(err)
					}
					args = append(args, "--from", saved)
				}
				name := fmt.Sprintf("%s: killed %s request %d", from, when, at)
				killed := c.killAt(t, c.ops(t, dir, args...), at, when == "after")
				c.check(t, name+", "+killed, dir, messages, args, when == "after" && killed == "SendMessageBatch")
				if killed == "" { // it has fewer requests
					break
				}
			}
		}
	}
}

// killAt runs a command and kills it at one of its requests to the queue, before or
// after that is carried out. It returns the request's operation, or "" if the
// command came to its end.
func (c *cloud) killAt(t *testing.T, cmd *exec.Cmd, at int, after bool) (killed string) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	started := make(chan struct{})
	c.intercept(func(operation string, r *http.Request) int {
		<-started
		mu.Lock()
		defer mu.Unlock()
		if n++; n < at || killed != "" {
			return 0
		}
		killed = operation
		if after {
			c.sqs.ServeHTTP(discard{}, r)
		}
		_ = cmd.Process.Kill()
		return http.StatusInternalServerError
	})
	defer c.intercept(nil)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	close(started)
	err := cmd.Wait()
	mu.Lock()
	defer mu.Unlock()
	if killed == "" && err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	return killed
}

// discard is an answer that nobody reads.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

// check runs the replay again, after the time that messages stay hidden, and counts
// what was sent.
func (c *cloud) check(t *testing.T, name, dir string, messages int, args []string, doubtful bool) {
	t.Helper()
	for _, d := range c.sqs.InFlight(testDead) {
		if err := c.sqs.Return(testDead, d.ReceiptHandle, true); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := c.ops(t, dir, args...).CombinedOutput(); err != nil {
		t.Errorf("%s: again: %v: %s", name, err, out)
	}
	bodies, err := c.take(t.Context(), testTasks)
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]int{}
	for _, b := range bodies {
		if !strings.Contains(b, `"attempt":3`) {
			t.Errorf("%s: sent %s", name, b)
		}
		sent[b]++
	}
	doubles := len(bodies) - len(sent)
	if len(sent) != messages || slices.Max(append(slices.Collect(maps.Values(sent)), 0)) > 2 || doubles > 10 ||
		doubles > 0 != doubtful {
		t.Errorf("%s: %d different tasks of %d were sent, and %d twice", name, len(sent), messages, doubles)
	}
	if left, err := c.take(t.Context(), testDead); err != nil || len(left) > 0 {
		t.Errorf("%s: left in the DLQ: %q, %v", name, left, err)
	}
}

// The journal may be cut off anywhere between the answer of the queue and the
// deletes: what it does not confirm is sent again as it was, nothing else is.
func TestReplayKilledWhileItConfirms(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	for _, lost := range []int{0, 1, 300, 10_000} { // bytes of the journal's end
		dir := t.TempDir()
		for i := range 9 {
			if err := c.dead.SendMessage(t.Context(),
				fmt.Sprintf(`{"type":"m","start_index":%d,"num_samples":1,"seed":7,"run_id":"r","chunk_size":1}`, i),
				map[string]queue.Attribute{task.AttributeCause: {Type: "String", Text: "crashed"}}); err != nil {
				t.Fatal(err)
			}
		}
		const theDelete = 4 // count, receive, send, delete
		if killed := c.killAt(t, c.ops(t, dir, "dlq", "replay"), theDelete, false); killed != "DeleteMessageBatch" {
			t.Fatalf("killed at %s", killed)
		}
		journals, _ := filepath.Glob(filepath.Join(dir, ".local", "replays", "*.journal"))
		if len(journals) != 1 {
			t.Fatal(journals)
		}
		text, err := os.ReadFile(journals[0])
		if err != nil {
			t.Fatal(err)
		}
		text = text[:max(0, len(text)-lost)]
		if err := os.WriteFile(journals[0], text, 0o644); err != nil {
			t.Fatal(err)
		}
		confirmed := bytes.Count(text[:bytes.LastIndexByte(text, '\n')+1], []byte(`"sent":true`))
		for _, d := range c.sqs.InFlight(testDead) {
			if err := c.sqs.Return(testDead, d.ReceiptHandle, true); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := c.ops(t, dir, "dlq", "replay").CombinedOutput(); err != nil {
			t.Errorf("again: %v: %s", err, out)
		}
		bodies, err := c.take(t.Context(), testTasks)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(bodies)
		if different := len(slices.Compact(slices.Clone(bodies))); different != 9 || len(bodies) != 9+9-confirmed {
			t.Errorf("%d bytes lost, %d confirmed: %d sent, %d of them different", lost, confirmed, len(bodies), different)
		}
		if left, _ := c.take(t.Context(), testDead); len(left) > 0 {
			t.Errorf("left in the DLQ: %q", left)
		}
	}
}
