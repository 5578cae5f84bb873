package generator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator/generatortest"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// landlocked skips where the kernel has no Landlock of that version.
func landlocked(t *testing.T, version int) {
	t.Helper()
	if sandbox.Landlock() < version {
		t.Skipf("no Landlock of version %d here", version)
	}
}

// dead reports a process that is there now, zombies not counted.
func dead(t *testing.T, pid int) {
	t.Helper()
	stat, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "stat"))
	if err == nil && !bytes.Contains(stat, []byte(") Z ")) {
		t.Errorf("process %d lives: %s", pid, stat)
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

func itoa(n int) string { text, _ := json.Marshal(n); return string(text) }

const daemonBody = `
def body():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(os.path.join(args.output, "daemon.tmp"), "w") as f:
        json.dump(os.getpid(), f)
    os.rename(os.path.join(args.output, "daemon.tmp"), os.path.join(args.output, "daemon.json"))
    time.sleep(600)
daemon(body)
while not os.path.exists(os.path.join(args.output, "daemon.json")):
    time.sleep(0.005)
`

func TestDaemonsAreDead(t *testing.T) {
	for _, test := range []struct{ name, end string }{
		{"success", ""}, {"crash", "sys.exit(1)\n"},
		{"orphans of orphans", "daemon(lambda: daemon(lambda: time.sleep(600)))\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := request(t, generatorOf(t, daemonBody+test.end))
			result, err := Run(t.Context(), r)
			if failed := err != nil; failed != (test.name == "crash") {
				t.Fatal(err)
			}
			dead(t, saved[int](t, result, "daemon.json"))
			for pid := range withTmp(r.Scratch) {
				dead(t, pid)
			}
		})
	}
}

// withTmp finds what is left of a run by its environment.
func withTmp(scratch string) map[int]bool {
	found := map[int]bool{}
	for pid := range sandbox.Processes() {
		if env, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "environ")); err == nil &&
			bytes.Contains(env, []byte("TMPDIR="+scratch)) {
			found[pid] = true
		}
	}
	return found
}

func TestSandboxKilled(t *testing.T) {
	t.Parallel()
	r := request(t, generatorOf(t, daemonBody+`
save("main.json", os.getpid())
os.kill(os.getppid(), signal.SIGKILL)
time.sleep(600)
`))
	r.Grace = 2 * time.Second
	result, err := Run(t.Context(), r)
	if _, ok := errors.AsType[*Failure](err); !ok {
		t.Errorf("got %v", err)
	}
	// They are killed: one may still be about to end.
	generatortest.Gone(t, saved[int](t, result, "main.json"))
	generatortest.Gone(t, saved[int](t, result, "daemon.json"))
}

// worker starts the test binary as a worker. The generator tells its processes
// through a named pipe in the scratch folder.
func worker(t *testing.T, ctx context.Context, binary string, r Request, attributes *syscall.SysProcAttr,
	env ...string) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, binary)
	cmd.Env = append(os.Environ(), append(env, workerVariable+"="+string(text))...)
	cmd.SysProcAttr = attributes
	cmd.Stderr = os.Stderr
	return cmd
}

func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	g := generatorOf(t, daemonBody+`
pids = [os.getpid(), os.getppid(), json.load(open(os.path.join(args.output, "daemon.json")))]
with open(os.path.join(os.path.dirname(args.output), "pipe"), "w") as f:
    json.dump(pids, f)
time.sleep(600)
`)
	r := request(t, g)
	pipe := filepath.Join(r.Scratch, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := worker(t, t.Context(), self, r, nil)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(pipe) // returns when the generator has written
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	if err := json.Unmarshal(text, &pids); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for _, pid := range pids {
		generatortest.Gone(t, pid)
	}
}

// A generator of the same ordinary user must not read the credentials of its
// worker out of /proc.
func TestWorkerEnvironmentIsUnreadable(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become an ordinary user")
	}
	const nobody = 65534
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip("no Python that other users can run")
	}
	root, err := os.MkdirTemp("", "generator-test-") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	scratch, binary := filepath.Join(root, "scratch"), filepath.Join(root, "worker")
	g := &Generator{Name: "test", Dir: filepath.Join(root, "generators", "test"), Entry: DefaultEntry,
		Flags: Flags{Output: "--output", Seed: true}, Python: "/usr/bin/python3"}
	write(t, filepath.Join(g.Dir, DefaultEntry), preamble+`
found, refused, mine = [], [], 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "mem", "maps"):
        try:
            if name == "mem":
                open("/proc/%s/mem" % pid, "rb").close()
            elif b"very-secret" in open("/proc/%s/%s" % (pid, name), "rb").read():
                found.append([pid, name])
            mine += pid == str(os.getpid())
            if pid != str(os.getpid()) and name == "mem" and os.getuid() != 0:
                found.append([pid, name])
        except OSError:
            refused.append(int(pid))
save("found.json", found)
save("refused.json", refused)
save("ids.json", [os.getuid(), os.getppid(), mine])
`)
	if err := errors.Join(os.Chmod(root, 0o755), os.Mkdir(scratch, 0o700), os.Chown(scratch, nobody, nobody),
		copyFile("/proc/self/exe", binary)); err != nil {
		t.Fatal(err)
	}
	cmd := worker(t, t.Context(), binary, Request{Generator: g, Samples: 1, Scratch: scratch},
		&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}, "AWS_SECRET_ACCESS_KEY=very-secret")
	cmd.Dir = root
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	result := Result{Output: filepath.Join(scratch, "output")}
	if found := saved[[][]string](t, result, "found.json"); len(found) != 0 {
		t.Errorf("the generator read %v", found)
	}
	ids := saved[[]int](t, result, "ids.json")
	if ids[0] != nobody || ids[2] == 0 {
		t.Errorf("the test proves nothing: %v", ids)
	}
	refused := map[int]bool{}
	for _, p := range saved[[]int](t, result, "refused.json") {
		refused[p] = true
	}
	if !refused[pid] || !refused[ids[1]] {
		t.Errorf("worker %d, sandbox %d; refused were %v", pid, ids[1], refused)
	}
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func TestWritesOutsideAreRefused(t *testing.T) {
	t.Parallel()
	landlocked(t, 1)
	g := generatorOf(t, `
outcome = {}
def attempt(name, action):
    try:
        action()
        outcome[name] = "done"
    except PermissionError:
        outcome[name] = "refused"
    except OSError as e:
        outcome[name] = str(e)
outside = json.load(open("outside.json"))
attempt("outside", lambda: open(os.path.join(outside, "x"), "w"))
attempt("read outside", lambda: open(os.path.join(outside, "secret")).read())
attempt("own source", lambda: open(os.path.join("examples", "generate.py"), "a"))
attempt("remove", lambda: os.remove(os.path.join(outside, "secret")))
attempt("work", lambda: open("new", "w"))
attempt("home", lambda: open(os.path.expanduser("~/x"), "w"))
attempt("null", lambda: open("/dev/null", "w"))
attempt("random", lambda: open("/dev/urandom", "rb").read(1))
attempt("rename", lambda: os.rename("new", os.path.join(args.output, "new")))
save("outcome.json", outcome)
`)
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "x")
	text, _ := json.Marshal(outside)
	write(t, filepath.Join(g.Dir, "outside.json"), string(text))
	before, _ := os.ReadFile(filepath.Join(g.Dir, DefaultEntry))
	result, err := Run(t.Context(), request(t, g))
	if err != nil {
		t.Fatal(err)
	}
	got := saved[map[string]string](t, result, "outcome.json")
	for name, want := range map[string]string{"outside": "refused", "read outside": "refused", "own source": "refused",
		"remove": "refused",
		"work":   "done", "home": "done", "null": "done", "random": "done", "rename": "done"} {
		if got[name] != want {
			t.Errorf("%s: %s, want %s", name, got[name], want)
		}
	}
	if after, _ := os.ReadFile(filepath.Join(g.Dir, DefaultEntry)); !bytes.Equal(before, after) {
		t.Error("the generator changed its source")
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("outside are %v", entries)
	}
}

func TestSignalsOutsideAreRefused(t *testing.T) {
	landlocked(t, 6)
	g := generatorOf(t, `
try:
    os.kill(json.load(open("pid.json")), 0)
    save("outcome.json", "sent")
except PermissionError:
    save("outcome.json", "refused")
`)
	write(t, filepath.Join(g.Dir, "pid.json"), itoa(os.Getpid()))
	result, err := Run(t.Context(), request(t, g))
	if err != nil {
		t.Fatal(err)
	}
	if got := saved[string](t, result, "outcome.json"); got != "refused" {
		t.Errorf("a signal to the worker was %s", got)
	}
}

func TestSandboxAttributes(t *testing.T) {
	r := request(t, generatorOf(t, `
import resource
status = dict(line.rstrip("\n").split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
save("all.json", {"core": resource.getrlimit(resource.RLIMIT_CORE)[1], "privileges": int(status["NoNewPrivs"]), "session": int(os.getsid(0) == os.getpid()),
    "score": int(open("/proc/self/oom_score_adj").read()), "stdin": len(sys.stdin.read()), "descriptors": len(os.listdir("/proc/self/fd"))})
save("fds.json", {n: os.readlink("/proc/self/fd/" + n) for n in os.listdir("/proc/self/fd") if os.path.lexists("/proc/self/fd/" + n)})
`))
	result, err := Run(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	got := saved[map[string]int](t, result, "all.json")
	// Three descriptors and the one that lists them.
	if got["core"] != 0 || got["privileges"] != 1 || got["session"] != 1 || got["score"] < 500 || got["stdin"] != 0 ||
		got["descriptors"] != 4 {
		t.Errorf("got %v; descriptors %v", got, saved[map[string]string](t, result, "fds.json"))
	}
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	r := request(t, generatorOf(t, `
try:
    with open(os.path.join(args.output, "big"), "wb") as f:
        while True:
            f.write(b"x" * 65536)
except OSError:
    pass
print("could not encode the video", file=sys.stderr)
sys.exit(1)
`))
	if err := unix.Mount("tmpfs", r.Scratch, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("needs a file system of its own: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(r.Scratch, unix.MNT_DETACH) })
	r.Guard = &Guard{} // sees, and stops nobody
	result, err := Run(t.Context(), r)
	if f, ok := errors.AsType[*Failure](err); !ok || f.Cause != task.DiskFull || !strings.Contains(f.Detail, "disk") {
		t.Errorf("got %v", err)
	}
	if result.Watched.MinFreeDisk > 1<<20 {
		t.Errorf("watched %+v", result.Watched)
	}
}

// What keeps generators from the network is found out with the system's program "true", wherever it is.
func TestKeepsNetwork(t *testing.T) {
	if _, err := KeepsNetwork(t.Context()); err != nil {
		t.Error(err)
	}
	t.Setenv("PATH", t.TempDir())
	if kept, err := KeepsNetwork(t.Context()); kept || err == nil || !strings.Contains(err.Error(), `"true"`) {
		t.Errorf("without the program: %v, %v", kept, err)
	}
}
