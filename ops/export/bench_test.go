package export_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// random is bytes that do not compress.
func random(seed, n int) string {
	r := rand.New(rand.NewPCG(uint64(seed), uint64(n))) //nolint:gosec // test data
	text := make([]byte, n)
	for i := range text {
		text[i] = byte(r.Uint32())
	}
	return string(text)
}

// BenchmarkExport measures exports of samples of 300 kB from the local stack's folder, against
// tar and cp of the same files.
func BenchmarkExport(b *testing.B) {
	g := made{"speed", "speed", 1000, 50, func(i int) map[string]string {
		return map[string]string{"first_frame.png": random(i, 20_000), "final_frame.png": random(i, 20_001),
			"prompt.txt": "Go.", "metadata.json": "{}", "ground_truth.mp4": random(i, 260_000)}
	}}
	at := newBucket(b)
	at.commit(b, "v1", task.Files, g)
	bytes := float64(g.samples) * 300_000
	data := filepath.Join(at.folder, "data")
	for name, cmd := range map[string]string{"tar": "tar cf %s/x.tar -C %s .", "cp": "cp -r %[2]s %[1]s/copy"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				dir := b.TempDir()
				start := time.Now()
				if out, err := exec.Command("sh", "-c", fmt.Sprintf(cmd, dir, data)).CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
				b.ReportMetric(bytes/1e6/time.Since(start).Seconds(), "MB/s")
				_ = os.RemoveAll(dir)
			}
		})
	}
	for name, format := range formats {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				dir := b.TempDir()
				start := time.Now()
				_, err := exported(b.Context(), b, export.Export{Store: at.store, Folder: at.folder, Format: format(),
					Options: export.Options{ShardSize: 100e6}}, dir)
				check(b, err)
				b.ReportMetric(bytes/1e6/time.Since(start).Seconds(), "MB/s")
				_ = os.RemoveAll(dir)
			}
		})
	}
}
