package generator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Request asks for one run of a generator.
type Request struct {
	Generator  *Generator
	Samples    int
	Seed       int
	StartIndex int           // for generators that want to know it
	Command    []string      // what to run, as a Result has it; nil for what follows from the above
	Scratch    string        // a private, empty folder; absolute
	Grace      time.Duration // how long the sandbox has to kill the generator's processes; default 5 s
	Env        []string      // variables beside those of Environ, or in place of them
	Apart      bool          // without network and shared memory, as far as the system lets this process take them away
	help       bool          // ask it for its flags, make nothing

	Guard    *Guard `json:"-"` // watches it, and holds it to what follows; nil for nobody
	MaxBytes int64  // that it may have in Scratch, and in one file; 0 is no limit
	MaxFiles int    // that it may have in Scratch, folders counted; 0 is no limit
	// how long it may run, called at every check; nil or 0 is until the context ends
	Patience func() time.Duration `json:"-"`
}

// Result is what a run took and left.
type Result struct {
	Output    string   // folder with what it wrote
	Command   []string // portable: without the paths of this machine
	CPU, Wall time.Duration
	PeakRSS   int64 // bytes, of the largest process; of all together where a Guard saw more
	Watched   Watched
	Apart     sandbox.Apart // what was taken away from it, if that was asked for
	stdout    string        // its end, of a run that succeeded
}

// Command returns the command of a run without this machine's paths: a receipt reads the same wherever it was made.
func Command(g *Generator, samples, seed, startIndex int) []string {
	argv := append(program(g), "--num-samples", strconv.Itoa(samples))
	if g.Flags.Seed {
		argv = append(argv, "--seed", strconv.Itoa(seed))
	}
	if g.Flags.StartIndex {
		argv = append(argv, "--start-index", strconv.Itoa(startIndex))
	}
	argv = slices.Concat(argv, g.ExtraArgs, g.Options.Args())
	return append(argv, g.Flags.Output, "output")
}

// program is the beginning of each command of a generator.
func program(g *Generator) []string {
	if g.Blender {
		return []string{"python", g.Entry, "--"}
	}
	return []string{"python", g.Entry}
}

// CheckCommand refuses a command that Command does not make: one that was read from somewhere could be any.
func CheckCommand(argv []string) error {
	if len(argv) < 4 || argv[0] != "python" || !filepath.IsLocal(filepath.FromSlash(argv[1])) ||
		argv[len(argv)-1] != "output" {
		return fmt.Errorf("%q is no command of a generator", argv)
	}
	return nil
}

// tailSize is how much of a generator's output is kept for a failure report.
const tailSize = 8 << 10

// Run runs the generator once, in a sandbox, and returns when every process it started is gone. When the context ends,
// or the guard says so, they are killed. The error is a *Failure, unless the context was cancelled (its error, wrapped;
// a deadline is a Failure) or the scratch folder could not be prepared. Result is filled in as far as known either way.
//
// Below Scratch it makes: work, the working folder with links to the generator's files; home, tmp, output.
func Run(ctx context.Context, r Request) (Result, error) {
	g := r.Generator
	result := Result{Command: r.Command, Output: filepath.Join(r.Scratch, "output")}
	if r.Command == nil {
		result.Command = Command(g, r.Samples, r.Seed, r.StartIndex)
	}
	if err := CheckCommand(result.Command); err != nil {
		return result, err
	}
	if r.help {
		result.Command = append(program(g), "--help")
	}
	work := filepath.Join(r.Scratch, "work")
	for _, dir := range []string{"home", "tmp", "output"} {
		if err := os.Mkdir(filepath.Join(r.Scratch, dir), 0o700); err != nil {
			return result, fmt.Errorf("prepare generator %s: %w", g.Name, err)
		}
	}
	if f := r.Guard.room(r.Scratch); f != nil {
		return result, f
	}
	links, err := mirror(g.Dir, work)
	if err != nil {
		return result, fmt.Errorf("prepare generator %s: %w", g.Name, err)
	}
	argv := append([]string{g.Python}, result.Command[1:]...)
	if !r.help {
		argv[len(argv)-1] = result.Output
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stdout, stderr := &Tail{Limit: tailSize}, &Tail{Limit: tailSize}
	statusRead, statusWrite, err := os.Pipe()
	if err != nil {
		return result, err
	}
	defer statusRead.Close()
	began := time.Now()
	cmd, err := sandbox.Order{Argv: argv, Dir: work, Env: append(Environ(g, r.Seed, r.Scratch), r.Env...),
		Scratch: r.Scratch, Readable: Readable(g), MaxFile: r.MaxBytes, Apart: r.Apart}.Start(ctx, r.Grace, statusWrite,
		func(cmd *exec.Cmd) error {
			cmd.Stdout, cmd.Stderr = stdout, stderr
			return nil
		})
	statusWrite.Close()
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return result, &Failure{Cause: task.TimedOut, Detail: "no time was left to start the generator", ExitCode: -1}
	case err != nil:
		return result, fmt.Errorf("start sandbox of %s: %w", g.Name, err)
	}
	const folders = 4 // scratch, home, tmp, output
	run := r.Guard.enter(r, cmd.Process.Pid, folders+links, stop)
	_ = cmd.Wait() // its outcome is in the status, or missing there
	result.Watched = r.Guard.leave(run)
	result.stdout = stdout.String()
	result.Wall = time.Since(began)
	result.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	result.PeakRSS = max(peakRSS(cmd.ProcessState), result.Watched.PeakGroupRSS)

	var end sandbox.Status
	if err := json.NewDecoder(statusRead).Decode(&end); err != nil {
		sandbox.KillStrays(r.Scratch, cmd.WaitDelay) // the sandbox was killed before it could clean up
		end = sandbox.Status{Exit: -1, Signal: syscall.SIGKILL.String()}
	}
	result.Apart = end.Apart
	if end.Finished() { // even if the time was up a moment later: the output is complete
		return result, nil
	}
	if f, ok := errors.AsType[*Failure](context.Cause(ctx)); ok {
		f.ExitCode, f.Signal, f.Stdout, f.Stderr = end.Exit, end.Signal, stdout.String(), stderr.String()
		return result, f
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return result, fmt.Errorf("run generator %s: %w", g.Name, ctx.Err())
	}
	return result, classify(ctx, end, stdout.String(), stderr.String(), r.Scratch)
}

// user is the user name of a generator. Python's getpass.getuser raises an error
// without one where no passwd file names the user, as in Lambda.
const user = "generator"

// Environ is the whole environment of a generator that runs with a seed in a
// scratch folder. Nothing of the worker's own gets through: it holds credentials.
func Environ(g *Generator, seed int, scratch string) []string {
	home, tmp := filepath.Join(scratch, "home"), filepath.Join(scratch, "tmp")
	return append(ByHand(filepath.Join(scratch, "work"), seed),
		"PATH="+filepath.Dir(g.Python)+":/usr/local/bin:/usr/bin:/bin",
		"HOME="+home, "USER="+user, "LOGNAME="+user, "TMPDIR="+tmp, "TEMP="+tmp, "TMP="+tmp,
		"PYTHONNOUSERSITE=1", "PYTHONDONTWRITEBYTECODE=1",
		// Chunks run side by side: a library that takes every CPU only gets in their way.
		"OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MKL_NUM_THREADS=1", "NUMEXPR_NUM_THREADS=1",
		"OPENCV_FOR_THREADS_NUM=1", "VECLIB_MAXIMUM_THREADS=1",
		// Frame buffers stop being mapped and unmapped: 14 to 29 % less CPU, measured over 26 generators.
		"MALLOC_MMAP_MAX_=0", "MALLOC_TRIM_THRESHOLD_=-1", "MALLOC_TOP_PAD_=67108864",
	)
}

// ByHand is that part of a generator's environment on which its output depends:
// what whoever runs it by hand in its folder has to set.
func ByHand(dir string, seed int) []string {
	return []string{
		"LANG=C.UTF-8", "PYTHONUTF8=1", // an ASCII locale crashes on an emoji
		"PYTHONHASHSEED=" + strconv.Itoa(seed), // some hash strings into their seeds; a constant would make every chunk alike
		"PYTHONPATH=" + dir,
		"MPLBACKEND=Agg",
	}
}

const maxMirrored = 20_000

// mirror makes a tree of real folders whose files are links to the generator's, so that what it writes next to itself
// stays private and its source unharmed. It returns the number of folders and links.
func mirror(from, to string) (count int, err error) {
	from, err = filepath.EvalSymlinks(from) // WalkDir does not follow a link
	if err != nil {
		return 0, err
	}
	err = filepath.WalkDir(from, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Name() == ".git" {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		name, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		if count++; count > maxMirrored {
			return fmt.Errorf("it has more than %d files", maxMirrored)
		}
		if e.IsDir() {
			return os.Mkdir(filepath.Join(to, name), 0o700)
		}
		return os.Symlink(file, filepath.Join(to, name))
	})
	return count, err
}

// Tail keeps the end of what is written to it, at most Limit bytes.
type Tail struct {
	Limit int
	data  []byte
	cut   bool
}

func (t *Tail) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > t.Limit {
		p, t.cut = p[len(p)-t.Limit:], true
	}
	if over := len(t.data) + len(p) - t.Limit; over > 0 {
		t.data, t.cut = append(t.data[:0], t.data[over:]...), true
	}
	t.data = append(t.data, p...)
	return n, nil
}

func (t *Tail) String() string {
	text := toValid(string(t.data))
	if t.cut {
		return "..." + text
	}
	return text
}

func classify(ctx context.Context, end sandbox.Status, stdout, stderr, scratch string) *Failure {
	f := &Failure{ExitCode: end.Exit, Signal: end.Signal, Stdout: stdout, Stderr: stderr}
	f.explain(end)
	if free, _, err := diskSpace(scratch); err == nil && free < 1<<20 && f.Cause != task.Environment {
		f.Cause, f.Detail = task.DiskFull, fmt.Sprintf("%d bytes were left on the disk: %s", free, f.Detail)
	}
	if end.Problem != "" {
		f.Cause, f.Detail = task.Environment, end.Problem
	}
	if end.Stopped || ctx.Err() != nil && end.Exit < 0 {
		f.Cause, f.Detail = task.TimedOut, "the generator was still running when its time was up"
	}
	return f
}
