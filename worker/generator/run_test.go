package generator

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestRun(t *testing.T) {
	t.Parallel()
	g := generatorOf(t, `
sys.stdout.write("😀\n")
save("argv.json", sys.argv)
open("beside.txt", "w").write("x")                      # next to itself
open(os.path.join(os.environ["TMPDIR"], "t"), "w").write("x")
os.rename(os.path.join(os.environ["TMPDIR"], "t"), os.path.join(args.output, "moved"))
import helper
save("helper.json", helper.value)
buffer = bytearray(64 << 20)
`)
	write(t, filepath.Join(g.Dir, "helper.py"), "value = 3\n")
	write(t, filepath.Join(g.Dir, ".git", "config"), "")
	g.ExtraArgs = nil
	r := request(t, g)
	got, err := Run(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"python", "examples/generate.py", "--num-samples", "2", "--seed", "7", "--output", "output"}
	if !reflect.DeepEqual(got.Command, want) {
		t.Errorf("command %q, want %q", got.Command, want)
	}
	want = append(slices.Clone(want[1:7]), got.Output)
	if argv := saved[[]string](t, got, "argv.json"); !reflect.DeepEqual(argv, want) {
		t.Errorf("the generator got %q, want %q", argv, want)
	}
	if got.Output != filepath.Join(r.Scratch, "output") || saved[int](t, got, "helper.json") != 3 {
		t.Errorf("got %+v", got)
	}
	if got.CPU <= 0 || got.Wall < got.CPU/8 || got.PeakRSS < 64<<20 || got.Watched != (Watched{}) {
		t.Errorf("got %+v", got)
	}
	if _, err := os.Stat(filepath.Join(g.Dir, "beside.txt")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the generator's folder was written to: %v", err)
	}
	if _, err := os.Stat(filepath.Join(r.Scratch, "work", ".git")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf(".git is in the working folder: %v", err)
	}
}

func TestCommand(t *testing.T) {
	g := &Generator{Entry: "run.py", Flags: Flags{Output: "--out", StartIndex: true}, Traits: Traits{ExtraArgs: []string{"--fast"},
		Options: task.Options{"style": "1,2", "difficulty": "3"}}}
	want := []string{"python", "run.py", "--num-samples", "3", "--start-index", "40", "--fast", "--difficulty", "3",
		"--style", "1,2", "--out", "output"}
	if got := Command(g, 3, 9, 40); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	g.Blender = true // it takes what is before -- for Blender's
	if got := Command(g, 3, 9, 40); !reflect.DeepEqual(got, slices.Insert(want, 2, "--")) {
		t.Errorf("got %q, want -- before the flags", got)
	}
}

func TestEnvironmentIsExact(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
	t.Setenv("PYTHONUNBUFFERED", "1")
	r := request(t, generatorOf(t, `save("env.json", dict(os.environ))`))
	got, err := Run(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(r.Scratch, "tmp")
	want := map[string]string{
		"PATH": filepath.Dir(r.Generator.Python) + ":/usr/local/bin:/usr/bin:/bin", "HOME": filepath.Join(r.Scratch, "home"),
		"USER": user, "LOGNAME": user, "TMPDIR": tmp, "TEMP": tmp, "TMP": tmp,
		"LANG": "C.UTF-8", "PYTHONUTF8": "1", "PYTHONHASHSEED": "7", "PYTHONPATH": filepath.Join(r.Scratch, "work"),
		"PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1",
		"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
		"NUMEXPR_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1",
		"VECLIB_MAXIMUM_THREADS": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_TOP_PAD_": "67108864",
	}
	if env := saved[map[string]string](t, got, "env.json"); !maps.Equal(env, want) {
		t.Errorf("got  %v\nwant %v", env, want)
	}
}

// Two chunks of one generator at once: facts.md tells of generators that write
// to a fixed name in TMPDIR.
func TestChunksShareNothing(t *testing.T) {
	t.Parallel()
	g := generatorOf(t, `
import tempfile
path = os.path.join(tempfile.gettempdir(), "video")
for i in range(200):
    open(path, "a").write("%d\n" % args.seed)
save("seen.json", sorted(set(open(path).read().split())))
`)
	var group errgroup.Group
	for seed := range 4 {
		group.Go(func() error {
			r := request(t, g)
			r.Seed = seed
			got, err := Run(t.Context(), r)
			if err == nil {
				if seen := saved[[]string](t, got, "seen.json"); len(seen) != 1 {
					t.Errorf("seed %d saw %v", seed, seen)
				}
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestMuchOutput(t *testing.T) {
	t.Parallel()
	g := generatorOf(t, `
line = b"x" * 1023 + b"\n"
for i in range(50 * 1024):
    os.write(1, line); os.write(2, line)
os.write(1, b"last words\n"); os.write(2, b"RuntimeError: the end \xff\n")
sys.exit(3)
`)
	_, err := Run(t.Context(), request(t, g))
	f, ok := errors.AsType[*Failure](err)
	if !ok {
		t.Fatal(err)
	}
	if f.Cause != task.Crashed || f.ExitCode != 3 || !strings.Contains(f.Detail, "RuntimeError: the end ?") {
		t.Errorf("got %+v", f)
	}
	for _, text := range []string{f.Stdout, f.Stderr} {
		if len(text) > tailSize+len("...") || len(text) < tailSize/2 || !strings.HasPrefix(text, "...") {
			t.Errorf("kept %d bytes: %.20q", len(text), text)
		}
	}
	if !strings.HasSuffix(f.Stdout, "last words\n") {
		t.Errorf("stdout ends in %q", f.Stdout[len(f.Stdout)-20:])
	}
}

func TestFailures(t *testing.T) {
	for _, test := range []struct {
		name, body string
		want       Failure
	}{
		{"crash", `raise ValueError("no")`, Failure{Cause: task.Crashed, ExitCode: 1}},
		{"module", `import nothing_of_this_name`, Failure{Cause: task.Environment, ExitCode: 1}},
		{"survived import", "try:\n    import nothing_of_this_name\nexcept ImportError as e:\n    print('ImportError:', e, file=sys.stderr)\nraise ValueError", Failure{Cause: task.Crashed, ExitCode: 1}},
		{"usage", `parser.parse_args(["--num-samples", "1", "--unknown"])`, Failure{Cause: task.Environment, ExitCode: 2}},
		{"killed", `os.kill(os.getpid(), signal.SIGKILL)`, Failure{Cause: task.OutOfMemory, ExitCode: -1, Signal: "killed"}},
		{"memory", `raise MemoryError`, Failure{Cause: task.OutOfMemory, ExitCode: 1}},
		{"abort", `os.abort()`, Failure{Cause: task.Crashed, ExitCode: -1, Signal: "aborted"}},
		{"network", `import socket; socket.getaddrinfo("name.invalid", 80)`, Failure{Cause: task.Environment, ExitCode: 1}},
		{"disk", `raise OSError(28, "No space left on device")`, Failure{Cause: task.DiskFull, ExitCode: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := Run(t.Context(), request(t, generatorOf(t, test.body)))
			f, ok := errors.AsType[*Failure](err)
			if !ok {
				t.Fatal(err)
			}
			if f.Cause != test.want.Cause || f.ExitCode != test.want.ExitCode || f.Signal != test.want.Signal || f.Detail == "" {
				t.Errorf("got %+v, want %+v", f, test.want)
			}
			if len(result.Command) == 0 || result.Wall <= 0 {
				t.Errorf("result of a failure: %+v", result)
			}
		})
	}
}

func TestInterpreterMissing(t *testing.T) {
	g := generatorOf(t, "")
	g.Python = filepath.Join(t.TempDir(), "bin", "python")
	_, err := Run(t.Context(), request(t, g))
	if f, ok := errors.AsType[*Failure](err); !ok || f.Cause != task.Environment {
		t.Errorf("got %v", err)
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	g := generatorOf(t, `
for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(s, signal.SIG_IGN)
for i in range(3):
    if os.fork() == 0:
        break
time.sleep(600)
`)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began := time.Now()
	r := request(t, g)
	_, err := Run(ctx, r)
	if f, ok := errors.AsType[*Failure](err); !ok || f.Cause != task.TimedOut {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 1*time.Second+sandbox.DefaultGrace {
		t.Errorf("took %v", took)
	}
	expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, err = Run(expired, request(t, g))
	if f, ok := errors.AsType[*Failure](err); !ok || f.Cause != task.TimedOut {
		t.Errorf("without time: got %v", err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	r := request(t, generatorOf(t, `open(os.path.join(args.output, "started"), "w"); time.sleep(600)`))
	go func() {
		defer cancel()
		for ctx.Err() == nil {
			if _, err := os.Stat(filepath.Join(r.Scratch, "output", "started")); err == nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	_, err := Run(ctx, r)
	if _, failed := errors.AsType[*Failure](err); !errors.Is(err, context.Canceled) || failed {
		t.Errorf("got %v", err)
	}
}

func TestScratchMustBeFresh(t *testing.T) {
	r := request(t, generatorOf(t, ""))
	write(t, filepath.Join(r.Scratch, "output", "stale"), "")
	if _, err := Run(t.Context(), r); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
}
