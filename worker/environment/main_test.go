package environment

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

func TestMain(m *testing.M) {
	generator.Main()
	os.Exit(m.Run())
}

// python is the interpreter on the PATH itself, not a shim that starts it, which takes
// longer than most tests.
func python(t *testing.T) string {
	t.Helper()
	p, err := usual()
	if err != nil {
		t.Skip(err)
	}
	return p.Path
}

var usual = sync.OnceValues(func() (interpreter, error) { return findPython(context.Background(), "", "") })

// preamble is what the test generators have in common.
const preamble = `import argparse, json, os, signal, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--num-samples", type=int, required=True)
parser.add_argument("--output", default="data")
parser.add_argument("--seed", type=int)
args = parser.parse_args()
def save(name, value):
    with open(os.path.join(args.output, name), "w") as f:
        json.dump(value, f)
`

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// saved reads what a generator saved under a name.
func saved[T any](t *testing.T, r generator.Result, name string) T {
	t.Helper()
	var v T
	text, err := os.ReadFile(filepath.Join(r.Output, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c",
		"commit.gpgsign=false"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}
