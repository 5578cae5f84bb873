package environment

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/requirements"
)

// tree reads the files below a folder.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		files[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Environments made from copied requirements are those of the generators, and an
// edit of a program is no edit of the copy.
func TestCopyRequirements(t *testing.T) {
	wheelhouse(t)
	root, dir := t.TempDir(), filepath.Join(t.TempDir(), "built")
	write(t, filepath.Join(root, "plain", generator.DefaultEntry), preamble)
	write(t, filepath.Join(root, "plain", requirements.File), "-r more.txt # elsewhere\n")
	write(t, filepath.Join(root, "plain", "more.txt"), "tiny-thing==1.0\n")
	write(t, filepath.Join(root, "odd", generator.DefaultEntry), preamble)
	write(t, filepath.Join(root, "folder", generator.DefaultEntry), preamble)
	write(t, filepath.Join(root, "folder", requirements.File), "./tiny_thing-1.0-py3-none-any.whl\n")
	wheel(t, filepath.Join(root, "folder"), "tiny_thing", "value = 1\n")
	write(t, filepath.Join(root, generator.Catalogue),
		"odd: {requirements: [Tiny_Thing == 1.0]}\nscans: {network: true, requirements: [Tiny_Thing == 1.0]}\n")
	write(t, filepath.Join(root, "scans", generator.DefaultEntry), preamble) // it downloads data: no image has it

	copied := t.TempDir()
	if err := CopyRequirements(root, copied); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(copied, "scans")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("scans was copied: %v", err)
	}
	var first, second recorder
	if _, err := (&Builder{Root: copied, Dir: dir, Events: first.record}).Build(t.Context()); err != nil {
		t.Fatal(err)
	}
	index, err := (&Builder{Root: root, Dir: dir, Image: true, Events: second.record}).Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := index.Find("scans"); err == nil {
		t.Error("scans is in the image's index")
	}
	if first.count(Ready) != 1 || second.count(Reused) != 1 || second.count(Ready) != 1 {
		t.Errorf("events %+v, then %+v", first.events, second.events)
	}
	for _, g := range index.Generators {
		if g.Problem != "" {
			t.Errorf("%s: %s", g.Name, g.Problem)
		}
	}

	write(t, filepath.Join(root, "plain", generator.DefaultEntry), preamble+"print('edited')\n")
	write(t, filepath.Join(root, "plain", "new.py"), "")
	again := t.TempDir()
	if err := CopyRequirements(root, again); err != nil {
		t.Fatal(err)
	}
	if before, after := tree(t, copied), tree(t, again); !maps.Equal(before, after) {
		t.Errorf("copied %q, then %q", before, after)
	}
	write(t, filepath.Join(root, "plain", requirements.File), "-r ../odd/x.txt\n")
	last := t.TempDir()
	if err := CopyRequirements(root, last); err != nil {
		t.Fatal(err)
	}
	if left := tree(t, last); len(left) != 2 || left["odd/"+requirements.File] == "" {
		t.Errorf("one with a problem, and one whose requirements are in its folder, are left out; copied %q", left)
	}
}

// A module that cannot be imported makes the environment one that cannot be used,
// and nothing of it stays.
func TestImports(t *testing.T) {
	house := wheelhouse(t)
	wheel(t, house, "library", "import ctypes\nctypes.CDLL('libnothere.so.1')\n")
	wheel(t, house, "quits", "raise SystemExit(3)\n")
	wheel(t, house, "raises", "import not_there\n")
	wheel(t, house, "tests", "import tools_of_the_author\n") // a stray folder
	wheel(t, house, "zz_dies", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
	for _, test := range []struct {
		requirements string
		want         []string
	}{
		{"tiny-thing\ntests\n", nil},
		{"tiny-thing\nlibrary\nquits\nraises\nzz_dies\n", []string{
			"import library: OSError: libnothere.so.1: cannot open shared object file",
			"import quits: SystemExit: 3",
			"import raises: ModuleNotFoundError: No module named 'not_there'",
			"import zz_dies: signal: segmentation fault",
		}},
	} {
		dir := t.TempDir()
		index, err := (&Builder{Root: bare(t, test.requirements), Dir: dir}).Build(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		g := index.Generators[0]
		var got []string
		if g.Problem != "" {
			got = strings.Split(g.Problem, "; ")
		}
		if len(got) != len(test.want) {
			t.Fatalf("got %q, want %q", got, test.want)
		}
		for n, want := range test.want {
			if !strings.HasPrefix(got[n], want) {
				t.Errorf("got %q, want %q", got[n], want)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "environments", g.Environment)); (err == nil) != (g.Problem == "") {
			t.Errorf("the environment is there: %v; the problem is %q", err, g.Problem)
		}
	}
}

// Where there is no git history, commits are told.
func TestBuildCommits(t *testing.T) {
	root, dir := bare(t, ""), t.TempDir()
	index, err := (&Builder{Root: root, Dir: dir, Commits: map[string]string{"g": "c0ffee"}}).Build(t.Context())
	if err != nil || index.Generators[0].Commit != "c0ffee" {
		t.Errorf("got %+v, %v", index, err)
	}
	_, err = (&Builder{Root: root, Dir: dir, Commits: map[string]string{"gg": "c0ffee"}}).Build(t.Context())
	if _, ok := errors.AsType[*generator.UnknownError](err); !ok {
		t.Errorf("an unknown name: %v", err)
	}
}
