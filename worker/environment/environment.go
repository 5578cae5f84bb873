// Package environment makes the Python environments of generators: from locks, which it makes too, with uv.
package environment

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/requirements"
)

// Builder finds the generators below Root, makes the Python environments they need, and writes the index that workers
// read. Generators with the same requirements share an environment; one that is there already is used again.
type Builder struct {
	Root string // the generators' folder; default "generators"
	Dir  string // where the index and the environments go
	// interpreter the environments are made from; default the first on the PATH that is new enough
	Python  string
	Commits map[string]string // commits of the generators, where the folder has no git history; nil to ask git
	Names   []string          // generators whose environments are made; nil for all
	// what is built is kept in an image: generators that download data are left out, and a package index that cannot be
	// reached is an error and not the Problem of generators
	Image    bool
	Parallel int          // environments made at once; default 1, because disk and network are what it takes
	Progress func(string) // called with each line of progress; may be nil
	Events   func(Event)  // the same for programs, one event at a time; may be nil
}

// Stage says how far an environment is.
type Stage string

// The stages of an environment. Reused, Ready and Failed are final.
const (
	Locking    Stage = "locking"    // it has no lock: its requirements are resolved
	Waiting    Stage = "waiting"    // another process makes it
	Making     Stage = "making"     // it was not there
	Installing Stage = "installing" // Detail is a line of the installer
	Ready      Stage = "ready"      // it was made
	Reused     Stage = "reused"     // it was there
	Failed     Stage = "failed"     // Detail says why
)

// Event is one step in the making of an environment.
type Event struct {
	Environment string   // its id
	Generators  []string // that run in it; none for the installer's own
	Stage       Stage
	Detail      string
}

// String is one line for people.
func (e Event) String() string {
	if e.Stage == Installing {
		return "  " + e.Detail
	}
	line := "Python environment " + e.Environment + " " + string(e.Stage)
	switch {
	case len(e.Generators) > 2:
		line += fmt.Sprintf(" for %d generators", len(e.Generators))
	case len(e.Generators) > 0:
		line += " for " + strings.Join(e.Generators, ", ")
	}
	if e.Detail != "" {
		line += ": " + e.Detail
	}
	return line
}

var installerStep = regexp.MustCompile(
	`^(Collecting|Downloading|Building|Installing|Successfully|Resolved|Prepared|Installed|Downloaded|Built|\+) `)

func (e Event) isProgress() bool {
	return e.Stage != Reused && (e.Stage != Installing || installerStep.MatchString(e.Detail))
}

// NotBuilt is the Problem of a generator whose environment was not asked for.
const NotBuilt = "its environment has not been made yet"

// Build makes what is missing and returns the new index, which it has written to Dir. A generator whose requirements
// cannot be installed is in it with its Problem; the error is for what concerns all of them, an *generator.UnknownError
// for a name that is none, or ctx's. An interrupted Build leaves nothing that a later one would take for complete.
func (b *Builder) Build(ctx context.Context) (*generator.Index, error) {
	root := cmp.Or(b.Root, generator.DefaultRoot)
	x, err := discover(root, b.Image, b.Names...)
	if err != nil {
		return nil, err
	}
	list := x.Generators
	for name, commit := range b.Commits {
		g, err := x.Find(name)
		if err != nil {
			return nil, fmt.Errorf("commit %s: %w", commit, err)
		}
		g.Commit = commit
	}
	w, err := newWorkshop(ctx, b.Dir, b.Python, b.Progress, b.Events)
	if err != nil {
		return nil, err
	}
	last, _ := generator.LoadIndex(w.dir) // one that cannot be read is made again
	wanted := func(name string) bool { return b.Names == nil || slices.Contains(b.Names, name) }
	var group errgroup.Group
	group.SetLimit(max(b.Parallel, 1))
	for _, members := range environmentsOf(list, root, w) {
		group.Go(func() error {
			e, say, asked := &members.environment, members.say(w), slices.ContainsFunc(members.names(), wanted)
			err := e.pin(ctx, members, asked, w, say)
			if err == nil && asked {
				err = e.ensure(ctx, say, func(line func(string)) error { return e.install(ctx, w, line) })
			}
			problem := ""
			switch {
			case err == nil && !asked: // nothing to do, also when ctx has ended
				if e.id == "" || !e.complete() {
					problem = NotBuilt
				}
			case ctx.Err() != nil:
				return fmt.Errorf("build environments: %w", context.Cause(ctx))
			case err != nil:
				problem = err.Error()
				say(Failed, problem)
			}
			members.set(problem)
			general := errors.Is(err, errNoIndex) || errors.Is(err, errNoUV) || errors.Is(err, errPipConfig)
			if b.Image && general {
				return fmt.Errorf("build environments: %w", err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	asking, ctx := errgroup.WithContext(ctx)
	asking.SetLimit(runtime.NumCPU())
	for i := range list {
		asking.Go(func() error { return list[i].FindFlags(ctx, last, wanted(list[i].Name)) })
	}
	if err := asking.Wait(); err != nil {
		return nil, err
	}
	if err := x.Write(w.dir); err != nil {
		return nil, fmt.Errorf("write the index of generators: %w", err)
	}
	return x, nil
}

// discover finds the generators, for an image but those that download data, and refuses names that none of them has.
func discover(root string, image bool, names ...string) (*generator.Index, error) {
	list, err := generator.Discover(root)
	if err != nil {
		return nil, err
	}
	x := &generator.Index{Generators: slices.DeleteFunc(list,
		func(g generator.Generator) bool { return image && g.Network })}
	for _, name := range names {
		if _, err := x.Find(name); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// workshop is what all environments of a folder are made with.
type workshop struct {
	dir    string // absolute
	python interpreter
	uv     func() (installer, error) // finds it once, or brings it in
	report func(Event)               // one at a time
}

// newWorkshop makes the folder and finds Python. Both functions, of lines and of events, may be nil.
func newWorkshop(ctx context.Context, dir, python string, lines func(string), events func(Event)) (*workshop, error) {
	var mu sync.Mutex
	w := &workshop{report: func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		if events != nil {
			events(e)
		}
		if lines != nil && e.isProgress() {
			lines(e.String())
		}
	}}
	var err error
	if w.dir, err = filepath.Abs(dir); err == nil {
		err = os.MkdirAll(filepath.Join(w.dir, "environments"), 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("make environments: %w", err)
	}
	if w.python, err = findPython(ctx, python, ""); err != nil {
		return nil, err
	}
	w.uv = sync.OnceValues(func() (installer, error) { return newInstaller(ctx, w.dir, w.python, w.report) })
	return w, nil
}

// members are the generators that share an environment.
type members struct {
	environment environment
	generators  []*generator.Generator
}

// say reports a step in the making of their environment.
func (m *members) say(w *workshop) func(Stage, string) {
	return func(stage Stage, detail string) {
		e := m.environment
		w.report(Event{cmp.Or(e.id, "with "+e.lockFile), m.names(), stage, detail})
	}
}

func (m *members) names() (names []string) {
	for _, g := range m.generators {
		names = append(names, g.Name)
	}
	return names
}

func (m *members) set(problem string) {
	for _, g := range m.generators {
		e := m.environment
		g.Environment, g.Lock, g.Version, g.Platform = e.id, e.lock.id(), e.python.Version, runtime.GOOS+"-"+e.python.Machine
		if g.Problem = problem; problem == "" {
			g.Python = e.interpreter()
		}
	}
}

// environmentsOf groups the generators that have no problem yet, in order. Those with one lock share an environment.
func environmentsOf(list []generator.Generator, root string, w *workshop) (groups []*members) {
	for i := range list {
		g := &list[i]
		if g.Problem != "" {
			continue
		}
		e := newEnvironment(root, w, g)
		at := slices.IndexFunc(groups, func(m *members) bool { return m.environment.key() == e.key() })
		if at < 0 {
			groups = append(groups, &members{environment: e})
			at = len(groups) - 1
		}
		groups[at].generators = append(groups[at].generators, g)
	}
	return groups
}

// environment is one Python environment: an interpreter and a requirement set.
type environment struct {
	id           string // once the lock is there
	path         string
	dir          string // where environments are
	python       interpreter
	requirements []string // as the first of its generators writes them
	specifier    string   // which Pythons it is for; "" for all that are new enough
	of           string   // folder of that generator
	file         string   // where it says so
	locks        string   // folder of the locks that are kept
	ownLocks     string   // folder of those that are made for now
	lockFile     string
	lock         lock
}

// layout is part of every id: environments that another version of this code made otherwise are not taken for these.
const layout = "4"

func newEnvironment(root string, w *workshop, g *generator.Generator) environment {
	return environment{dir: filepath.Join(w.dir, "environments"), python: w.python, requirements: g.Requirements,
		specifier: g.Pythons, of: g.Dir, file: filepath.Join(g.Dir, g.RequirementsFile),
		locks: filepath.Join(root, LocksFolder), ownLocks: filepath.Join(w.dir, LocksFolder), lockFile: LockFile(g)}
}

// local is what the requirements take from the generator's folder: with a lock it is what an environment is made from.
func (e environment) local() string {
	local := slices.DeleteFunc(requirements.Normalise(e.requirements, requirements.State),
		func(line string) bool { return !ownFolder(e.of).MatchString(line) })
	return strings.Join(local, "\n")
}

// key tells environments apart before their locks are known.
func (e environment) key() string {
	return strings.Join([]string{e.specifier, e.lockFile, e.local()}, "\n")
}

// pin finds the lock, or makes one if that is wanted: from then on the environment
// has an id, which is that of the lock, the interpreter and the platform.
func (e *environment) pin(ctx context.Context, m *members, wanted bool, w *workshop,
	say func(Stage, string)) (err error) {
	if !wanted && !e.python.is(e.specifier) {
		return nil // which one it is takes uv to find out
	}
	if e.python, err = w.suitable(ctx, e.specifier); err != nil {
		return err
	}
	if len(e.requirements) > 0 {
		if e.lock, err = e.findLock(); err != nil {
			return err
		}
		if e.lock.text == nil {
			if !wanted {
				return nil
			}
			if err := e.lockForNow(ctx, m, w, say); err != nil {
				return err
			}
		}
	}
	e.identify()
	return nil
}

func (e *environment) identify() {
	parts := []string{layout, e.lock.id(), e.python.Version, e.python.Machine, e.python.Prefix, e.local()}
	e.id = fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(parts, "\n"))))[:12]
	e.path = filepath.Join(e.dir, e.id)
}

// lockForNow makes a lock beside the environments. Two processes make the same one.
func (e *environment) lockForNow(ctx context.Context, m *members, w *workshop, say func(Stage, string)) error {
	in, err := w.uv()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(e.ownLocks, 0o755); err != nil {
		return fmt.Errorf("make lock: %w", err)
	}
	f, err := flock(ctx, e.lock.path, func() { say(Waiting, "another process makes its lock") })
	if err != nil {
		return fmt.Errorf("make lock: %w", err)
	}
	defer f.Close()
	if e.lock, err = e.findLock(); err != nil || e.lock.text != nil {
		return err
	}
	say(Locking, "generators/"+LocksFolder+" has no lock for its requirements: they are resolved into "+e.lock.path)
	e.lock, err = e.makeLock(ctx, in, e.lock.path, m.names(), commitTime(ctx, m.generators),
		func(line string) { say(Installing, line) })
	return err
}

func (e environment) interpreter() string { return filepath.Join(e.path, "bin", "python") }

// marker is written last: an environment without it is half-made.
func (e environment) marker() string { return filepath.Join(e.path, "complete") }

// complete reports whether the environment can be used: not one whose interpreter was removed from the machine since.
func (e environment) complete() bool {
	_, err := os.Stat(e.marker())
	_, err2 := os.Stat(e.interpreter())
	return err == nil && err2 == nil
}

// ensure makes the environment unless it is there, with install. A lock keeps two processes from making the same one;
// the system gives it back when its holder is killed. What an interrupted one left is removed first.
func (e environment) ensure(ctx context.Context, say func(Stage, string), install func(line func(string)) error) error {
	if e.complete() { // asks for no lock, so that an index can be built where nothing can be written
		say(Reused, "")
		return nil
	}
	lock, err := flock(ctx, e.path, func() { say(Waiting, "another process makes it") })
	if err != nil {
		return fmt.Errorf("lock environment: %w", err)
	}
	defer lock.Close()
	if e.complete() {
		say(Reused, "")
		return nil
	}
	if err := os.RemoveAll(e.path); err != nil {
		return fmt.Errorf("remove half-made environment: %w", err)
	}
	say(Making, fmt.Sprintf("%d requirements", len(e.requirements)))
	began := time.Now()
	if err = install(func(line string) { say(Installing, line) }); err != nil {
		if left := os.RemoveAll(e.path); left != nil && !errors.Is(left, fs.ErrNotExist) {
			return fmt.Errorf("%w (and its remains in %s could not be removed: %w)", err, e.path, left)
		}
		return err
	}
	if err := os.WriteFile(e.marker(), []byte(strings.Join(e.requirements, "\n")+"\n"), 0o644); err != nil {
		return fmt.Errorf("finish environment: %w", err)
	}
	say(Ready, fmt.Sprintf("made in %.0f s", time.Since(began).Seconds()))
	return nil
}

// lockPoll is how often a waiting process asks for the lock: flock cannot be interrupted by a context.
const lockPoll = 200 * time.Millisecond

// flock takes the lock of a path, which another process may hold. Closing it gives it back.
func flock(ctx context.Context, path string, waiting func()) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for reported := false; ; reported = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if errors.Is(err, syscall.EWOULDBLOCK) {
			if !reported {
				waiting()
			}
			select {
			case <-ctx.Done():
				err = ctx.Err()
			case <-time.After(lockPoll):
				continue
			}
		}
		return nil, errors.Join(err, f.Close())
	}
}
