package generator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPythons(t *testing.T) {
	for said, want := range map[string]string{"": "", ">=3.8": "", ">=3.11": "", "3.12": "==3.12.*", ">=3.8,<3.13": ">=3.8,<3.13", "!=3.12.*": "!=3.12.*"} {
		if got, err := pythons(said); got != want || err != nil {
			t.Errorf("%q is %q, %v, want %q", said, got, err, want)
		}
	}
	for _, wrong := range []string{"<3.11", "three", "==2.7"} {
		if got, err := pythons(wrong); err == nil {
			t.Errorf("%q is %q", wrong, got)
		}
	}
}

// A generator gets a Python that it is for, whatever the others use, or one sentence.
func TestRequiredPython(t *testing.T) {
	root, bin := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{"any": "", "old": "[project]\nrequires-python = \"<3.11\"\n", "far": "[project]\nrequires-python = \">=3.30\"\n", "own": "", "near": "[project]\nrequires-python = \">=3.11\"\n"} {
		write(t, filepath.Join(root, name, DefaultEntry), preamble)
		if text != "" {
			write(t, filepath.Join(root, name, projectFile), text)
		}
	}
	write(t, filepath.Join(root, Catalogue), "own: {python: \"3.19\"}\n")
	// Another Python: this one, under the name and with the version of that.
	p, err := findPython(t.Context(), "", "")
	if err != nil {
		t.Skip(err)
	}
	realUV(t)
	t.Setenv("UV_OFFLINE", "1")
	script := "#!/bin/sh\n[ \"$1\" = -c ] && echo '{\"path\": \"" + p.Path + "\", \"version\": \"3.19.2\", \"minor\": 19, \"machine\": \"" + p.Machine + "\", \"prefix\": \"" + p.Prefix + "\"}'\n"
	write(t, filepath.Join(bin, "python3.14"), script)
	if err := os.Chmod(filepath.Join(bin, "python3.14"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	all, _ := made(t, root)
	for name, want := range map[string]string{"any": p.Version, "near": p.Version, "own": "3.19.2"} {
		if g := all[name]; g.Problem != "" || g.Version != want {
			t.Errorf("%s: Python %s, problem %q, want %s", name, g.Version, g.Problem, want)
		}
	}
	for name, want := range map[string]string{"old": "allows no Python from 3.11 on", "far": "it requires Python >=3.30 and there is none"} {
		if got := all[name].Problem; !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%s: problem %q, want %s", name, got, want)
		}
	}
	if all["own"].Environment == all["any"].Environment {
		t.Error("two Pythons share an environment")
	}
}
