package generator

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestDiscover(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"a", "b", "c", "left-out", "bad name", "added"} {
		write(t, filepath.Join(root, name, DefaultEntry), "")
	}
	write(t, filepath.Join(root, "library", "code.py"), "")
	write(t, filepath.Join(root, "a", "requirements.txt"), "numpy==1.26.4\n")
	write(t, filepath.Join(root, Catalogue), `
c: {required: [rubric.txt], videoless: true, files_vary: true, extra_args: [--fast], chunk_size: 100, licence: MIT}
a: {requirements: [scipy]}
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
		{Name: "a", Requirements: []string{"numpy==1.26.4", "scipy"}},
		{Name: "added", Repository: "org/added", Licence: "MIT"},
		{Name: "b", Repository: "org/b"},
		{Name: "bad name"},
		{Name: "c", Required: []string{"rubric.txt"}, Videoless: true, FilesVary: true, ExtraArgs: []string{"--fast"},
			ChunkSize: 100, Licence: "MIT"},
	} {
		g.Dir, g.Entry, g.Flags = filepath.Join(root, g.Name), DefaultEntry, contractFlags
		want = append(want, g)
	}
	for i := range got {
		got[i].needs, got[i].empty = "", false
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
	for _, name := range []string{"chess", "maze", "sudoku", "hanoi", "sliding-puzzle"} {
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

// TestCataloguePins looks at what the catalogue says of the organisation's.
func TestCataloguePins(t *testing.T) {
	all, err := ReadCatalogue(filepath.Join("..", "..", "generators"))
	if err != nil {
		t.Fatal(err)
	}
	locked := map[string]bool{}
	files, _ := filepath.Glob(filepath.Join("..", "..", "generators", LocksFolder, "*.txt"))
	for _, path := range files {
		l, err := readLock(filepath.Dir(path), filepath.Base(path))
		if err != nil || bytes.Contains(l.text, []byte("://")) {
			t.Errorf("%s: %v, or it names a host", path, err)
		}
		for _, name := range l.says("for") {
			locked[name] = true
		}
	}
	fetched := 0
	for name, e := range all {
		if e.Skip == "" && !locked[name] {
			t.Errorf("%s has no lock", name)
		}
		if e.Repository == "" || e.Skip != "" {
			continue
		}
		fetched++
		if e.Commit == "" || e.Licence == "" || !strings.HasSuffix(e.Repository, "/"+name) {
			t.Errorf("%s: %+v", name, e)
		}
		if e.ChunkSize != 0 && 100%e.ChunkSize != 0 {
			t.Errorf("%s: chunks of %d do not fill the default batch of 100", name, e.ChunkSize)
		}
	}
	if fetched != 40 {
		t.Errorf("%d generators can be fetched; docs/GENERATORS.md and the README say 40", fetched)
	}
}

// Ours are locked with what they require now.
func TestOwnAreLocked(t *testing.T) {
	root := filepath.Join("..", "..", "generators")
	list, err := Discover(root)
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	for i := range list {
		if hash, err := Locked(root, &list[i]); hash == "" || err != nil || Stale(root, &list[i]) {
			t.Errorf("%s: lock %q, %v", list[i].Name, hash, err)
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
	t.Setenv("GIT_DIR", filepath.Join(t.TempDir(), "elsewhere")) // as inside a git hook
	outside := t.TempDir()
	for _, test := range []struct{ dir, want string }{
		{filepath.Join(root, "tracked"), head}, {filepath.Join(root, "changed"), head + "-dirty"},
		{filepath.Join(root, "new"), latest + "-dirty"},
		{filepath.Join(root, "ignored"), ""}, {clone, own}, {outside, ""},
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

func TestRequirements(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "requirements.txt"),
		"\ufeff# header\r\nNumPy == 1.26.4   # pinned\r\n-r more/other.txt\n--extra-index-url https://example.invalid/simple\nx>=1; python_version < \"3.12\"\n./wheels/y.whl[all]\n-e pkg\n-c limits.txt\nlong==1 \\\n  --hash=sha256:00\nz @ https://example.invalid/z.whl#egg=z\n")
	write(t, filepath.Join(dir, "more", "other.txt"), "pillow\n--requirement=third.txt")
	write(t, filepath.Join(dir, "more", "third.txt"), "-f ../wheels\n")
	got, err := readRequirements(dir, requirementsFile, 0)
	want := []string{"NumPy == 1.26.4", "pillow", "-f " + dir + "/wheels",
		"--extra-index-url https://example.invalid/simple", `x>=1; python_version < "3.12"`,
		dir + "/wheels/y.whl[all]", "-e " + dir + "/pkg", "-c " + dir + "/limits.txt", "long==1    --hash=sha256:00",
		"z @ https://example.invalid/z.whl#egg=z"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q, %v\nwant %q", got, err, want)
	}
}

func TestRequirementsRefused(t *testing.T) {
	for _, line := range []string{"-r ../other.txt", "-r/etc/passwd", "--requirement=../x", "-c ../c.txt", "-e ..",
		"-e /srv/pkg", "../pkg", "..", "/opt/x.whl", "-f ..",
		"file:///etc", "x @ file:///etc/x.whl", "x@file:../x.whl", "git+file:///srv/x", "./link/pkg", "-r link/other.txt",
		"-r requirements.txt"} {
		t.Run(line, func(t *testing.T) {
			dir, outside := t.TempDir(), t.TempDir()
			write(t, filepath.Join(outside, "pkg", "setup.py"), "")
			write(t, filepath.Join(outside, "other.txt"), "")
			if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, requirementsFile), line+"\n")
			if got, err := readRequirements(dir, requirementsFile, 0); err == nil {
				t.Errorf("accepted as %q", got)
			}
		})
	}
}

func TestNormalise(t *testing.T) {
	same := [][]string{
		{"Pillow==10.4.0", "opencv_python==4.10.0.84", "x >= 1 ; python_version < '3.12'"},
		{"x>=1; python_version  < '3.12'", "opencv-python == 4.10.0.84", "pillow ==10.4.0", "pillow==10.4.0"},
	}
	if a, b := normalise(same[0], state), normalise(same[1], state); !reflect.DeepEqual(a, b) {
		t.Errorf("%q\n%q", a, b)
	}
	if a, b := normalise([]string{"a==1"}, state), normalise([]string{"a==2"}, state); reflect.DeepEqual(a, b) {
		t.Errorf("both %q", a)
	}
	wheel := filepath.Join(t.TempDir(), "x.whl")
	write(t, wheel, "1")
	a := normalise([]string{wheel}, state)
	write(t, wheel, "12")
	if b := normalise([]string{wheel}, state); reflect.DeepEqual(a, b) {
		t.Errorf("a changed wheel is the same: %q", a)
	}
}
