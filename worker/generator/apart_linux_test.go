package generator

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
)

const apartBody = `
import socket
def tried(f):
    try:
        f()
        return ""
    except OSError as e:
        return type(e).__name__
own = socket.create_server(("127.0.0.1", 0))
save("seen.json", {
    "user": os.getuid(), "interfaces": [name for _, name in socket.if_nameindex()], "rights": [l for l in open("/proc/self/status") if l.startswith("CapEff")][0].split()[1],
    "shm": tried(lambda: open("/dev/shm/vm-dataset-test-%d" % os.getpid(), "x").close()),
    "loopback": tried(lambda: socket.create_connection(own.getsockname(), timeout=5).close()),
})
`

type apartSeen struct {
	User       int
	Interfaces []string
	Rights     string
	Shm        string
	Loopback   string
}

// What is kept apart has a loopback of its own and nothing else of the network,
// cannot write /dev/shm, and has no more rights than any other generator.
func TestApart(t *testing.T) {
	r := request(t, generatorOf(t, apartBody))
	r.Apart = true
	result, err := Run(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if result.Apart != (sandbox.Apart{Network: true, Shm: true}) {
		if os.Getenv("CI") != "" {
			t.Fatalf("only %+v could be taken away", result.Apart)
		}
		t.Skipf("only %+v can be taken away here", result.Apart)
	}
	checkApart(t, saved[apartSeen](t, result, "seen.json"), os.Getuid())
	if left, _ := filepath.Glob("/dev/shm/vm-dataset-test-*"); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

// Whose folder lies in /dev/shm keeps that.
func TestApartInSharedMemory(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "apart-")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		written, _ := filepath.Glob("/dev/shm/vm-dataset-test-*")
		for _, name := range append(written, dir) {
			_ = os.RemoveAll(name)
		}
	})
	r := request(t, generatorOf(t, apartBody))
	r.Apart, r.Scratch = true, dir
	result, err := Run(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if !result.Apart.Network {
		t.Skip("the system lets nothing be taken away") // TestApart fails of that in CI
	}
	if seen := saved[apartSeen](t, result, "seen.json"); result.Apart.Shm || seen.Shm != "" {
		t.Errorf("taken away: %+v; it saw %+v", result.Apart, seen)
	}
}

func checkApart(t *testing.T, seen apartSeen, user int) {
	t.Helper()
	if seen.User != user || !slices.Equal(seen.Interfaces, []string{"lo"}) || seen.Shm == "" || seen.Loopback != "" ||
		seen.Rights != "0000000000000000" {
		t.Errorf("it saw %+v", seen)
	}
}

// An ordinary user can keep a generator apart where the system has user
// namespaces for them.
func TestApartAsNobody(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip("no Python that other users can run")
	}
	const nobody = 65534
	root, err := os.MkdirTemp("", "apart-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	scratch, binary := filepath.Join(root, "scratch"), filepath.Join(root, "worker")
	g := &Generator{Name: "test", Dir: filepath.Join(root, "generators", "test"), Entry: DefaultEntry,
		Flags: Flags{Output: "--output", Seed: true}, Python: "/usr/bin/python3"}
	write(t, filepath.Join(g.Dir, DefaultEntry), preamble+apartBody)
	if err := errors.Join(os.Chmod(root, 0o755), os.Mkdir(scratch, 0o700), os.Chown(scratch, nobody, nobody),
		copyFile("/proc/self/exe", binary)); err != nil {
		t.Fatal(err)
	}
	cmd := worker(t, t.Context(), binary, Request{Generator: g, Samples: 1, Scratch: scratch, Apart: true},
		&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}})
	cmd.Dir = root
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	seen := saved[apartSeen](t, Result{Output: filepath.Join(scratch, "output")}, "seen.json")
	if seen.User != nobody {
		t.Fatalf("the test proves nothing: %+v", seen)
	}
	may := exec.CommandContext(t.Context(), "unshare", "--map-root-user", "--net", "true")
	may.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := may.Run(); err != nil && len(seen.Interfaces) > 1 {
		t.Skipf("the system lets no ordinary user make namespaces (%v): it saw %q", err, seen.Interfaces)
	}
	checkApart(t, seen, nobody)
}
