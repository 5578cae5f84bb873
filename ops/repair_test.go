package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
)

// inFolder is ops on the local stack of a folder.
func inFolder(t *testing.T, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), "ops", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "OPS_STACK=local", "OPS_GENERATORS="+filepath.Join(dir, "generators"),
		"OPS_LOCAL_DIR="+filepath.Join(dir, ".local"))
	return cmd
}

// The replacing of duplicates is stopped at its first rounds, by Ctrl-C or kill -9,
// as soon as a round is announced or a while later. The same command goes on, and
// nothing is made that was made already.
func TestDuplicatesStopped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source, err := os.ReadFile(filepath.Join("local", "testdata", "generate.py"))
	must(t, err)
	makeGenerators(t, filepath.Join(dir, "generators"), "pool-40")
	must(t, os.WriteFile(filepath.Join(dir, "generators", "pool-40", "examples", "generate.py"), source, 0o644))
	up := inFolder(t, dir, "local", "up", "--workers", "2")
	must(t, up.Start())
	t.Cleanup(func() {
		_ = up.Process.Signal(os.Interrupt)
		_ = up.Wait()
	})
	for limit := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := local.Outputs(filepath.Join(dir, ".local")); err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("the local stack is not up")
		}
	}
	const samples = 30
	if out, err := inFolder(t, dir, "submit", "--all", "--samples", "5", "--chunk", "5").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	args := []string{"repair", "--duplicates", "--all", "--samples", "30", "--json"}
	// The first runs are those of the gaps and those of the first rounds.
	for n, how := range []os.Signal{os.Interrupt, os.Interrupt, syscall.SIGKILL} {
		cmd := inFolder(t, dir, args...)
		said, err := cmd.StderrPipe()
		must(t, err)
		must(t, cmd.Start())
		var all bytes.Buffer
		lines := bufio.NewScanner(io.TeeReader(said, &all))
		for runs := 0; lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "run ") {
				if runs++; runs > n%2 {
					break
				}
			}
		}
		must(t, cmd.Process.Signal(how))
		_, _ = io.Copy(io.Discard, io.TeeReader(said, &all))
		err = cmd.Wait()
		if err == nil { // it was done before it could be stopped
			continue
		}
		if how == os.Interrupt && !strings.Contains(all.String(), "try: the same command: it continues") {
			t.Errorf("it does not say how to go on: %s", &all)
		}
		if exit, ok := errors.AsType[*exec.ExitError](err); how == os.Interrupt && (!ok || exit.ExitCode() != 1) {
			t.Errorf("stopped, it ends with %v", err)
		}
	}
	out, err := inFolder(t, dir, args...).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var outcomes []dataset.Outcome
	must(t, json.Unmarshal(out, &outcomes))
	if o := outcomes[0]; o.Verdict != dataset.Distinct || o.Distinct != samples || o.Drawn > 4*samples {
		t.Errorf("%+v", o)
	}
	text, err := inFolder(t, dir, "verify", "--deep", "--json").Output()
	if err != nil || !bytes.Contains(text, []byte(`"duplicates": 0`)) {
		t.Errorf("%v: %s", err, text)
	}

	// No attempt was used twice for a sample.
	ids, err := filepath.Glob(filepath.Join(dir, ".local", "s3", local.Bucket, "runs", "v1", "*.json"))
	must(t, err)
	used := map[int][]int{}
	for _, path := range ids {
		text, err := os.ReadFile(path)
		must(t, err)
		var run struct {
			Generators []struct {
				Repairs []struct {
					Indices []int
					Attempt int
				}
			}
		}
		must(t, json.Unmarshal(text, &run))
		for _, g := range run.Generators {
			for _, x := range g.Repairs {
				for _, i := range x.Indices {
					if slices.Contains(used[i], x.Attempt) {
						t.Errorf("attempt %d of sample %d was sent twice", x.Attempt, i)
					}
					used[i] = append(used[i], x.Attempt)
				}
			}
		}
	}
	if len(used) == 0 {
		t.Error("nothing was repaired")
	}
}
