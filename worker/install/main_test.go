package main

import (
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment/indextest"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment/uvtest"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

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
	for path, text := range map[string]string{"good/" + generator.DefaultEntry: program,
		"demanding/" + generator.DefaultEntry: program, "demanding/requirements.txt": "not-there==1.0\n"} {
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
	if status := run([]string{"generators", from, to}, &stdout, &stderr); status != 1 ||
		!strings.Contains(stderr.String(), "no generator is ready") {
		t.Errorf("status %d, %s%s", status, &stdout, &stderr)
	}
}

// Without the network nothing is built: Docker would keep it.
func TestNoNetwork(t *testing.T) {
	installer(t, "  cause: error sending request for url (http://127.0.0.1:1/simple/not-there/)")
	from := folder(t)
	for _, step := range []string{"environments", "generators"} {
		var stdout, stderr strings.Builder
		if status := run([]string{step, from, t.TempDir()}, &stdout, &stderr); status != 1 ||
			!strings.Contains(stderr.String(), "no package index could be reached") {
			t.Errorf("%s: status %d, %s%s", step, status, &stdout, &stderr)
		}
	}
}

// What an index serves months later changes no sample: an image that is built then,
// with empty caches, has what the lock says, and makes the bytes of the local stack.
func TestNewerIndex(t *testing.T) {
	uv, _, err := uvtest.Bin()
	if err != nil {
		t.Fatal(err)
	}
	wheels, from, to, copied := t.TempDir(), folder(t), t.TempDir(), t.TempDir()
	server := httptest.NewServer(&indextest.Index{Dir: wheels})
	t.Cleanup(server.Close)
	t.Setenv("UV_CACHE_DIR", "") // each environment has an empty cache
	t.Setenv("UV_DEFAULT_INDEX", server.URL+"/simple")
	t.Setenv("PIP_CONFIG_FILE", os.DevNull)
	t.Setenv("PATH", uv+string(filepath.ListSeparator)+os.Getenv("PATH"))
	publish := func(version string) {
		t.Helper()
		if err := indextest.Wheel(wheels, "tiny_thing", version, "value = '"+version+"'\n"); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(from, "demanding", filepath.FromSlash(generator.DefaultEntry))
	text, err := os.ReadFile(program)
	if err == nil {
		text = append(text, "import pathlib, tiny_thing\npathlib.Path(parser.parse_args().output, 'made.txt').write_text(tiny_thing.value)\n"...)
		err = errors.Join(os.WriteFile(program, text, 0o644),
			os.WriteFile(filepath.Join(from, "demanding", "requirements.txt"), []byte("tiny-thing\n"), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	made := func(index *generator.Index, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		g, err := index.Find("demanding")
		if err != nil || g.Problem != "" {
			t.Fatalf("%v, %+v", err, g)
		}
		result, err := generator.Run(t.Context(), generator.Request{Generator: g, Samples: 1, Scratch: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(result.Output, "made.txt"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	publish("1.0")
	locks := environment.Locks{Root: from, Dir: t.TempDir(), Progress: func(string) {}}
	if results, err := locks.Make(t.Context()); err != nil || len(results) != 1 || results[0].State != environment.LockMade {
		t.Fatalf("%+v, %v", results, err)
	}
	publish("2.0")
	here := made((&environment.Builder{Root: from, Dir: t.TempDir()}).Build(t.Context()))
	for _, step := range [][]string{{"requirements", from, copied}, {"environments", copied, to},
		{"generators", from, to}} {
		var stdout, stderr strings.Builder
		if status := run(step, &stdout, &stderr); status != 0 || strings.Contains(stderr.String(), "WARNING") {
			t.Fatalf("%s: status %d, %s%s", step[0], status, &stdout, &stderr)
		}
	}
	if image := made(generator.LoadIndex(to)); here != "1.0" || image != here {
		t.Errorf("the local stack has %s and the image %s, want 1.0", here, image)
	}
	if err := os.RemoveAll(filepath.Join(from, environment.LocksFolder)); err != nil {
		t.Fatal(err)
	}
	if here := made((&environment.Builder{Root: from, Dir: t.TempDir()}).Build(t.Context())); here != "2.0" {
		t.Errorf("without the lock it is %s: the index serves nothing newer", here)
	}
}
