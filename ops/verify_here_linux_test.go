package main

import (
	"bytes"
	"errors"
	"fmt"
	pixels "image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A temporary folder that is full or not there is no damage: it is named, with the
// way out, nothing is said of the bucket, and there is no repair plan.
func TestVerifyWithoutTemporaryFolder(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	for name, format := range map[string]task.Format{"loose": task.Files, "packed": task.Tar} {
		stored(t, c.store, name, task.Range{Start: 0, End: 2}, format, "", func(_ int, files map[string][]byte) {
			files["large.bin"] = make([]byte, 9<<20)
		})
	}
	dir := t.TempDir()
	full := filepath.Join(dir, "full")
	smallDisk(t, full, "1m")
	for folder, reason := range map[string]string{full: "no space left on device",
		filepath.Join(dir, "none"): "no such file or directory"} {
		for _, name := range []string{"loose", "packed"} {
			work := t.TempDir()
			makeGenerators(t, filepath.Join(work, "generators"), name)
			cmd := c.ops(t, work, "verify", "--deep", "--read", "--generator", name, "--samples", "2")
			cmd.Env = append(cmd.Env, "TMPDIR="+folder)
			out, err := cmd.CombinedOutput()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != ui.ExitFailed {
				t.Errorf("%s with %s: %v", name, reason, err)
			}
			for _, word := range []string{folder + " cannot be used", reason, "TMPDIR"} {
				if !strings.Contains(string(out), word) {
					t.Errorf("%s with %s: %q is not in %s", name, reason, word, out)
				}
			}
			for _, file := range files(t, work) {
				if strings.HasSuffix(file, "plan.json") {
					t.Errorf("%s with %s: there is a plan %s", name, reason, file)
				}
			}
			if out, err := c.ops(t, work, "verify", "--deep", "--read", "--generator", name, "--samples",
				"2").CombinedOutput(); err != nil {
				t.Errorf("%s, with a temporary folder: %v %s", name, err, out)
			}
		}
	}
}

// Pictures that are small as files and large as pixels are looked at within 200 MB.
func TestVerifyOfLargePictures(t *testing.T) {
	if os.Getenv("SCALE") == "" {
		t.Skip("SCALE=1 runs it")
	}
	t.Parallel()
	c := newCloud(t)
	var data bytes.Buffer
	must(t, png.Encode(&data, pixels.NewNRGBA(pixels.Rect(0, 0, 4096, 4096))))
	for name, format := range map[string]task.Format{"loose": task.Files, "packed": task.Tar} {
		for chunk := range 4 { // as many as might be read at once
			stored(t, c.store, name, task.Range{Start: 2 * chunk, End: 2*chunk + 2}, format, "",
				func(_ int, files map[string][]byte) {
					files["first_frame.png"] = data.Bytes()
				})
		}
		work := t.TempDir()
		makeGenerators(t, filepath.Join(work, "generators"), name)
		out, peak, err := measured(t, c.ops(t, work, "verify", "--deep", "--generator", name, "--samples", "8"))
		if err != nil {
			t.Fatalf("%v %s", err, out)
		}
		const most = 200_000_000
		if peak > most {
			t.Errorf("%s: it took %d MB for eight pictures of %d kB", name, peak/1_000_000, data.Len()/1000)
		} else {
			t.Logf("%s: %d MB", name, peak/1_000_000)
		}
	}
}

// plainOps is the program without the race detector: the tests' own ops, or one built
// once if that has it. It lies where the tests' own does, which is removed with them.
var plainOps = sync.OnceValues(func() (string, error) {
	tested, err := exec.LookPath("ops")
	if err != nil {
		return "", err
	}
	info, ok := debug.ReadBuildInfo()
	race := debug.BuildSetting{Key: "-race", Value: "true"}
	if ok && !slices.Contains(info.Settings, race) {
		return tested, nil
	}
	program := filepath.Join(filepath.Dir(tested), "plain-ops")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ops: %w: %s", err, out)
	}
	return program, nil
})

// measured runs a command and returns what it says and the most memory it took, in
// bytes. It runs the program without the race detector, which takes several times the
// memory, and not as a child of
// the tests: until a child becomes another program the kernel counts its parent's
// memory as its own.
func measured(t *testing.T, cmd *exec.Cmd) (said string, peak int64, err error) {
	t.Helper()
	report := filepath.Join(t.TempDir(), "peak")
	program, err := plainOps()
	must(t, err)
	python, err := exec.LookPath("python3")
	must(t, err)
	cmd.Path, cmd.Err = python, nil
	cmd.Args = append([]string{python, "-c", `
import resource, subprocess, sys
status = subprocess.run(sys.argv[2:]).returncode
with open(sys.argv[1], "w") as f:
    f.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)`, report, program}, cmd.Args[1:]...)
	cmd.Env = append(cmd.Env, "GOGC=100") // as users have it
	out, err := cmd.CombinedOutput()
	text, e := os.ReadFile(report)
	must(t, e)
	kilobytes, e := strconv.ParseInt(string(text), 10, 64)
	must(t, e)
	return string(out), kilobytes << 10, err
}
