package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// process runs ops in a folder with three generators and returns it started.
func (c *cloud) process(t testing.TB, dir string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ops", append([]string{"--outputs", c.outputs}, args...)...)
	said := &bytes.Buffer{}
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), c.env...), said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, said
}

// TestSubmitStopped stops a submit in one of its requests, before or after the
// queue has done it, by kill -9 or Ctrl-C. After submit --resume each task must
// have been sent, and few of them twice.
func TestSubmitStopped(t *testing.T) {
	t.Parallel()
	const tasks = 600 // 60 requests
	c, dir := newCloud(t), t.TempDir()
	makeGenerators(t, filepath.Join(dir, "generators"), "maze-task")
	moments := []int{1, 17}
	if os.Getenv("SCALE") != "" {
		moments = []int{1, 2, 17, 30}
	}
	for _, how := range []os.Signal{syscall.SIGKILL, os.Interrupt} {
		for _, at := range moments {
			for _, done := range []bool{false, true} {
				name := how.String() + " before"
				if done {
					name = how.String() + " after"
				}
				t.Run(name, func(t *testing.T) {
					run := fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), at)
					var mu sync.Mutex
					requests := 0
					reached, stopped := make(chan struct{}), make(chan struct{})
					c.intercept(func(operation string, r *http.Request) int {
						mu.Lock()
						requests++
						now := requests
						mu.Unlock()
						if now < at {
							return 0
						}
						if now == at {
							if done {
								c.sqs.ServeHTTP(httptest.NewRecorder(), r)
							}
							close(reached)
						}
						<-stopped
						return http.StatusServiceUnavailable
					})
					cmd, said := c.process(t, dir, "submit", "--all", "--samples", "6000", "--batch", "10", "--chunk", "10", "--run",
						run, "--dataset", run)
					<-reached
					if err := cmd.Process.Signal(how); err != nil {
						t.Fatal(err)
					}
					_ = cmd.Wait()
					close(stopped)
					c.intercept(nil)
					if how == os.Interrupt {
						if code := cmd.ProcessState.ExitCode(); code != 1 {
							t.Errorf("exit status %d, want 1", code)
						}
						if !strings.Contains(said.String(), "submit --resume "+run+" --dataset "+run+"\n") {
							t.Errorf("it does not say how to go on: %s", said)
						}
					}
					again, said := c.process(t, dir, "submit", "--resume", run, "--dataset", run)
					if err := again.Wait(); err != nil {
						t.Fatalf("resume: %v: %s", err, said)
					}
					bodies, err := c.take(t.Context(), testTasks)
					if err != nil {
						t.Fatal(err)
					}
					different := map[string]bool{}
					for _, b := range bodies {
						different[b] = true
					}
					if len(different) != tasks {
						t.Errorf("%d different tasks were sent, want %d", len(different), tasks)
					}
					if twice := len(bodies) - tasks; twice > 10*32 {
						t.Errorf("%d tasks were sent twice, more than were in flight", twice)
					}
				})
			}
		}
	}
}

// TestSubmitTwice refuses a resume while the run is being sent.
func TestSubmitTwice(t *testing.T) {
	t.Parallel()
	c, dir := newCloud(t), t.TempDir()
	makeGenerators(t, filepath.Join(dir, "generators"), "maze-task")
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.intercept(func(string, *http.Request) int {
		once.Do(func() { close(reached) })
		<-release
		return 0
	})
	first, _ := c.process(t, dir, "submit", "--all", "--samples", "10", "--run", "busy")
	<-reached
	second, said := c.process(t, dir, "submit", "--resume", "busy")
	if err := second.Wait(); err == nil || !strings.Contains(said.String(), "is being submitted by another process") {
		t.Errorf("the second submit ended with %v and said %s", err, said)
	}
	close(release)
	if err := first.Wait(); err != nil {
		t.Error(err)
	}
}

// makeGood makes the test generator in a file do nothing wrong.
func makeGood(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile(args[0])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, "fault = mood", "fault = \"good\"  # mood", 1)),
		0o644))
}
