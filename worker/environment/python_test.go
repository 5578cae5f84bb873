package environment

import (
	"os"
	"path/filepath"
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
	write(t, path, "#!/bin/sh\n[ \"$1\" = -c ] && echo '{\"path\": \""+p.Path+
		"\", \"version\": \"3.19.2\", \"minor\": 19, \"machine\": \""+p.Machine+"\", \"prefix\": \""+p.Prefix+"\"}'\n")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(path)+string(filepath.ListSeparator)+os.Getenv("PATH"))
}
