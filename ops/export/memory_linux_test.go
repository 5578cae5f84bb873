package export_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// An export of large videos takes less than 300 MB of memory, in every format.
func TestLargeVideos(t *testing.T) {
	if os.Getenv("SCALE") == "" {
		t.Skip("SCALE=1 runs it")
	}
	t.Parallel()
	b := newBucket(t)
	g := maze
	g.Samples, g.Chunk = 6, 3
	g.Files = func(i int) map[string]string {
		files := maze.Files(i)
		files["ground_truth.mp4"] = random(i, 30<<20)
		return files
	}
	b.commit(t, "v1", task.Tar, g)
	larger := g
	larger.Name, larger.Samples = "larger", 1
	larger.Files = func(i int) map[string]string {
		files := maze.Files(i)
		files["ground_truth.mp4"] = random(i, 33<<20)
		return files
	}
	b.commit(t, "v2", task.Tar, larger)
	_, err := exported(t.Context(), t, export.Export{Store: b.store.In("v2"), Format: export.Parquet()}, t.TempDir())
	want := "the files of larger_00000000 have more than 33.6 MB, too much for a row of a Parquet file: " +
		"export it with --as webdataset"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`)
	for name := range formats {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "EXPORT_CHILD="+b.URL, "EXPORT_FORMAT="+name, "EXPORT_TO="+t.TempDir(),
			"EXPORT_WRITES="+fmt.Sprint(1<<40), "GOMEMLIMIT=200MiB")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		found := peak.FindSubmatch(out)
		if found == nil {
			t.Fatalf("%s: %s", name, out)
		}
		kB, err := strconv.Atoi(string(found[1]))
		check(t, err)
		t.Logf("%s: %d MB", name, kB/1000)
		if kB > 300_000 {
			t.Errorf("%s takes %d MB", name, kB/1000)
		}
	}
}
