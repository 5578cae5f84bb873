// Package generatortest has what tests of generators and of their environments share.
package generatortest

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Preamble begins the programs of test generators: it parses the flags and defines save.
const Preamble = `import argparse, json, os, signal, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--num-samples", type=int, required=True)
parser.add_argument("--output", default="data")
parser.add_argument("--seed", type=int)
args = parser.parse_args()
def save(name, value):
    with open(os.path.join(args.output, name), "w") as f:
        json.dump(value, f)
`

// Write writes a file, and makes its folder.
func Write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// Saved reads what a generator saved under a name.
func Saved[T any](t *testing.T, output, name string) T {
	t.Helper()
	var v T
	text, err := os.ReadFile(filepath.Join(output, name))
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Git runs git in a folder and returns what it prints.
func Git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c",
		"commit.gpgsign=false"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}
