package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// own are the generators that are measured.
var own = []string{"chess-task-data-generator", "hanoi-task-data-generator", "maze-task-data-generator",
	"sliding-puzzle-task-data-generator", "sudoku-task-data-generator"}

// How many rounds a benchmark makes unless -benchtime says so (3x): it begins no
// further one when it has taken this long, for go test ends after ten minutes.
const (
	rounds    = 3
	roundTime = 2 * time.Minute
)

func again(b *testing.B, n int, began time.Time) bool {
	if b.N > 1 {
		return n < b.N
	}
	return n == 0 || n < rounds && time.Since(began) < roundTime
}

// BenchmarkTask compares tasks of 100 samples with what a user gets who runs the
// same chunks by hand, as many at once as there are CPUs. Numbers are means over
// the generators of medians over the rounds.
func BenchmarkTask(b *testing.B) {
	r, p := bench(b)
	columns := []string{"cpu/by-hand", "wall/shortest", "own-cpu-%", "tar-own-cpu-%", "tar/files-cpu", "tar/files-wall"}
	of := make([][][]float64, len(own)) // generator, column, round
	for i := range of {
		of[i] = make([][]float64, len(columns))
	}
	var peak int64
	n := 0
	for began := time.Now(); again(b, n, began); n++ {
		for i, name := range own {
			t := task.Task{Generator: name, NumSamples: 100, Seed: 42, Format: task.Files, ChunkSize: task.DefaultChunkSize}
			asTar := t
			asTar.Format = task.Tar
			var hand hand
			var files, tar taken
			steps := []func(){func() { hand = r.byHand(b, t) }, func() { files = r.do(p, t) }, func() { tar = r.do(p, asTar) }}
			for k := range steps { // each is the first in its turn: what comes later finds caches warm
				steps[(n+k)%len(steps)]()
			}
			for c, value := range []float64{
				ratio(files.cpu(), hand.cpu), ratio(files.wall, shortest(hand.walls, runtime.NumCPU())),
				100 * ratio(files.own, files.cpu()), 100 * ratio(tar.own, tar.cpu()),
				ratio(tar.cpu(), files.cpu()), ratio(tar.wall, files.wall),
			} {
				of[i][c] = append(of[i][c], value)
			}
			peak = max(peak, tar.peak)
			b.Logf("round %d %-34s by hand %.2f s CPU, schedule %.2f s; files %.2f s, %.2f s; tar %.2f s, %.2f s; worker alone %.2f s and %.2f s",
				n, name, hand.cpu.Seconds(), shortest(hand.walls, runtime.NumCPU()).Seconds(),
				files.cpu().Seconds(), files.wall.Seconds(), tar.cpu().Seconds(), tar.wall.Seconds(), files.own.Seconds(),
				tar.own.Seconds())
		}
	}
	for c, unit := range columns {
		sum := 0.0
		for i := range of {
			sum += median(of[i][c])
		}
		b.ReportMetric(sum/float64(len(own)), unit)
	}
	for i, name := range own {
		b.Logf("%-34s cpu/by-hand %.3f, wall/shortest %.3f", name, median(of[i][0]), median(of[i][1]))
	}
	b.ReportMetric(float64(peak)/1e6, "peak-MB")
	b.ReportMetric(float64(n), "rounds")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkChunks reports how much sooner a task is done than by one generator
// process that makes all its 100 samples, for two sizes of chunks: here, and as
// computed for the CPUs of Lambda's largest size. The computation takes the times
// of the chunks as they were here, and adds what the task took beyond them.
func BenchmarkChunks(b *testing.B) {
	const lambda = 6
	r, p := bench(b)
	of := map[string][]float64{}
	n := 0
	for began := time.Now(); again(b, n, began); n++ {
		t := task.Task{Generator: "maze-task-data-generator", NumSamples: 100, Seed: 42, Format: task.Files, ChunkSize: 100}
		alone := r.byHand(b, t).walls[0]
		for _, size := range []int{20, 50} {
			t.ChunkSize = size
			x := r.do(p, t)
			chunks := r.walls(b, t)
			beyond := x.wall - shortest(chunks, runtime.NumCPU())
			for cpus, wall := range map[int]time.Duration{runtime.NumCPU(): x.wall, lambda: shortest(chunks, lambda) + beyond} {
				unit := fmt.Sprintf("sooner-chunk%d-cpu%d", size, cpus)
				of[unit] = append(of[unit], ratio(alone, wall))
			}
		}
	}
	for unit, list := range of {
		b.ReportMetric(median(list), unit)
	}
	b.ReportMetric(float64(n), "rounds")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkLargeSamples measures the worker alone, without its generators, with
// samples of 847 kB.
func BenchmarkLargeSamples(b *testing.B) {
	for _, format := range []task.Format{task.Files, task.Tar} {
		b.Run(string(format), func(b *testing.B) {
			r, p := bench(b)
			var share, size, perSample []float64
			var peak int64
			n := 0
			for began := time.Now(); again(b, n, began); n++ {
				x := r.do(p, task.Task{Generator: largeGenerator, NumSamples: 40, Seed: 42, Format: format,
					ChunkSize: task.DefaultChunkSize})
				share = append(share, 100*ratio(x.own, x.cpu()))
				perSample = append(perSample, float64(x.own.Milliseconds())/40)
				peak = max(peak, x.peak)
				var bytes int64
				for _, receipt := range r.receipts(b, largeGenerator) {
					for _, s := range receipt.Samples {
						for _, f := range s.Files {
							bytes += f.Size
						}
					}
				}
				size = append(size, float64(bytes)/40/1e3)
			}
			b.ReportMetric(median(share), "own-cpu-%")
			b.ReportMetric(median(perSample), "own-cpu-ms/sample")
			b.ReportMetric(float64(peak)/1e6, "peak-MB")
			b.ReportMetric(median(size), "kB/sample")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkStart measures from the exec of bootstrap to its first request for
// work.
func BenchmarkStart(b *testing.B) {
	r, err := theRig()
	if err != nil {
		b.Fatal(err)
	}
	var took []float64
	for b.Loop() {
		began := time.Now()
		p := r.start(b)
		took = append(took, float64((<-p.asked).Sub(began).Microseconds())/1e3)
		p.stop()
	}
	b.ReportMetric(median(took), "ms-to-next")
	b.ReportMetric(0, "ns/op")
}

// hand is what generators took that a user has run.
type hand struct {
	cpu   time.Duration
	walls []time.Duration // of each process
}

// byHand runs the chunks of a task as a user would who knows nothing of what the
// worker sets, as many at once as there are CPUs.
func (r *rig) byHand(b *testing.B, t task.Task) hand {
	b.Helper()
	g, err := r.index.Find(t.Generator)
	if err != nil {
		b.Fatal(err)
	}
	chunks := t.Chunks()
	cpu := make([]time.Duration, len(chunks))
	h := hand{walls: make([]time.Duration, len(chunks))}
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(runtime.NumCPU())
	for i, c := range chunks {
		group.Go(func() error {
			out, err := os.MkdirTemp(dir, "by-hand-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(out)
			cmd := exec.CommandContext(ctx, g.Python, filepath.Join("examples", "generate.py"),
				"--num-samples", strconv.Itoa(c.Count()), "--seed", strconv.Itoa(c.Seed(t, 0)), "--output", out)
			cmd.Dir = filepath.Join(r.copied, t.Generator)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + out, "LANG=C.UTF-8"}
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // like the worker's: Linux shares CPUs among sessions
			began := time.Now()
			if said, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", cmd, err, said)
			}
			h.walls[i], cpu[i] = time.Since(began), cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	for _, c := range cpu {
		h.cpu += c
	}
	return h
}

// do empties the bucket and gives a worker a task.
func (r *rig) do(p *process, t task.Task) taken {
	p.b.Helper()
	for _, prefix := range []string{task.DataKind, task.ReceiptKind} {
		if err := os.RemoveAll(filepath.Join(dir, "objects", "bucket", filepath.FromSlash(prefix))); err != nil {
			p.b.Fatal(err)
		}
	}
	return p.do(t)
}

// receipts reads the receipts of a generator off the disk.
func (r *rig) receipts(b *testing.B, name string) (list []store.Receipt) {
	b.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "objects", "bucket",
		filepath.FromSlash(task.DefaultDataset.CellsPrefix(name)), "*.json"))
	if err != nil || len(files) == 0 {
		b.Fatalf("receipts of %s: %v, %v", name, files, err)
	}
	for _, file := range files {
		var cell store.Cell
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &cell)
		}
		if err != nil {
			b.Fatal(err)
		}
		list = append(list, cell.Receipts...)
	}
	return list
}

// walls are how long the generator processes of a task took.
func (r *rig) walls(b *testing.B, t task.Task) (list []time.Duration) {
	b.Helper()
	for _, receipt := range r.receipts(b, t.Generator) {
		list = append(list, time.Duration(receipt.WallSeconds*float64(time.Second)))
	}
	return list
}

// shortest is the shortest time in which jobs can be done that take so long, by
// trying every assignment to CPUs.
func shortest(jobs []time.Duration, cpus int) time.Duration {
	loads := make([]time.Duration, cpus)
	best := time.Duration(math.MaxInt64)
	var assign func(n int)
	assign = func(n int) {
		if n == len(jobs) {
			best = min(best, slices.Max(loads))
			return
		}
		for i := range loads {
			loads[i] += jobs[n]
			assign(n + 1)
			loads[i] -= jobs[n]
			if loads[i] == 0 { // the other idle ones are the same
				break
			}
		}
	}
	assign(0)
	return best
}

func TestShortest(t *testing.T) {
	for _, test := range []struct {
		jobs string
		cpus int
		want time.Duration
	}{{"3s 3s 3s 3s 3s", 2, 9 * time.Second}, {"5s 4s 3s 3s 3s", 2, 9 * time.Second}, {"5s 1s", 6, 5 * time.Second},
		{"2s", 1, 2 * time.Second}} {
		var jobs []time.Duration
		for _, text := range strings.Fields(test.jobs) {
			d, _ := time.ParseDuration(text)
			jobs = append(jobs, d)
		}
		if got := shortest(jobs, test.cpus); got != test.want {
			t.Errorf("%s on %d: %s, want %s", test.jobs, test.cpus, got, test.want)
		}
	}
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
