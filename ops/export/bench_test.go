package export_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// random is bytes that do not compress.
func random(seed, n int) string {
	text := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(n), byte(n >> 8), byte(n >> 16)}).Read(text)
	return string(text)
}

// BenchmarkExport measures exports of 300 MB in samples of 300 kB from the local stack's folder, over tar and cp of the
// same files: as they are, and with a sync, since an export is on the disk when it ends. Each round does all of them by
// turns, on a disk that has nothing left to write. What they have written is emptied and not deleted, because ext4 is
// slow to create files where others were just deleted. It prints medians and ratios of medians.
func BenchmarkExport(b *testing.B) {
	const samples, size = 1000, 300e6
	at := newBucket(b)
	at.commit(b, "v1", task.Files, made("speed", "speed", samples, 50, func(i int) map[string]string {
		return map[string]string{"first_frame.png": random(i, 20_000), "final_frame.png": random(i, 20_001),
			"prompt.txt": "Go.", "metadata.json": "{}", "ground_truth.mp4": random(i, 260_000)}
	}))
	shell := func(command string) func(string) error {
		return func(dir string) error {
			cmd := exec.Command("sh", "-c", command, "", filepath.Join(at.Folder, "data"), dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}
	}
	type contender struct {
		name    string
		run     func(dir string) error
		over    string // the baseline, without and with a sync
		seconds []float64
		cpu     []float64
	}
	all := []*contender{
		{name: "tar", run: shell(`tar cf "$2/x.tar" -C "$1" .`)},
		{name: "tar+sync", run: shell(`tar cf "$2/x.tar" -C "$1" . && sync -f "$2"`)},
		{name: "cp", run: shell(`cp -r "$1" "$2/copy"`)},
		{name: "cp+sync", run: shell(`cp -r "$1" "$2/copy" && sync -f "$2"`)},
	}
	for _, name := range []string{"webdataset", "parquet", "vbvr", "folder", "manifest"} {
		c := &contender{name: name, over: "tar", run: func(dir string) error {
			_, err := exported(b.Context(), b, export.Export{Store: at.store, Folder: at.Folder, Format: formats[name](),
				Options: export.Options{ShardSize: 100e6}}, dir)
			return err
		}}
		if name == "folder" || name == "manifest" {
			c.over = "cp"
		}
		all = append(all, c)
	}
	for b.Loop() {
		for _, c := range all {
			dir := b.TempDir()
			syscall.Sync()
			cpu, start := cpuSeconds(b), time.Now()
			check(b, c.run(dir))
			c.seconds = append(c.seconds, time.Since(start).Seconds())
			c.cpu = append(c.cpu, cpuSeconds(b)-cpu)
			check(b, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && !entry.IsDir() {
					err = os.Truncate(path, 0)
				}
				return err
			}))
		}
	}
	rate := map[string]float64{}
	for _, c := range all {
		rate[c.name] = size / 1e6 / median(c.seconds)
		text := fmt.Sprintf("%-10s %5.0f MB/s, %.2f CPU s", c.name, rate[c.name], median(c.cpu))
		if c.over != "" {
			synced := rate[c.name] / rate[c.over+"+sync"]
			text += fmt.Sprintf("; %.2f of %s, %.2f of %[2]s+sync", rate[c.name]/rate[c.over], c.over, synced)
			b.ReportMetric(synced, c.name+"/"+c.over+"+sync")
		}
		b.Log(text)
	}
}

// cpuSeconds is what this process and its children that have ended have used.
func cpuSeconds(b *testing.B) (seconds float64) {
	b.Helper()
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var use syscall.Rusage
		check(b, syscall.Getrusage(who, &use))
		seconds += time.Duration(use.Utime.Nano() + use.Stime.Nano()).Seconds()
	}
	return seconds
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}
