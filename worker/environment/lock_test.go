package environment

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment/indextest"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/requirements"
)

// ownIndex serves the packages in a folder, alone: nothing else is seen of where
// packages come from.
func ownIndex(t *testing.T) (dir string, index *indextest.Index, server *httptest.Server) {
	t.Helper()
	silence(t)
	realUV(t)
	t.Setenv("PIP_CONFIG_FILE", os.DevNull)
	dir = t.TempDir()
	server, index = packageIndex(t, dir)
	t.Setenv("UV_CACHE_DIR", "") // each environment has an empty cache
	t.Setenv("UV_DEFAULT_INDEX", server.URL+"/simple")
	t.Setenv("UV_INSECURE_HOST", strings.TrimPrefix(server.URL, "https://"))
	return dir, index, server
}

// locker makes locks of a folder of one generator, and says what became of its lock.
func locker(t *testing.T, root string) (*Locks, func() LockResult) {
	locks := &Locks{Root: root, Dir: t.TempDir(), Progress: func(string) {}}
	return locks, func() LockResult {
		t.Helper()
		results, err := locks.Make(t.Context())
		if err != nil || len(results) != 1 || results[0].Problem != "" {
			t.Fatalf("%+v, %v", results, err)
		}
		return results[0]
	}
}

// lockOf reads the lock of requirements.
func lockOf(t *testing.T, root string, requirements ...string) lock {
	t.Helper()
	l, err := readLock(filepath.Join(root, LocksFolder), LockFile(&generator.Generator{Requirements: requirements}))
	if err != nil || l.text == nil {
		t.Fatalf("there is no lock of %s: %v", requirements, err)
	}
	return l
}

func commitInFebruary(t *testing.T, repository string) {
	t.Helper()
	git(t, repository, "init", "-q")
	git(t, repository, "add", ".")
	t.Setenv("GIT_COMMITTER_DATE", "2026-02-03T12:00:00Z")
	git(t, repository, "commit", "-qm", "x")
}

// What a generator's requirements leave open is decided by the date of its commit: the newest pyarrow is built for
// numpy 2 and its metadata does not say so, and the one of that time is not.
func TestLockByDate(t *testing.T) {
	wheels, index, _ := ownIndex(t)
	index.Old = []string{"14.0.2", "1.26.4"}
	for _, version := range []string{"1.26.4", "2.3.0"} {
		release(t, wheels, "numpy", version, "major = "+version[:1]+"\n")
	}
	release(t, wheels, "pyarrow", "14.0.2", "")
	release(t, wheels, "pyarrow", "22.0.0", "import numpy\nif numpy.major < 2: raise ImportError('built for numpy 2')\n")
	root := bare(t, "pyarrow>=14\nnumpy<2\n")
	commitInFebruary(t, filepath.Join(root, "g"))
	locks, lockIt := locker(t, root)
	const versions = "import numpy, pyarrow; from importlib.metadata import version as v; print(v('numpy'), v('pyarrow'))"
	lockIt()
	if _, python := made(t, root); python("g", versions) != "1.26.4 14.0.2" {
		t.Errorf("as of the commit: %s", python("g", versions))
	}
	locks.Update = true // as of now
	if r := lockIt(); r.State != LockUpdated {
		t.Errorf("%+v", r)
	}
	if _, python := made(t, root); !strings.Contains(python("g", versions), "built for numpy 2") {
		t.Errorf("as of now: %s", python("g", versions))
	}
}

// A lock that is made on one machine has the hashes of the wheels of both platforms.
func TestLockIsForAllPlatforms(t *testing.T) {
	wheels, _, _ := ownIndex(t)
	for _, platform := range platforms {
		arch, libc, _ := strings.Cut(platform, "-")
		if err := indextest.PlatformWheel(wheels, "tiny_thing", "1.0", libc+"_"+arch, ""); err != nil {
			t.Fatal(err)
		}
	}
	root := bare(t, "tiny-thing\n")
	_, lockIt := locker(t, root)
	lockIt()
	text := lockOf(t, root, "tiny-thing").text
	files, _ := filepath.Glob(filepath.Join(wheels, "*.whl"))
	for _, path := range files {
		if wheel, err := os.ReadFile(path); err != nil || !bytes.Contains(text, fmt.Appendf(nil, "sha256:%x", sha256.Sum256(wheel))) {
			t.Errorf("the lock does not have %s, %v:\n%s", filepath.Base(path), err, text)
		}
	}
	if len(files) != 2 || bytes.Contains(text, []byte(builders)) {
		t.Errorf("of %s the lock is\n%s", files, text)
	}
}

// A lock is made once, as of the generator's commit where the index tells when
// packages were uploaded; from then on it alone decides, whatever the index serves
// and however empty the caches are.
func TestLock(t *testing.T) {
	wheels, index, server := ownIndex(t)
	release(t, wheels, "tiny_thing", "1.0", "")
	release(t, wheels, "tiny_thing", "2.0", "")
	root := bare(t, "tiny-thing>=1\n")
	repository := filepath.Join(root, "g")
	commitInFebruary(t, repository)
	locks, lockIt := locker(t, root)
	if r := lockIt(); r.State != LockMade || r.AsOf != "2026-02-03T12:00:00Z" || r.Packages != 1 {
		t.Errorf("%+v", r)
	}
	// 2.0 was uploaded later.
	text := string(lockOf(t, root, "tiny-thing>=1").text)
	if strings.Contains(text, server.URL) || strings.Contains(text, root) ||
		!strings.Contains(text, "\ntiny-thing==1.0 \\\n    --hash=sha256:") {
		t.Errorf("the lock is\n%s", text)
	}
	release(t, wheels, "tiny_thing", "1.5", "")
	if r := lockIt(); r.State != LockKept {
		t.Errorf("with a newer version in the index: %+v", r)
	}
	all, python := made(t, root) // with empty caches
	if got := python("g", versionOfTiny); got != "1.0" {
		t.Errorf("version %s", got)
	}
	if hash, err := Locked(root, new(all["g"])); err != nil || hash == "" || hash != all["g"].Lock {
		t.Errorf("lock %q, %v, in the index %q", hash, err, all["g"].Lock)
	}
	release(t, wheels, "tiny_thing", "1.0", "changed = True\n")
	_, python = made(t, root)
	if got := python("g", versionOfTiny); !strings.HasPrefix(got, "problem: install "+filepath.Join(root, LocksFolder)) ||
		!strings.Contains(got, "ash mismatch") {
		t.Errorf("another file of the same version: %s", got)
	}
	locks.Update = true
	if r := lockIt(); r.State != LockUpdated || !strings.Contains(string(lockOf(t, root, "tiny-thing>=1").text),
		"\ntiny-thing==2.0 ") {
		t.Errorf("updated: %+v", r)
	}
	locks.Update = false
	write(t, filepath.Join(repository, requirements.File), "tiny-thing<2\n")
	if changed := (generator.Generator{Name: "g", Requirements: []string{"tiny-thing<2"}}); !Stale(root, &changed) {
		t.Error("a lock of other requirements is not stale")
	}
	results, err := locks.Make(t.Context())
	if err != nil || len(results) != 2 || results[0].State != LockMade || results[1].State != LockRemoved {
		t.Errorf("%+v, %v", results, err)
	}
	// An index that tells no dates has nothing of that time: as of now, and it says so.
	git(t, repository, "commit", "-qam", "y")
	index.Undated.Store(true)
	if err := os.RemoveAll(filepath.Join(root, LocksFolder)); err != nil {
		t.Fatal(err)
	}
	locks.Dir = t.TempDir()
	if r := lockIt(); !strings.Contains(r.AsOf, "because as of 2026-02-03") ||
		!strings.Contains(string(lockOf(t, root, "tiny-thing<2").text), "\ntiny-thing==1.5 ") {
		t.Errorf("%+v", r)
	}
}

// What builds a package without wheels is in the lock too, or nothing builds it.
func TestLockBuilds(t *testing.T) {
	index, _, _ := ownIndex(t)
	root := bare(t, "built-thing\n./own\n")
	release(t, index, "tool_thing", "1.0", "value = 'first'\n")
	if err := indextest.Source(index, "built_thing", "1.0", "tool_thing"); err != nil {
		t.Fatal(err)
	}
	for name, text := range indextest.Sources("own_thing", "1.0", "tool_thing") {
		if name == "backend.py" { // asks for more when it runs
			text += "def get_requires_for_build_wheel(config_settings=None):\n    return ['late-thing']\n"
		}
		write(t, filepath.Join(root, "g", "own", name), text)
	}
	release(t, index, "late_thing", "1.0", "")
	_, lockIt := locker(t, root)
	if r := lockIt(); r.State != LockMade || r.Packages != 1 {
		t.Errorf("%+v", r)
	}
	path, _ := filepath.Glob(filepath.Join(root, LocksFolder, "*.txt"))
	l, err := readLock(filepath.Dir(path[0]), filepath.Base(path[0]))
	if err != nil {
		t.Fatal(err)
	}
	const builds = "import built_thing, own_thing; print(built_thing.value, own_thing.value)"
	complete, before := string(l.text), l.id()
	l.text = []byte(complete[:strings.Index(complete, builders)])
	if _, _, build := (lock{text: []byte(complete)}).files(); !strings.HasPrefix(build, "late-thing==1.0 \\\n    --hash=") ||
		!strings.Contains(build, "\ntool-thing==1.0 \\\n    --hash=") || l.id() == before {
		t.Errorf("the lock, of hash %s with and %s without what builds, is\n%s", before, l.id(), complete)
	}
	release(t, index, "tool_thing", "2.0", "value = 'second'\n")
	if _, python := made(t, root); python("g", builds) != "first first" {
		t.Errorf("with a newer tool in the index it was built by %q", python("g", builds))
	}
	release(t, index, "tool_thing", "1.0", "value = 'another'\n")
	if _, python := made(t, root); !strings.Contains(python("g", builds), "ash mismatch") {
		t.Errorf("with another file of the tool: %s", python("g", builds))
	}
	write(t, path[0], string(l.text))
	if _, python := made(t, root); !strings.Contains(python("g", builds), "the lock has nothing that builds it") ||
		strings.Contains(python("g", builds), "\n") {
		t.Errorf("without a tool in the lock: %s", python("g", builds))
	}
}

// An environment that was is made again from its lock and its Python, whatever the
// index, the locks and the requirements are by now; workers do not notice.
func TestRemake(t *testing.T) {
	wheelhouse(t)
	wheels, dir, root := os.Getenv("PIP_FIND_LINKS"), t.TempDir(), bare(t, "tiny-thing\n")
	locks, lockIt := locker(t, root)
	lockIt()
	old := lockOf(t, root, "tiny-thing")
	release(t, wheels, "tiny_thing", "2.0", "")
	locks.Update = true
	lockIt()
	b := &Builder{Root: root, Dir: dir}
	if _, err := b.Build(t.Context()); err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(dir, generator.IndexFile))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "g", requirements.File), "not-there\n")
	usual, err := findPython(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	anotherPython(t, usual)
	for _, test := range []struct {
		text                  []byte
		python, version, want string
	}{
		{old.text, usual.Version, usual.Version, "1.0"},
		{old.text, "3.19.2", "3.19.2", "1.0"},
		{old.text, "3.19.3", usual.Version, "1.0"}, // there is none
		{nil, usual.Version, usual.Version, "PackageNotFoundError"},
	} {
		g, err := b.Remake(t.Context(), "g", test.text, test.python)
		if err != nil {
			t.Errorf("Python %s: %v", test.python, err)
			continue
		}
		out, _ := exec.Command(g.Python, "-I", "-c", versionOfTiny).CombinedOutput()
		if g.Version != test.version || g.Lock != LockHash(test.text) || !strings.Contains(string(out), test.want) {
			t.Errorf("Python %s, lock %q: got %s, want Python %s and %s", g.Version, g.Lock, out, test.version, test.want)
		}
	}
	if now, err := os.ReadFile(filepath.Join(dir, generator.IndexFile)); err != nil || string(now) != string(index) {
		t.Errorf("the index was %s\nand is %s, %v", index, now, err)
	}
	if text, err := FindLock(old.id(), t.TempDir(), filepath.Join(root, LocksFolder)); text != nil || err != nil {
		t.Errorf("a lock that is gone: %q, %v", text, err)
	}
}

// TestCataloguePins looks at what the catalogue says of the organisation's.
func TestCataloguePins(t *testing.T) {
	all, err := generator.ReadCatalogue(filepath.Join("..", "..", "generators"))
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
		for _, name := range l.head("for") {
			if locked[name] {
				t.Errorf("%s has two locks", name)
			}
			locked[name] = true
		}
		// The name is the hash of the requirements it was made for, and these have the versions that they ask for.
		of := generator.Generator{Requirements: l.head("requires"), Pythons: strings.Join(l.head("python"), "")}
		if LockFile(&of) != filepath.Base(path) {
			t.Errorf("%s is not of the requirements %s, but %s would be", path, of.Requirements, LockFile(&of))
		}
		for _, line := range of.Requirements {
			line, _, _ = strings.Cut(line, ";") // what it is for, as of one platform alone
			name, version, exact := strings.Cut(line, "==")
			pinned := fmt.Sprintf("\n%s==%s ", requirements.PlainName(name), version)
			if exact && !bytes.Contains(l.text, []byte(pinned)) {
				t.Errorf("%s requires %s and does not have it", path, line)
			}
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
	if fetched != 64 {
		t.Errorf("%d generators can be fetched; the README and docs/CATALOGUE.md say 64", fetched)
	}
}

// Ours are locked with what they require now.
func TestOwnAreLocked(t *testing.T) {
	root := filepath.Join("..", "..", "generators")
	list, err := generator.Discover(root)
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	for i := range list {
		if hash, err := Locked(root, &list[i]); hash == "" || err != nil || Stale(root, &list[i]) {
			t.Errorf("%s: lock %q, %v", list[i].Name, hash, err)
		}
	}
}
