package catalogue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// rootVariable turns the test binary into a sync of all that is in the catalogue of
// a folder, which tests kill.
const rootVariable = "VM_DATASET_TEST_SYNC"

func TestMain(m *testing.M) {
	if root, ok := os.LookupEnv(rootVariable); ok {
		_, err := (&Syncer{Root: root}).Sync(context.Background(), []string{"a"}, nil)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// user runs git as somebody who works with it.
func user(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c",
		"commit.gpgsign=false",
		"-c", "core.hooksPath=/dev/null", "-c", "core.autocrlf=false", "-c", "protocol.file.allow=always", "-c",
		"filter.shout.clean=cat"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// origin is a bare repository and a folder in which its commits are made.
type origin struct {
	t    testing.TB
	bare string
	work string
}

func newOrigin(t testing.TB) *origin {
	t.Helper()
	dir := t.TempDir()
	o := &origin{t, filepath.Join(dir, "x.git"), filepath.Join(dir, "work")}
	user(t, dir, "init", "-q", "--bare", "-b", "main", o.bare)
	user(t, dir, "init", "-q", "-b", "main", o.work)
	return o
}

// commit adds files and returns the commit, which is pushed.
func (o *origin) commit(files map[string]string) string {
	o.t.Helper()
	for name, text := range files {
		write(o.t, filepath.Join(o.work, name), text)
	}
	user(o.t, o.work, "add", "-A")
	user(o.t, o.work, "commit", "-q", "--allow-empty", "-m", "x")
	return o.push()
}

func (o *origin) push() string {
	o.t.Helper()
	user(o.t, o.work, "push", "-q", "--force", o.bare, "HEAD:main")
	return user(o.t, o.work, "rev-parse", "HEAD")
}

const program = generator.DefaultEntry

// catalogueOf writes a catalogue in which each name has a repository, and its lock.
func catalogueOf(t testing.TB, entries map[string][2]string) (root string) {
	t.Helper()
	root = t.TempDir()
	text := "# of a test\n"
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		text += fmt.Sprintf("\n%s: # here\n  repository: %q\n", name, entries[name][0])
		if commit := entries[name][1]; commit != "" {
			if err := SetPin(root, name, generator.Pin{Commit: commit}); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(t, filepath.Join(root, generator.Catalogue), text)
	return root
}

// synced runs a sync of one name.
func synced(t testing.TB, s *Syncer, name string) Result {
	t.Helper()
	results, err := s.Sync(t.Context(), []string{name}, nil)
	if err != nil || len(results) != 1 {
		t.Fatalf("%+v, %v", results, err)
	}
	return results[0]
}

// clean checks that no sync has left anything that is half made.
func clean(t testing.TB, root string) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(root, work, "*-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestSync(t *testing.T) {
	o := newOrigin(t)
	first := o.commit(map[string]string{program: "first", "data.txt": "1\n"})
	second := o.commit(map[string]string{program: "second"})
	root := catalogueOf(t, map[string][2]string{"a": {o.bare, first}, "b": {"file://" + o.bare, second},
		"c": {o.bare, ""}})
	before := read(t, filepath.Join(root, generator.Catalogue))
	relative, err := filepath.Rel(root, o.bare)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, generator.Catalogue), strings.Replace(before, fmt.Sprintf("%q", o.bare), "./"+relative,
		1)+"own: {chunk_size: 7}\nleft: {repository: o/r, skip: it needs Blender}\n")
	s := &Syncer{Root: root}
	names := []string{"a", "b", "c", "left", "own"}
	for range 2 {
		results, err := s.Sync(t.Context(), names, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range results {
			got = append(got, string(r.State))
		}
		want := "fetched fetched fetched left out kept here"
		if results[0].State == There {
			want = "there there there left out kept here"
			if _, err := os.Stat(o.bare); err == nil {
				t.Error("nothing was fetched")
			}
		}
		if strings.Join(got, " ") != want || results[2].Commit != second {
			t.Errorf("got %+v", results)
		}
		for name, text := range map[string]string{"a": "first", "b": "second", "c": "second"} {
			if got := read(t, filepath.Join(root, name, program)); got != text {
				t.Errorf("%s: %q", name, got)
			}
		}
		if n := user(t, filepath.Join(root, "b"), "rev-list", "--count", "HEAD"); n != "1" {
			t.Errorf("%s commits came", n)
		}
		clean(t, root)
		// What is there needs no repository any more.
		if err := os.RemoveAll(o.bare); err != nil {
			t.Fatal(err)
		}
	}
	found, err := generator.Discover(root)
	if err != nil || len(found) != 3 || found[0].Commit != first || found[1].Commit != second {
		t.Errorf("found %+v, %v", found, err)
	}
	// The entry without a commit has got one.
	if after := read(t, filepath.Join(root, generator.CatalogueLock)); !strings.Contains(after, "\nc "+second+"\n") {
		t.Errorf("lock:\n%s", after)
	}
	if _, err := s.Sync(t.Context(), []string{"bb"}, nil); err == nil ||
		!strings.Contains(err.Error(), `no generator "bb"`) {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestSyncFails(t *testing.T) {
	good := newOrigin(t)
	commit := good.commit(map[string]string{program: ""})
	mixed := newOrigin(t)
	without := mixed.commit(map[string]string{"readme": ""})
	links := map[string]string{}
	for name, target := range map[string]string{"absolute": "/etc/passwd", "up": "../../outside",
		"chain": "here/../../outside", "fine": "examples/generate.py", "dangling": "not-there", "self": "link"} {
		o := newOrigin(t)
		write(t, filepath.Join(o.work, program), "")
		if err := errors.Join(os.Symlink(".", filepath.Join(o.work, "here")),
			os.Symlink(target, filepath.Join(o.work, "link"))); err != nil {
			t.Fatal(err)
		}
		links[name] = o.commit(nil)
		links[name+" at"] = o.bare
	}
	programLink := newOrigin(t)
	if err := os.Symlink("/", filepath.Join(programLink.work, "examples")); err != nil {
		t.Fatal(err)
	}
	gone := strings.Repeat("0", 39) + "1"
	for _, test := range []struct{ name, repository, commit, want string }{
		{"vanished", filepath.Join(t.TempDir(), "x.git"), commit, "is not there, or not public"},
		{"missing commit", good.bare, gone,
			gone + " is in no branch or tag any more: ops generators sync --update takes the newest"},
		{"no program", mixed.bare, without, "it has no examples/generate.py"},
		{"empty", newBare(t), "", "is empty: it has no commit"},
		{"remote helper", "ext::touch%20" + filepath.Join(t.TempDir(), "x"), commit, "is neither owner/name"},
		{"an option", "--upload-pack=touch x", commit, "is neither owner/name"},
		{"absolute link", links["absolute at"], links["absolute"], "its link link cannot be followed within its folder"},
		{"link up", links["up at"], links["up"], "its link link cannot be followed within its folder"},
		{"link through another", links["chain at"], links["chain"], "its link link cannot be followed within its folder"},
		{"link to itself", links["self at"], links["self"], "its link link cannot be followed within its folder"},
		{"program behind a link", programLink.bare, programLink.commit(nil),
			"its link examples cannot be followed within its folder"},
		{"link within", links["fine at"], links["fine"], ""},
		{"link to nothing", links["dangling at"], links["dangling"], ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := catalogueOf(t, map[string][2]string{"a": {test.repository, test.commit}})
			r := synced(t, &Syncer{Root: root}, "a")
			_, err := os.Lstat(filepath.Join(root, "a"))
			clean(t, root)
			if test.want == "" {
				if r.State != Fetched || err != nil {
					t.Errorf("got %+v, %v", r, err)
				}
				return
			}
			if r.State != Failed || !strings.Contains(r.Reason, test.want) || strings.Contains(r.Reason, "\n") {
				t.Errorf("got %+v, want ...%s...", r, test.want)
			}
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("something is there: %v", err)
			}
		})
	}
}

func newBare(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "x.git")
	user(t, ".", "init", "-q", "--bare", dir)
	return dir
}

func TestSyncRefusesNames(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"../x", "a/b", "..", ".fetch", "'-x'", "/x"} {
		write(t, filepath.Join(root, generator.Catalogue), name+": {repository: o/r}\n")
		if _, err := (&Syncer{Root: root}).Sync(t.Context(), []string{strings.Trim(name, "'")}, nil); err == nil ||
			!strings.Contains(err.Error(), "name ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSyncOccupied meets folders in which somebody has put something.
func TestSyncOccupied(t *testing.T) {
	o := newOrigin(t)
	old := o.commit(map[string]string{program: "old", ".gitignore": "data\n"})
	newer := o.commit(map[string]string{program: "new"})
	clone := func(t *testing.T, dir string) {
		if _, err := clone(t.Context(), dir, o.bare, old); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name, want string
		prepare    func(t *testing.T, dir string)
	}{
		{"no clone", "is no clone", func(t *testing.T, dir string) { write(t, filepath.Join(dir, program), "mine") }},
		{"a file", "is a file", func(t *testing.T, dir string) { write(t, dir, "mine") }},
		{"a link", "is a link", func(t *testing.T, dir string) { _ = os.Symlink(o.work, dir) }},
		{"broken", "no clone that can be used",
			func(t *testing.T, dir string) { write(t, filepath.Join(dir, ".git", "HEAD"), "?") }},
		{"changed", "has local changes (M examples/generate.py)",
			func(t *testing.T, dir string) { clone(t, dir); write(t, filepath.Join(dir, program), "mine") }},
		{"new file", "has local changes (?? new)",
			func(t *testing.T, dir string) { clone(t, dir); write(t, filepath.Join(dir, "new"), "mine") }},
		{"ignored file", "files that git ignores (data/)",
			func(t *testing.T, dir string) { clone(t, dir); write(t, filepath.Join(dir, "data", "1"), "mine") }},
		{"branch", "branches or commits of its own",
			func(t *testing.T, dir string) { clone(t, dir); user(t, dir, "branch", "mine") }},
		{"commit", "branches or commits of its own", func(t *testing.T, dir string) {
			clone(t, dir)
			user(t, dir, "commit", "-q", "--allow-empty", "-m", "mine")
		}},
		{"stash", "branches or commits of its own", func(t *testing.T, dir string) {
			clone(t, dir)
			write(t, filepath.Join(dir, program), "mine")
			user(t, dir, "stash", "-q")
		}},
		{"a clone that somebody made", "branches or commits of its own", func(t *testing.T, dir string) {
			user(t, ".", "clone", "-q", o.bare, dir)
			user(t, dir, "checkout", "-q", old)
		}},
		{"as it was fetched, and used", "", func(t *testing.T, dir string) {
			clone(t, dir)
			write(t, filepath.Join(dir, ".git", "info", "exclude"), "__pycache__\n")
			write(t, filepath.Join(dir, "src", "__pycache__", "x.pyc"), "")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := catalogueOf(t, map[string][2]string{"a": {o.bare, newer}})
			dir := filepath.Join(root, "a")
			test.prepare(t, dir)
			before := tree(t, dir)
			r := synced(t, &Syncer{Root: root}, "a")
			if test.want == "" {
				if r.State != Moved || r.Before != old || read(t, filepath.Join(dir, program)) != "new" {
					t.Errorf("got %+v", r)
				}
				return
			}
			if r.State != Failed || !strings.Contains(r.Reason, test.want) || !strings.Contains(r.Reason, dir) {
				t.Errorf("got %+v, want ...%s...", r, test.want)
			}
			if after := tree(t, dir); !maps.Equal(before, after) {
				t.Errorf("changed from %v to %v", before, after)
			}
			clean(t, root)
		})
	}
	t.Run("a clone that somebody made, at the commit", func(t *testing.T) {
		root := catalogueOf(t, map[string][2]string{"a": {o.bare, newer}})
		user(t, root, "clone", "-q", o.bare, "a")
		if r := synced(t, &Syncer{Root: root}, "a"); r.State != There {
			t.Errorf("got %+v", r)
		}
	})
}

// tree returns the files of a folder outside of .git.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && !strings.Contains(path, "/.git/") {
			files[path] = read(t, path)
		}
		return nil
	})
	return files
}
