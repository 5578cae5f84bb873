package worker_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// usage samples the generators of this process until stopped: how many there
// were at once that are not small, and their memory with this process's own.
func usage() (stop func() (processes int, memory int64)) {
	others := children() // the bucket's process
	done, result := make(chan struct{}), make(chan func() (int, int64), 1)
	go func() {
		most, peak := 0, int64(0)
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-done:
				tick.Stop()
				result <- func() (int, int64) { return most, peak }
				return
			case <-tick.C:
			}
			large, sum := 0, int64(0)
			for pid, memory := range children() {
				if _, other := others[pid]; !other || pid == os.Getpid() {
					sum += memory
					if memory > 50<<20 && pid != os.Getpid() {
						large++
					}
				}
			}
			most, peak = max(most, large), max(peak, sum)
		}
	}()
	return func() (int, int64) {
		close(done)
		return (<-result)()
	}
}

// children are this process and those below it, with their resident memory.
func children() map[int]int64 {
	entries, _ := os.ReadDir("/proc")
	parents, resident := map[int]int{}, map[int]int64{}
	for _, e := range entries {
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		pid, _ := strconv.Atoi(e.Name())
		if err != nil || pid == 0 {
			continue
		}
		parents[pid], _ = strconv.Atoi(strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[1])
		status, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "status"))
		if _, rest, found := strings.Cut(string(status), "RssAnon:"); found {
			kilobytes, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			resident[pid] = kilobytes << 10
		}
	}
	found := map[int]int64{}
	for pid, memory := range resident {
		for up, steps := pid, 0; up > 1 && steps < 10; up, steps = parents[up], steps+1 {
			if up == os.Getpid() {
				found[pid] = memory
				break
			}
		}
	}
	return found
}

// A generator that grows to more than its share is made with fewer at once. All
// is done, though all at once would not fit; and the limit is never passed.
func TestParallelismAdaptsToMemory(t *testing.T) {
	const limit = 760 << 20
	b := newBench(t, worker.Config{CPUs: 4, Limits: worker.Limits{Memory: limit}}, map[string]string{"grows": `
hoard = [b"x" * (100 << 20)]
for i in range(20):
    hoard.append(b"x" * (5 << 20))
    time.sleep(0.1)
`})
	stop := usage()
	s, err := b.do(task.Task{Generator: "grows", NumSamples: 12, Seed: 1, ChunkSize: 2}, 3*time.Minute)
	most, peak := stop()
	if err != nil || s.Samples != 12 || len(s.Remaining) > 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	killed := b.failed(task.OutOfMemory)
	t.Logf("peak %d MB of %d MB, %d large processes at once, %d stopped for memory", peak>>20, int64(limit)>>20, most,
		killed)
	if most != 4 {
		t.Errorf("it began with %d at once, and has four CPUs", most)
	}
	if peak > limit {
		t.Errorf("%d bytes were used of %d", peak, int64(limit))
	}
	if killed == 0 || killed > 4 {
		t.Errorf("%d tries were stopped: the worker must begin with four and then know better", killed)
	}
	// What is known now holds for the next task.
	stop = usage()
	if s, err := b.do(task.Task{Generator: "grows", StartIndex: 12, NumSamples: 4, Seed: 1, ChunkSize: 2},
		3*time.Minute); err != nil || s.Samples != 4 {
		t.Fatalf("%+v, %v", s, err)
	}
	if most, _ := stop(); b.failed(task.OutOfMemory) != killed || most != 2 {
		t.Errorf("the second task: %d more were stopped, %d ran at once", b.failed(task.OutOfMemory)-killed, most)
	}
}

// What is too large alone fails with that cause, and the report has the end of
// what the generator said.
func TestTooLargeAlone(t *testing.T) {
	b := newBench(t, worker.Config{CPUs: 2, Limits: worker.Limits{Memory: 500 << 20}}, map[string]string{"endless": `
print("drawing", file=sys.stderr, flush=True)
hoard = []
while True:
    hoard.append(b"x" * (5 << 20))
    time.sleep(0.01)
`})
	_, err := b.do(task.Task{Generator: "endless", NumSamples: 2, Seed: 1, ChunkSize: 2}, time.Minute)
	if err == nil || !strings.Contains(err.Error(), "out_of_memory") {
		t.Fatal(err)
	}
	if n := b.failed(task.OutOfMemory); n != 2 {
		t.Errorf("%d tries, want one beside others and one alone", n)
	}
	for o, err := range b.store.List(t.Context(), b.store.Dataset().FailuresPrefix("endless"), "") {
		if err != nil {
			t.Fatal(err)
		}
		f, err := b.store.Failure(t.Context(), o.Key)
		if err != nil || f.Cause != task.OutOfMemory || !strings.Contains(f.Stderr, "drawing") || f.PeakRSSBytes < 200<<20 {
			t.Errorf("report %+v, %v", f, err)
		}
	}
}

// Two that do not fit on the disk together are made one after the other.
func TestDiskForOneAtATime(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("needs the right to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	b := newBench(t, worker.Config{CPUs: 2, Folder: disk}, map[string]string{"wide": `
for i in range(35):
    with open(os.path.join(os.environ["TMPDIR"], str(i)), "wb") as f:
        f.write(b"x" * (1 << 20))
    time.sleep(0.05)
`})
	s, err := b.do(task.Task{Generator: "wide", NumSamples: 4, Seed: 1, ChunkSize: 2}, time.Minute)
	if err != nil || s.Samples != 4 || b.failed(task.DiskFull) == 0 {
		t.Errorf("%+v, %v; %d tries were stopped for the disk", s, err, b.failed(task.DiskFull))
	}
}

// A chunk that hangs ends long before the invocation does, once others have shown
// how long they take, and those go on. It is what remains of the task.
func TestHangEndsEarly(t *testing.T) {
	t.Parallel()
	x := task.Task{Generator: "hangs", NumSamples: 12, Seed: 1, ChunkSize: 2, Format: task.Files}
	hung := x.Chunks()[1]
	b := newBench(t, worker.Config{CPUs: 2, Limits: worker.Limits{Patience: 1500 * time.Millisecond}},
		map[string]string{"hangs": fmt.Sprintf(`
if seed == %d:
    time.sleep(3600)
`, hung.Seed(x, 0))})
	began := time.Now()
	s, err := b.do(x, 5*time.Minute)
	if err != nil || s.Samples != 10 || !slices.Equal(s.Remaining, []task.Range{hung.Keep}) {
		t.Errorf("%+v, %v; want all but %s", s, err, hung.Keep)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	// Nothing else is left of it: it is a failure now. It has been known for long.
	if _, err := b.do(x, 5*time.Minute); err == nil || !strings.Contains(err.Error(), "timed_out") ||
		!strings.Contains(err.Error(), "many times as long") {
		t.Errorf("the rest: %v", err)
	}
}

// Files and bytes are limited by chunk.
func TestOutputLimits(t *testing.T) {
	t.Parallel()
	b := newBench(t, worker.Config{CPUs: 2, Limits: worker.Limits{Files: 10, Bytes: 20 << 20}}, map[string]string{"files": `
for i in range(100_000):
    open(os.path.join(os.environ["TMPDIR"], str(i)), "w").close()
    time.sleep(0.01)
`, "bytes": `
for i in range(1 << 20):
    with open(os.path.join(os.environ["TMPDIR"], str(i)), "wb") as f:
        f.write(b"x" * (1 << 20))
    time.sleep(0.03)
`})
	for _, name := range []string{"files", "bytes"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := b.do(task.Task{Generator: name, NumSamples: 2, Seed: 1, ChunkSize: 2}, 2*time.Minute); err == nil ||
				!strings.Contains(err.Error(), "unsafe_output") || !strings.Contains(err.Error(), "written more than") {
				t.Error(err)
			}
		})
	}
}
