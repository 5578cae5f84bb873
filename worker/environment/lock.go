package environment

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/requirements"
)

// LocksFolder has the locks, in the generators' folder: a file for each requirement set with the exact versions of all
// packages it leads to, and the hashes of their files for every platform. A set that has none there gets one beside the
// environments, so that it is resolved once there, too.
const LocksFolder = "locks"

// lock is what a requirement set is, exactly.
type lock struct {
	path string
	text []byte
}

// builders begins the comment before the last part of a lock: what builds those of its packages that have no wheel for
// some platform, and those of a folder or a repository.
const builders = "# To build "

// forPythons begins the comment that says for which Pythons a lock is.
const forPythons = "# python "

// id is the SHA-256 of what counts, not of the other comments; "" without a lock.
func (l lock) id() string {
	if l.text == nil {
		return ""
	}
	h := sha256.New()
	for line := range bytes.Lines(l.text) {
		if !bytes.HasPrefix(line, []byte("#")) || bytes.HasPrefix(line, []byte(builders)) ||
			bytes.HasPrefix(line, []byte(forPythons)) {
			h.Write(line)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// head returns the values of a word in the lock's head: for, requires, as of.
func (l lock) head(word string) (list []string) {
	for line := range strings.Lines(string(l.text)) {
		if rest, ok := strings.CutPrefix(line, "# "+word+" "); ok {
			list = append(list, strings.TrimSpace(rest))
		}
	}
	return list
}

// files are the lines with the hashes of their files, those that have none, of
// repositories at a commit, and those of what builds packages.
func (l lock) files() (hashed, others, build string) {
	building := false
	for entry := range entries(l.text) {
		switch {
		case strings.HasPrefix(entry, "#"):
			building = building || strings.HasPrefix(entry, builders)
		case building:
			build += entry
		case strings.Contains(entry, "--hash="):
			hashed += entry
		default:
			others += entry
		}
	}
	return hashed, others, build
}

// entries are the lines of a requirements file, each with what continues it.
func entries(text []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		entry := ""
		for line := range bytes.Lines(text) {
			entry += string(line)
			if !strings.HasSuffix(entry, "\\\n") {
				if !yield(entry) {
					return
				}
				entry = ""
			}
		}
	}
}

// Locks makes the locks that generators keep in their folder.
type Locks struct {
	Root     string   // the generators' folder
	Dir      string   // where uv and its cache may be put
	Names    []string // only of these generators; nil for all
	Update   bool     // resolve anew, as of now, what is locked already
	Progress func(string)
}

// LockState says what became of a lock.
type LockState string

// The states of a lock.
const (
	LockKept    LockState = "kept"    // it was there
	LockMade    LockState = "made"    // it was not
	LockUpdated LockState = "updated" // it is another one now
	LockRemoved LockState = "removed" // nobody has these requirements any more
	LockFailed  LockState = "failed"  // Problem says why
)

// LockResult is what became of one lock.
type LockResult struct {
	File       string    `json:"file"`
	Generators []string  `json:"generators"`
	State      LockState `json:"state"`
	Packages   int       `json:"packages"`
	AsOf       string    `json:"as_of,omitempty"`
	Problem    string    `json:"problem,omitempty"`
}

// Make makes the locks that are missing, as of the newest commit among the generators that share one where the index
// tells when packages were uploaded, and removes those of requirements that a generator had before. The error is for
// what concerns all of them, an *generator.UnknownError for a name that is none, or ctx's.
func (l *Locks) Make(ctx context.Context) (results []LockResult, err error) {
	x, err := discover(l.Root, false, l.Names...)
	if err != nil {
		return nil, err
	}
	root, err := filepath.Abs(l.Root)
	if err != nil {
		return nil, err
	}
	w, err := newWorkshop(ctx, l.Dir, "", l.Progress, nil)
	if err != nil {
		return nil, err
	}
	current, known := map[string]bool{}, map[string]bool{}
	for _, g := range x.Generators {
		known[g.Name] = true
	}
	wanted := func(name string) bool { return l.Names == nil || slices.Contains(l.Names, name) }
	for _, m := range environmentsOf(x.Generators, root, w) {
		current[m.environment.lockFile] = true
		if m.environment.lockFile == "" || !slices.ContainsFunc(m.names(), wanted) {
			continue
		}
		r, err := l.lock(ctx, m, known, w)
		if err != nil {
			return results, err
		}
		results = append(results, r)
	}
	files, _ := filepath.Glob(filepath.Join(root, LocksFolder, "*.txt"))
	for _, path := range files {
		old, err := readLock(filepath.Dir(path), filepath.Base(path))
		if err != nil {
			return results, err
		}
		others := slices.DeleteFunc(old.head("for"), func(name string) bool { return known[name] })
		switch {
		case current[filepath.Base(path)] || l.Names != nil || len(others) == len(old.head("for")):
		case len(others) > 0: // that are not fetched
			err = atomicfile.Write(path, old.naming(others).text)
		default:
			results = append(results, LockResult{File: filepath.Base(path), Generators: old.head("for"), State: LockRemoved})
			err = os.Remove(path)
		}
		if err != nil {
			return results, err
		}
	}
	return results, nil
}

func (l *Locks) lock(ctx context.Context, m *members, known map[string]bool, w *workshop) (LockResult, error) {
	e := m.environment
	old, err := readLock(e.locks, e.lockFile)
	if err != nil {
		return LockResult{}, err
	}
	// Generators that are in the catalogue and not fetched keep their place.
	names := append(m.names(), slices.DeleteFunc(old.head("for"), func(name string) bool { return known[name] })...)
	slices.Sort(names)
	r, now := LockResult{File: e.lockFile, Generators: names, State: LockKept}, old
	switch {
	case old.text == nil || l.Update:
		in, err := w.uv()
		if err != nil {
			return r, err
		}
		if e.python, err = w.suitable(ctx, e.specifier); err != nil {
			r.State, r.Problem = LockFailed, err.Error()
			return r, context.Cause(ctx)
		}
		asOf := time.Time{}
		if !l.Update {
			asOf = commitTime(ctx, m.generators)
		}
		now, err = e.makeLock(ctx, in, old.path, names, asOf, func(string) {})
		switch {
		case ctx.Err() != nil:
			return r, context.Cause(ctx)
		case err != nil:
			r.State, r.Problem = LockFailed, err.Error()
			return r, nil
		case old.text == nil:
			r.State = LockMade
		case old.id() != now.id():
			r.State = LockUpdated
		}
	case !slices.Equal(old.head("for"), names):
		now = old.naming(names)
		if err := atomicfile.Write(old.path, now.text); err != nil {
			return r, err
		}
	}
	r.AsOf = strings.Join(now.head("as of"), "")
	hashed, others, _ := now.files()
	r.Packages = len(slices.Collect(entries([]byte(hashed + others))))
	return r, nil
}

// LockFile is the name of the lock of a requirement set, the same on every machine; "" if it requires nothing.
func LockFile(g *generator.Generator) string {
	if len(g.Requirements) == 0 {
		return ""
	}
	lines := requirements.Normalise(g.Requirements, declares)
	for i, line := range lines {
		lines[i] = ownFolder(g.Dir).ReplaceAllString(line, "${1}.${2}")
	}
	if g.Pythons != "" {
		lines = append(lines, "python"+g.Pythons)
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(lines, "\n"))))[:12] + ".txt"
}

// Locked returns the hash of the lock that is kept for a generator in the
// generators' folder: "" if it has none, or requires nothing.
func Locked(root string, g *generator.Generator) (string, error) {
	l, err := readLock(filepath.Join(root, LocksFolder), LockFile(g))
	if err != nil || l.text == nil {
		return "", err
	}
	return l.id(), nil
}

// LockHash returns the hash of a lock, as Generator.Lock has it.
func LockHash(text []byte) string { return lock{text: text}.id() }

// FindLock finds the lock with a hash in folders of locks, whatever its name. It is nil if none of them has it.
func FindLock(hash string, folders ...string) ([]byte, error) {
	for _, folder := range folders {
		files, _ := filepath.Glob(filepath.Join(folder, "*.txt"))
		for _, path := range files {
			l, err := readLock(folder, filepath.Base(path))
			if err != nil {
				return nil, err
			}
			if l.id() == hash {
				return l.text, nil
			}
		}
	}
	return nil, nil
}

// Stale reports that the lock which is kept for a generator is of requirements it had before.
func Stale(root string, g *generator.Generator) bool {
	files, _ := filepath.Glob(filepath.Join(root, LocksFolder, "*.txt"))
	return slices.ContainsFunc(files, func(path string) bool {
		l, _ := readLock(filepath.Dir(path), filepath.Base(path))
		return filepath.Base(path) != LockFile(g) && slices.Contains(l.head("for"), g.Name)
	})
}

func readLock(dir, file string) (lock, error) {
	l := lock{path: filepath.Join(dir, file)}
	if file == "" {
		return l, nil
	}
	var err error
	if l.text, err = os.ReadFile(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return l, fmt.Errorf("read lock: %w", err)
	}
	return l, nil
}

// findLock looks where locks are kept, and where they are made for now. Its text is nil if there is none.
func (e environment) findLock() (lock, error) {
	for _, dir := range []string{e.locks, e.ownLocks} {
		if l, err := readLock(dir, e.lockFile); err != nil || l.text != nil {
			return l, err
		}
	}
	return lock{path: filepath.Join(e.ownLocks, e.lockFile)}, nil
}

// makeLock resolves the requirements as of a point in time, or as of now if that is zero, and writes the lock to path.
func (e environment) makeLock(ctx context.Context, in installer, path string, names []string, asOf time.Time,
	say func(string)) (l lock, err error) {
	r, err := e.newResolver(in, say)
	if err != nil {
		return l, err
	}
	defer os.RemoveAll(r.scratch)
	date, text := "", ""
	if !asOf.IsZero() {
		date = asOf.UTC().Format(time.RFC3339)
		r.exclude = []string{"--exclude-newer", date}
		text, err = r.resolve(ctx, r.lines)
	}
	// An index that tells no dates has nothing that is old enough; a pin in the catalogue may be newer than the commit.
	if asOf.IsZero() || err != nil && ctx.Err() == nil && !errors.Is(err, errNoIndex) {
		date = time.Now().UTC().Format(time.DateOnly)
		if err != nil {
			date += ", because as of " + asOf.UTC().Format(time.DateOnly) + " the index has no such packages"
		}
		r.exclude = nil
		text, err = r.resolve(ctx, r.lines)
	}
	if err != nil {
		return l, err
	}
	head := "# What a requirement set is, exactly: made by \"ops generators lock\", not to be edited.\n"
	for _, line := range e.requirements {
		head += "# requires " + ownFolder(e.of).ReplaceAllString(line, "${1}.${2}") + "\n"
	}
	if e.specifier != "" {
		head += forPythons + e.specifier + "\n"
	}
	head += "# as of " + date + "\n"
	l = lock{path: path, text: []byte(head)}
	for entry := range entries([]byte(text)) {
		if !strings.Contains(entry, r.source) { // those are in the generator's folder
			l.text = append(l.text, entry...)
		}
	}
	if l, err = r.addBuilders(ctx, l); err != nil {
		return l, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return l, err
	}
	l = l.naming(names)
	return l, atomicfile.Write(path, l.text)
}

// naming returns the lock as one for these generators.
func (l lock) naming(names []string) lock {
	var text []byte
	for line := range bytes.Lines(l.text) {
		if !bytes.HasPrefix(line, []byte("# for ")) {
			text = append(text, line...)
		}
		if len(text) == len(line) { // after the first line
			for _, name := range names {
				text = append(text, "# for "+name+"\n"...)
			}
		}
	}
	return lock{path: l.path, text: text}
}

// commitTime is when the newest of the generators' commits was made; zero if one has none, or has been changed since.
func commitTime(ctx context.Context, list []*generator.Generator) (newest time.Time) {
	for _, g := range list {
		if g.Commit == "" || strings.HasSuffix(g.Commit, generator.Dirty) {
			return time.Time{}
		}
		out, err := exec.CommandContext(ctx, "git", "-C", g.Dir, "show", "--no-patch", "--format=%cI", g.Commit).Output()
		made, err2 := time.Parse(time.RFC3339, strings.TrimSpace(string(out)))
		if cmp.Or(err, err2) != nil {
			return time.Time{}
		}
		if made.After(newest) {
			newest = made
		}
	}
	return newest
}

// declares is a hash of what says what a package requires.
func declares(path string) string {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return requirements.State(path)
	}
	var all string
	for _, name := range []string{requirements.ProjectFile, "setup.py", "setup.cfg", requirements.File} {
		all += requirements.State(filepath.Join(path, name))
	}
	return all
}

// ownFolder finds the generator's folder in a requirement: its path, or that in a URL.
func ownFolder(dir string) *regexp.Regexp {
	return regexp.MustCompile(`((?:^|\s|@|file:|file://|file://localhost)\s*)(?:` + regexp.QuoteMeta(dir) + "|" +
		regexp.QuoteMeta(urlPath(dir)) + `)($|[/\s;\[#])`)
}
