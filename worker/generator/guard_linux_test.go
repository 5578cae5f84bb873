package generator

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// stoppedFor runs a generator and checks what it was stopped for.
func stoppedFor(t *testing.T, r Request, cause task.Cause, words string) Result {
	t.Helper()
	began := time.Now()
	result, err := Run(t.Context(), r)
	f, ok := errors.AsType[*Failure](err)
	if !ok || f.Cause != cause || !strings.Contains(f.Detail, words) {
		t.Errorf("got %v, want %s: ...%s...", err, cause, words)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	return result
}

// The generator that grows is stopped before the limit is passed by much, the
// small one beside it is not.
func TestGuardStopsTheLargest(t *testing.T) {
	t.Parallel()
	const limit = 400 << 20
	guard := &Guard{Memory: limit}
	small := request(t, generatorOf(t, `buffer = b"x" * (50 << 20); time.sleep(2)`))
	large := request(t, generatorOf(t, `
print("growing", file=sys.stderr, flush=True)
hoard = []
while True:
    hoard.append(b"x" * (4 << 20))
    time.sleep(0.01)
`))
	small.Guard, large.Guard = guard, guard
	var group errgroup.Group
	group.Go(func() error {
		_, err := Run(t.Context(), small)
		return err
	})
	result := stoppedFor(t, large, task.OutOfMemory, "of 419 MB")
	if err := group.Wait(); err != nil {
		t.Errorf("the small one: %v", err)
	}
	if w := result.Watched; w.PeakGroupRSS < limit/2 || w.PeakGroupRSS > limit*5/4 || result.PeakRSS < w.PeakGroupRSS {
		t.Errorf("seen %d bytes, peak %d", w.PeakGroupRSS, result.PeakRSS)
	}
}

// Memory that a generator's processes share is counted once before it is stopped.
func TestGuardCountsSharedMemoryOnce(t *testing.T) {
	t.Parallel()
	r := request(t, generatorOf(t, `
buffer = b"x" * (150 << 20)
for i in range(3):
    if os.fork() == 0:
        time.sleep(2)
        os._exit(0)
for i in range(3):
    os.wait()
`))
	r.Guard = &Guard{Memory: 400 << 20}
	result, err := Run(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if result.Watched.PeakGroupRSS < 400<<20 {
		t.Errorf("its processes have only %d bytes together: the test proves nothing", result.Watched.PeakGroupRSS)
	}
}

func tmpfs(t *testing.T, dir, size string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs a file system of its own: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// fills writes slowly enough for a guard to see it, and never stops.
const fills = `
for i in range(1 << 30):
    with open(os.path.join(os.environ["TMPDIR"], str(i)), "wb") as f:
        f.write(b"x" * (256 << 10))
    time.sleep(0.01)
`

// The generator that fills the disk is stopped while there is room for the one
// beside it.
func TestGuardKeepsDiskFree(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	tmpfs(t, disk, "64m")
	guard := &Guard{FreeDisk: 64 << 20} // an eighth of it counts
	on := func(body string) Request {
		r := request(t, generatorOf(t, body))
		r.Scratch, r.Guard = filepath.Join(disk, fmt.Sprint(len(body))), guard
		if err := os.Mkdir(r.Scratch, 0o700); err != nil {
			t.Fatal(err)
		}
		return r
	}
	var group errgroup.Group
	beside := on(`
for i in range(40):
    with open(os.path.join(args.output, str(i)), "wb") as f:
        f.write(b"x" * (64 << 10))
    time.sleep(0.1)
`)
	group.Go(func() error {
		_, err := Run(t.Context(), beside)
		return err
	})
	full := on(fills)
	result := stoppedFor(t, full, task.DiskFull, "free on the disk")
	if free := result.Watched.MinFreeDisk; free == 0 || free > 8<<20 {
		t.Errorf("stopped with %d bytes free", free)
	}
	// Nothing is started there until it has been removed.
	stoppedFor(t, on("pass"), task.DiskFull, "needed to start")
	if err := os.RemoveAll(full.Scratch); err != nil {
		t.Fatal(err)
	}
	if err := group.Wait(); err != nil {
		t.Errorf("the one beside it: %v", err)
	}
	if _, err := Run(t.Context(), on("1")); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestGuardLimitsOutput(t *testing.T) {
	for _, test := range []struct{ name, body, words string }{
		{"files", `
for i in range(100_000):
    open(os.path.join(args.output, str(i)), "w").close()
    time.sleep(0.01 if i > 2000 else 0)
`, "more than 1000 files"},
		{"folders", `
for i in range(100_000):
    os.mkdir(os.path.join(args.output, str(i)))
    time.sleep(0.01 if i > 2000 else 0)
`, "more than 1000 files"},
		{"many bytes", fills, "more than 8 MB"},
		{"one large file", `
with open(os.path.join(args.output, "large"), "wb") as f:
    while True:
        f.write(b"x" * (1 << 20))
`, "a file grew too large"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := request(t, generatorOf(t, test.body))
			r.MaxFiles, r.MaxBytes = 1000, 8_000_000
			if test.name != "one large file" { // the kernel stops that one, at the size at which a guard would
				r.Guard = &Guard{}
			}
			stoppedFor(t, r, task.UnsafeOutput, test.words)
			var size int64
			files := 0
			err := filepath.WalkDir(r.Scratch, func(_ string, e fs.DirEntry, err error) error {
				if info, e := e.Info(); e == nil && info.Mode().IsRegular() {
					size += info.Size()
				}
				files++
				return err
			})
			if err != nil || size > 500_000_000 {
				t.Errorf("it had written %d bytes, %v", size, err)
			}
			t.Logf("stopped after %d files, %d bytes", files, size)
		})
	}
}

// The generator's own files are not held against it.
func TestGuardCountsWhatIsWritten(t *testing.T) {
	t.Parallel()
	r := request(t, generatorOf(t, `
for i in range(10):
    open(os.path.join(args.output, str(i)), "w").close()
time.sleep(2.5)
`))
	for i := range 200 {
		write(t, filepath.Join(r.Generator.Dir, "material", fmt.Sprint(i)), "x")
	}
	r.Guard, r.MaxFiles = &Guard{}, 10
	if _, err := Run(t.Context(), r); err != nil {
		t.Error(err)
	}
}

// A generator may run as long as its patience lasts, which may change while it
// runs.
func TestGuardPatience(t *testing.T) {
	t.Parallel()
	r := request(t, generatorOf(t, `time.sleep(600)`))
	began := time.Now()
	r.Guard = &Guard{}
	r.Patience = func() time.Duration {
		if time.Since(began) < time.Second {
			return 0
		}
		return 1500 * time.Millisecond
	}
	result := stoppedFor(t, r, task.TimedOut, "still running after")
	if result.Wall < time.Second || result.Wall > 10*time.Second {
		t.Errorf("it ran for %s", result.Wall)
	}
}

// A generator's processes are found with what the kernel lists and without.
func TestFamily(t *testing.T) {
	t.Parallel()
	g := generatorOf(t, daemonBody+`
save("pids.json", [os.getppid(), os.getpid(), json.load(open(os.path.join(args.output, "daemon.json")))])
os.rename(os.path.join(args.output, "pids.json"), os.path.join(args.output, "all.json"))
time.sleep(600)
`)
	r := request(t, g)
	r.Guard = &Guard{}
	var listed, scanned []int
	r.Patience = func() time.Duration {
		if _, err := os.Stat(filepath.Join(r.Scratch, "output", "all.json")); err != nil {
			return 0
		}
		want := saved[[]int](t, Result{Output: filepath.Join(r.Scratch, "output")}, "all.json")
		listed, scanned = family(want[0]), descendants(want[0], sandbox.Processes())
		for _, pid := range want {
			if !slices.Contains(listed, pid) || !slices.Contains(scanned, pid) {
				t.Errorf("process %d of %v is not among %v, or not among %v", pid, want, listed, scanned)
			}
		}
		return 1
	}
	stoppedFor(t, r, task.TimedOut, "")
	if len(listed) < 3 || residentMemory(ownProcess) < 1<<20 {
		t.Errorf("found %v", listed)
	}
}

// BenchmarkGuard measures one check of a generator that runs, which happens twice a
// second.
func BenchmarkGuard(b *testing.B) {
	pid := os.Getpid()
	b.Run("family", func(b *testing.B) {
		for b.Loop() {
			residentMemory(family(pid)...)
		}
	})
	b.Run("process table", func(b *testing.B) {
		for b.Loop() {
			residentMemory(descendants(pid, sandbox.Processes())...)
		}
	})
	b.Run("proportional", func(b *testing.B) {
		for b.Loop() {
			proportionalMemory(pid)
		}
	})
}
