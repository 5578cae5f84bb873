package environment

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/requirements"
)

// A generator gets a Python that it is for, whatever the others use, or one sentence.
func TestRequiredPython(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"any": "", "old": "[project]\nrequires-python = \"<3.11\"\n",
		"far": "[project]\nrequires-python = \">=3.30\"\n", "own": "[project]\nrequires-python = \"==3.19.*\"\n",
		"near": "[project]\nrequires-python = \">=3.11\"\n"} {
		write(t, filepath.Join(root, name, generator.DefaultEntry), preamble)
		if text != "" {
			write(t, filepath.Join(root, name, requirements.ProjectFile), text)
		}
	}
	p, err := findPython(t.Context(), "", "")
	if err != nil {
		t.Skip(err)
	}
	realUV(t)
	anotherPython(t, p)
	all, _ := made(t, root)
	for name, want := range map[string]string{"any": p.Version, "near": p.Version, "own": "3.19.2"} {
		if g := all[name]; g.Problem != "" || g.Version != want {
			t.Errorf("%s: Python %s, problem %q, want %s", name, g.Version, g.Problem, want)
		}
	}
	for name, want := range map[string]string{"old": "allows no Python from 3.11 on",
		"far": "it requires Python >=3.30 and there is none"} {
		if got := all[name].Problem; !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%s: problem %q, want %s", name, got, want)
		}
	}
	if all["own"].Environment == all["any"].Environment {
		t.Error("two Pythons share an environment")
	}
}

// anotherPython puts another Python on the PATH: this one, under the name of 3.14 and
// with the version 3.19.2. uv is kept from bringing in any.
func anotherPython(t *testing.T, p interpreter) {
	t.Helper()
	t.Setenv("UV_OFFLINE", "1")
	path := filepath.Join(t.TempDir(), "python3.14")
	write(t, path, fmt.Sprintf("#!/bin/sh\n[ $1 = -I ] && echo '{}' && exit\nprintf '%%s\\0' '%s' 3.19.2 '%s' '%s'\n",
		p.Path, p.Machine, p.Prefix))
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(path)+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

// pack writes an archive of the Python that runs it, as uv's builds of Python are, and a list for uv that has it alone.
const pack = `import hashlib, json, os, platform, sys, sysconfig, tarfile
lib, (major, minor, patch), machine = sysconfig.get_path("stdlib"), sys.version_info[:3], platform.machine()
keep = {"collections", "ctypes", "email", "encodings", "importlib", "json", "lib-dynload", "logging", "re", "urllib", "venv"}
with tarfile.open("python.tar.gz", "w:gz", compresslevel=1, dereference=True) as archive:
    archive.add(os.path.realpath(sys.executable), f"python/bin/python3.{minor}")
    for entry in os.listdir(lib):
        if entry.endswith(".py") or entry in keep:
            archive.add(os.path.join(lib, entry), f"python/lib/python3.{minor}/{entry}",
                        filter=lambda member: None if "__pycache__" in member.name else member)
json.dump({f"cpython-3.{minor}.{patch}-linux-{machine}-gnu": {"name": "cpython", "os": "linux", "libc": "gnu",
    "arch": {"family": machine, "variant": None}, "major": major, "minor": minor, "patch": patch, "prerelease": "",
    "variant": None, "url": "file://" + os.path.abspath("python.tar.gz"),
    "sha256": hashlib.sha256(open("python.tar.gz", "rb").read()).hexdigest()}}, open("list.json", "w"))
`

// A lock that asks for a Python which is not there gets it from uv, which downloads it: here from an archive of the
// machine's own, while the PATH has only another.
func TestPythonIsBrought(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the archive is one of Linux")
	}
	wheels, _, _ := ownIndex(t)
	release(t, wheels, "tiny_thing", "1.0", "")
	in, err := uv()
	if err != nil {
		t.Fatal(err)
	}
	p, err := findPython(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	mirror := t.TempDir()
	cmd := exec.Command(p.Path, "-I", "-c", pack)
	cmd.Dir = mirror
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Setenv("PATH", "")
	anotherPython(t, p)
	os.Unsetenv("UV_OFFLINE")
	if err := os.Symlink(in.uv, filepath.Join(mirror, "uv")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", mirror+string(filepath.ListSeparator)+os.Getenv("PATH"))
	root := t.TempDir()
	range3 := fmt.Sprintf("==3.%d.*", p.Minor)
	write(t, filepath.Join(root, "g", generator.DefaultEntry), preamble)
	write(t, filepath.Join(root, "g", requirements.ProjectFile),
		"[project]\nname = \"g\"\nversion = \"1\"\nrequires-python = \""+range3+"\"\ndependencies = [\"tiny-thing\"]\n")
	for list, want := range map[string]string{"list.json": p.Version, "none.json": "problem: it requires Python " + range3 +
		" and there is none"} {
		write(t, filepath.Join(mirror, "none.json"), "{}")
		t.Setenv("UV_PYTHON_DOWNLOADS_JSON_URL", filepath.Join(mirror, list))
		_, python := made(t, root)
		got := python("g", "import platform, sys, tiny_thing; print(platform.python_version(), sys.base_prefix)")
		if !strings.HasPrefix(got, want) || strings.Contains(got, p.Prefix) || strings.Contains(got, "\n") {
			t.Errorf("with %s: %q, want %s", list, got, want)
		}
	}
}

// Another range of Pythons is another lock, though the packages are equal; other comments count for nothing.
func TestLockHasPythons(t *testing.T) {
	id := func(text string) string { return lock{text: []byte(text)}.id() }
	plain, older, newer := "# as of 2026\nnumpy==2\n", "# python >=3.11\nnumpy==2\n", "# python >=3.12\nnumpy==2\n"
	if id(older) == id(newer) || id(older) == id(plain) || id(plain) != id("numpy==2\n") {
		t.Error(id(plain), id(older), id(newer))
	}
}
