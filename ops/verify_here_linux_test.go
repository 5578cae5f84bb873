package main

import (
	"bytes"
	"errors"
	pixels "image"
	"image/png"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A temporary folder that is full or not there is no damage: it is named, with the
// way out, nothing is said of the bucket, and there is no repair plan.
func TestVerifyWithoutTemporaryFolder(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	for name, format := range map[string]task.Format{"loose": task.Files, "packed": task.Tar} {
		stored(t, c.store, name, task.Range{Start: 0, End: 2}, format, 1, "", func(_ int, files map[string][]byte) {
			files["large.bin"] = make([]byte, 9<<20)
		})
	}
	dir := t.TempDir()
	full := filepath.Join(dir, "full")
	smallDisk(t, full, "1m")
	for folder, reason := range map[string]string{full: "no space left on device", filepath.Join(dir, "none"): "no such file or directory"} {
		for _, name := range []string{"loose", "packed"} {
			work := t.TempDir()
			makeGenerators(t, filepath.Join(work, "generators"), name)
			cmd := c.ops(t, work, "verify", "--deep", "--read", "--generator", name, "--samples", "2")
			cmd.Env = append(cmd.Env, "TMPDIR="+folder)
			out, err := cmd.CombinedOutput()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != exitFailed {
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
			if out, err := c.ops(t, work, "verify", "--deep", "--read", "--generator", name, "--samples", "2").CombinedOutput(); err != nil {
				t.Errorf("%s, with a temporary folder: %v %s", name, err, out)
			}
		}
	}
}

// Pictures that are small as files and large as pixels are looked at within 200 MB.
func TestVerifyOfLargePictures(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	var data bytes.Buffer
	must(t, png.Encode(&data, pixels.NewNRGBA(pixels.Rect(0, 0, 4096, 4096))))
	for name, format := range map[string]task.Format{"loose": task.Files, "packed": task.Tar} {
		for chunk := range 4 {
			stored(t, c.store, name, task.Range{Start: 4 * chunk, End: 4*chunk + 4}, format, 1, "", func(_ int, files map[string][]byte) {
				files["first_frame.png"] = data.Bytes()
			})
		}
		work := t.TempDir()
		makeGenerators(t, filepath.Join(work, "generators"), name)
		cmd := c.ops(t, work, "verify", "--deep", "--generator", name, "--samples", "16")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v %s", err, out)
		}
		const most = 200_000_000
		if peak := peakMemory(cmd); peak > most {
			t.Errorf("%s: it took %d MB for sixteen pictures of %d kB", name, peak/1_000_000, data.Len()/1000)
		} else {
			t.Logf("%s: %d MB", name, peak/1_000_000)
		}
	}
}

// peakMemory is what a process that has ended took, in bytes.
func peakMemory(cmd *exec.Cmd) int64 {
	return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
}
