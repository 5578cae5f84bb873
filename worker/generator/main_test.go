package generator

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator/generatortest"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
)

// workerVariable turns the test binary into a worker that runs one request, so
// that tests can kill it or run it as another user.
const workerVariable = "VM_DATASET_TEST_WORKER"

func TestMain(m *testing.M) {
	if text, ok := os.LookupEnv(workerVariable); ok {
		os.Exit(workOnce(text))
	}
	os.Exit(m.Run())
}

func workOnce(text string) int {
	var r Request
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := sandbox.Harden(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if _, err := Run(context.Background(), r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// python is the interpreter on the PATH itself, not a shim that starts it, which takes
// longer than most tests.
func python(t *testing.T) string {
	t.Helper()
	path, err := interpreter()
	if err != nil {
		t.Skip(err)
	}
	return path
}

var interpreter = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	return strings.TrimSpace(string(out)), err
})

// preamble is what the test generators have in common.
const preamble = generatortest.Preamble + `def daemon(body):
    "a grandchild in a session of its own, whose parent is gone"
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            body()
            os._exit(0)
        os._exit(0)
    os.wait()
`

var (
	write = generatortest.Write
	git   = generatortest.Git
)

// generatorOf writes a generator whose program is the preamble and body.
func generatorOf(t *testing.T, body string) *Generator {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "generators", "test")
	write(t, filepath.Join(dir, "examples", "generate.py"), preamble+body)
	return &Generator{Name: "test", Dir: dir, Entry: DefaultEntry, Flags: Flags{Output: "--output", Seed: true},
		Python: python(t)}
}

func request(t *testing.T, g *Generator) Request {
	t.Helper()
	return Request{Generator: g, Samples: 2, Seed: 7, Scratch: t.TempDir()}
}

// saved reads what a generator saved under a name.
func saved[T any](t *testing.T, r Result, name string) T {
	t.Helper()
	return generatortest.Saved[T](t, r.Output, name)
}
