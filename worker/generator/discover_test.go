package generator

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestDiscover(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"a", "b", "c", "d", "left-out", "bad name", "added"} {
		write(t, filepath.Join(root, name, DefaultEntry), "")
	}
	write(t, filepath.Join(root, "library", "code.py"), "")
	write(t, filepath.Join(root, "a", "requirements.txt"), "numpy==1.26.4\n")
	write(t, filepath.Join(root, Catalogue), `
c: {required: [rubric.txt], videoless: true, files_vary: true, extra_args: [--fast], options: {difficulty: 3, style: "1,2"}, chunk_size: 100, licence: MIT}
d: {category: spatiality, domain: maze, pool: 7, network: true, blender: true}
a: {requirements: [scipy], python: ">=3.12"}
b: {repository: org/b}
not-fetched-yet: {chunk_size: 7}
left-out: {skip: it needs Blender}
`)
	write(t, filepath.Join(root, CatalogueLock), "added "+strings.Repeat("0a", 20)+" org/added MIT\n")
	got, err := Discover(root)
	if err != nil {
		t.Fatal(err)
	}
	var want []Generator
	for _, g := range []Generator{
		{Name: "a", Requirements: []string{"numpy==1.26.4", "scipy"}, Pythons: ">=3.12"},
		{Name: "added", Traits: Traits{Repository: "org/added", Licence: "MIT"}},
		{Name: "b", Traits: Traits{Repository: "org/b"}},
		{Name: "bad name"},
		{Name: "c", Traits: Traits{Required: []string{"rubric.txt"}, Videoless: true, FilesVary: true,
			ExtraArgs: []string{"--fast"}, Options: task.Options{"difficulty": "3", "style": "1,2"}, ChunkSize: 100,
			Licence: "MIT"}},
		{Name: "d", Traits: Traits{Category: "spatiality", Domain: "maze", Pool: 7, Network: true, Blender: true}},
	} {
		g.Dir, g.Entry, g.Flags = filepath.Join(root, g.Name), DefaultEntry, contractFlags
		want = append(want, g)
	}
	for i := range got {
		got[i].RequirementsFile, got[i].empty = "", false
	}
	if len(got) == len(want) && strings.Contains(got[3].Problem, "letters") {
		got[3].Problem = ""
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDiscoverRefusesCatalogue(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"unknown field", "a:\n  chunk_size: 5\n  chunksize: 5\n", "line 3: unknown field chunksize"},
		{"wrong type", "a:\n  chunk_size: many\n", "line 2"},
		{"twice", "a: {}\na: {}\n", "line 2"},
		{"no mapping", "- a\n", "line 1"},
		{"name", "'a b': {}\n", "letters"},
		{"chunk", "a: {chunk_size: 1001}\n", "1000"},
		{"a pin", "a: {commit: 0123456789012345678901234567890123456789}\n",
			"line 1: unknown field commit (commits are in catalog.lock)"},
		{"extra", "a: {extra_args: [--seed=1]}\n", "may not set --seed"},
		{"category", "a: {category: logic}\n", `category is "logic", it must be one of abstraction, knowledge, perception, `},
		{"domain", "a: {domain: maze/3}\n", "what stands before _task in the name of a folder"},
		{"pool", "a: {pool: -1}\n", "pool is -1, it must be a number of puzzles"},
		{"option", "a: {options: {seed: 1}}\n", "a: options: seed is no option"},
		{"required is a path", "a: {required: [x/y]}\n", "name of a file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, filepath.Join(root, Catalogue), test.text)
			_, err := Discover(root)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "generator.Entry") {
				t.Errorf("got %v, want ...%q...", err, test.want)
			}
		})
	}
	for text, want := range map[string]string{"a 0123abc": "line 1 must be", "# x\na": "line 2 must be", "../a 00": "line 1: name"} {
		root := t.TempDir()
		write(t, filepath.Join(root, CatalogueLock), text)
		if _, err := Discover(root); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want ...%q...", text, err, want)
		}
	}
	if list, err := Discover(t.TempDir()); err != nil || len(list) != 0 {
		t.Errorf("no catalogue: got %v, %v", list, err)
	}
	root := t.TempDir()
	write(t, filepath.Join(root, Catalogue), "# nothing yet\n")
	if _, err := Discover(root); err != nil {
		t.Errorf("empty catalogue: %v", err)
	}
}

func TestOwnCatalogue(t *testing.T) {
	all, err := ReadCatalogue(filepath.Join("..", "..", "generators"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"chess", "maze", "sudoku", "hanoi", "sliding-puzzle", "gauge", "gears", "keys"} {
		got := map[string]bool{}
		for _, file := range all[name+"-task-data-generator"].Required {
			got[file] = true
		}
		if want := map[string]bool{"rubric.txt": true, "final_frame.png": true,
			"metadata.json": true}; !reflect.DeepEqual(got, want) {
			t.Errorf("%s requires %v, want %v", name, got, want)
		}
	}
}

func TestCommit(t *testing.T) {
	root := t.TempDir()
	git(t, root, "init", "-q")
	for _, name := range []string{"tracked", "ignored", "changed", "clone"} {
		write(t, filepath.Join(root, name, "file"), name)
	}
	write(t, filepath.Join(root, ".gitignore"), "ignored\nclone\n")
	git(t, root, "add", ".")
	git(t, root, "commit", "-qm", "x")
	head := git(t, root, "rev-parse", "HEAD")
	write(t, filepath.Join(root, "README.md"), "of no generator")
	git(t, root, "add", ".")
	git(t, root, "commit", "-qm", "unrelated")
	write(t, filepath.Join(root, "changed", "file"), "other")
	write(t, filepath.Join(root, "new", "file"), "")
	clone := filepath.Join(root, "clone")
	git(t, clone, "init", "-q")
	git(t, clone, "add", ".")
	git(t, clone, "commit", "-qm", "y")
	latest, own := git(t, root, "rev-parse", "HEAD"), git(t, clone, "rev-parse", "HEAD")
	outside, unborn := t.TempDir(), t.TempDir()
	git(t, unborn, "init", "-q")
	write(t, filepath.Join(unborn, "sub", "file"), "no commit yet")
	t.Setenv("GIT_DIR", filepath.Join(t.TempDir(), "elsewhere")) // as inside a git hook
	for _, test := range []struct{ dir, want string }{
		{filepath.Join(root, "tracked"), head}, {filepath.Join(root, "changed"), head + "-dirty"},
		{filepath.Join(root, "new"), latest + "-dirty"},
		{filepath.Join(root, "ignored"), ""}, {clone, own}, {outside, ""},
		{unborn, ""}, {filepath.Join(unborn, "sub"), ""},
	} {
		if got := commitOf(test.dir, nil); got != test.want {
			t.Errorf("%s: got %q, want %q", filepath.Base(test.dir), got, test.want)
		}
	}
	shared := []string{filepath.Join(root, "changed")}
	if got := commitOf(filepath.Join(root, "tracked"), shared); got != head+"-dirty" {
		t.Errorf("with a changed package beside it: got %q", got)
	}
	if got := commitOf(clone, shared); got != own {
		t.Errorf("a clone with a changed package beside it: got %q", got)
	}
}
