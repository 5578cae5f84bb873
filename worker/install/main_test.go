package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

func TestMain(m *testing.M) {
	generator.Main()
	os.Exit(m.Run())
}

// installer puts a uv on the PATH that says something in place of installing
// packages: what the real one says is tested with it.
func installer(t *testing.T, says string) {
	t.Helper()
	bin := t.TempDir()
	script := "#!/bin/sh\n" + `[ "$1" = --version ] && echo uv 0.13.99 && exit` + "\necho '" + says + "' >&2\nexit 1\n"
	if err := os.WriteFile(filepath.Join(bin, "uv"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

// folder has two generators: one that needs nothing, and one with a requirement.
func folder(t *testing.T) string {
	t.Helper()
	const program = `import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--num-samples", type=int)
parser.add_argument("--output")
parser.add_argument("--seed", type=int)
`
	root := t.TempDir()
	for path, text := range map[string]string{"good/" + generator.DefaultEntry: program, "demanding/" + generator.DefaultEntry: program, "demanding/requirements.txt": "not-there==1.0\n"} {
		path = filepath.Join(root, filepath.FromSlash(path))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// A requirement that cannot be installed leaves the others an image, and is told
// once, by the last step.
func TestImpossibleRequirement(t *testing.T) {
	installer(t, "  cause: Because not-there was not found in the package registry")
	from, to := folder(t), t.TempDir()
	for want, step := range []string{"environments", "generators"} {
		var stdout, stderr strings.Builder
		if status := run([]string{step, from, to}, &stdout, &stderr); status != 0 {
			t.Errorf("%s: status %d, %s%s", step, status, &stdout, &stderr)
		}
		if n := strings.Count(stderr.String(), "WARNING: generator demanding is in the image and cannot run: "); n != want {
			t.Errorf("%s warns %d times: %s", step, n, &stderr)
		}
	}
	if err := os.RemoveAll(filepath.Join(from, "good")); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	if status := run([]string{"generators", from, to}, &stdout, &stderr); status != 1 || !strings.Contains(stderr.String(), "no generator is ready") {
		t.Errorf("status %d, %s%s", status, &stdout, &stderr)
	}
}

// Without the network nothing is built: Docker would keep it.
func TestNoNetwork(t *testing.T) {
	installer(t, "  cause: error sending request for url (http://127.0.0.1:1/simple/not-there/)")
	from := folder(t)
	for _, step := range []string{"environments", "generators"} {
		var stdout, stderr strings.Builder
		if status := run([]string{step, from, t.TempDir()}, &stdout, &stderr); status != 1 || !strings.Contains(stderr.String(), "no package index could be reached") {
			t.Errorf("%s: status %d, %s%s", step, status, &stdout, &stderr)
		}
	}
}
