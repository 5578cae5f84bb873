// Package catalogue keeps the catalogue of generators: it fetches them at the commits that the catalogue names, moves
// those, and finds the generators of a GitHub organisation.
package catalogue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/journal"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// State says what became of a generator.
type State string

// The states of a generator after a sync.
const (
	There   State = "there"       // it was there at the commit of the catalogue
	Fetched State = "fetched"     // it was not there
	Moved   State = "moved"       // another commit was there
	Added   State = "added"       // it is new in the catalogue, and fetched
	Kept    State = "kept here"   // it has no repository
	Skipped State = "left out"    // the catalogue says so, or it is no generator
	Failed  State = "not fetched" // Reason says why; what was there still is
	Unmet   State = "not reached" // sync was stopped before
)

// Result is what became of one generator.
type Result struct {
	Name       string `json:"name"`
	Repository string `json:"repository,omitempty"`
	State      State  `json:"state"`
	Commit     string `json:"commit,omitempty"` // that is there now, and in the catalogue
	Before     string `json:"before,omitempty"` // that was there, or in the catalogue, if it was another
	// from Before to Commit; -1 if Commit does not descend from it or it cannot be known
	Commits int      `json:"commits,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

func (r Result) failed(err error) Result {
	r.State, r.Reason = Failed, err.Error()
	return r
}

// Syncer fetches generators into their folder.
type Syncer struct {
	Root     string       // the generators' folder
	Server   string       // of repositories that are written as owner/name; default https://github.com
	Update   bool         // move the pins to the newest commit
	Parallel int          // repositories fetched at once; default 8
	Done     func(Result) // is called with each result, one at a time; may be nil

	mu sync.Mutex // for the catalogue, and Done
}

// work is where clones grow before they are renamed to their place. It is no
// generator's folder, and a clone in it counts once it is complete.
const work = ".fetch"

// Sync fetches the generators of these names that are not there at the commit of the catalogue, and adds those that it
// does not have yet. It returns a result for each, also when ctx ends; what has been fetched by then stays. An error is
// about all of them.
func (s *Syncer) Sync(ctx context.Context, names []string, add []Repository) ([]Result, error) {
	root, err := filepath.Abs(s.Root)
	if err != nil {
		return nil, err
	}
	entries, err := generator.ReadCatalogue(root)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, there := entries[name]; !there {
			known := slices.Collect(maps.Keys(entries))
			return nil, &generator.UnknownError{Name: name, Nearest: generator.Nearest(name, known)}
		}
	}
	scratch := filepath.Join(root, work)
	lock, _, err := journal.Open(filepath.Join(scratch, "lock"),
		fmt.Errorf("another sync is at work in %s: wait for it", root))
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	sweep(scratch) // what one that was killed has left
	defer sweep(scratch)
	results := make([]Result, len(names)+len(add))
	var group errgroup.Group
	group.SetLimit(cmp.Or(s.Parallel, 8))
	for i := range results {
		group.Go(func() error {
			var r Result
			if i < len(names) {
				r = s.one(ctx, root, names[i], entries[names[i]])
			} else {
				r = s.add(ctx, root, add[i-len(names)])
			}
			if ctx.Err() != nil && r.State == Failed {
				r.State, r.Reason = Unmet, ""
			}
			results[i] = r
			if s.Done != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.Done(r)
			}
			return nil
		})
	}
	_ = group.Wait()
	if ctx.Err() != nil {
		return results, context.Cause(ctx)
	}
	return results, nil
}

// sweep removes half-made clones. A git that outlived its sync may still write into
// one: what cannot be removed now is removed the next time.
func sweep(scratch string) {
	left, _ := filepath.Glob(filepath.Join(scratch, "*-*"))
	for _, dir := range left {
		_ = os.RemoveAll(dir)
	}
}

// one brings one generator of the catalogue to its commit, or to the newest.
func (s *Syncer) one(ctx context.Context, root, name string, e generator.Entry) Result {
	r := Result{Name: name, Repository: e.Repository, Commit: e.Commit}
	switch {
	case e.Skip != "":
		r.State, r.Reason = Skipped, e.Skip
		return r
	case e.Repository == "":
		r.State = Kept
		return r
	case ctx.Err() != nil:
		r.State = Failed
		return r
	}
	url, err := s.location(root, e.Repository)
	if err != nil {
		return r.failed(err)
	}
	want := e.Commit
	if s.Update || want == "" {
		if want, err = newest(ctx, url); err != nil {
			return r.failed(err)
		}
	}
	dir := filepath.Join(root, name)
	had, err := holds(ctx, dir)
	if err != nil {
		return r.failed(err)
	}
	r.State = There
	if had != want {
		if had != "" {
			if err := replaceable(ctx, dir, had); err != nil {
				return r.failed(err)
			}
		}
		if r.Notes, err = s.place(ctx, root, name, url, want); err != nil {
			return r.failed(err)
		}
		r.State = Fetched
		if had != "" {
			r.State, r.Before = Moved, had
		}
	}
	if want != e.Commit {
		if err := s.pin(root, name, generator.Pin{Commit: want}); err != nil {
			return r.failed(err)
		}
		r.Commit = want
		if r.Before = e.Commit; r.Before != "" {
			r.State = Moved
			r.Commits = between(ctx, filepath.Join(root, work), url, r.Before, want)
		}
	}
	return r
}

// add fetches a repository that the catalogue does not have, and puts it there if it is a generator.
func (s *Syncer) add(ctx context.Context, root string, repository Repository) Result {
	r := Result{Name: repository.Name, Repository: repository.FullName}
	if ctx.Err() != nil {
		return r.failed(ctx.Err())
	}
	if _, err := os.Lstat(filepath.Join(root, r.Name)); err == nil {
		return r.failed(fmt.Errorf("there is a folder %s already: move it away, or put it into the catalogue with its "+
			"repository", filepath.Join(root, r.Name)))
	}
	url, err := s.location(root, r.Repository)
	if err != nil {
		return r.failed(err)
	}
	commit, err := newest(ctx, url)
	if err != nil {
		return r.failed(err)
	}
	r.Notes, err = s.place(ctx, root, r.Name, url, commit)
	if errors.Is(err, errNoProgram) {
		r.State, r.Reason = Skipped, err.Error()
		return r
	}
	if err != nil {
		return r.failed(err)
	}
	r.State, r.Commit = Added, commit
	pin := generator.Pin{Commit: commit, Repository: r.Repository, Licence: repository.Licence}
	if err := s.pin(root, r.Name, pin); err != nil {
		return r.failed(err)
	}
	return r
}

func (s *Syncer) pin(root, name string, pin generator.Pin) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return SetPin(root, name, pin)
}

// place fetches a commit and renames it to its place when it is complete. What was
// there is moved aside before, and removed after.
func (s *Syncer) place(ctx context.Context, root, name, url, commit string) (notes []string, err error) {
	scratch, err := os.MkdirTemp(filepath.Join(root, work), name+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	fresh, dir, aside := filepath.Join(scratch, "new"), filepath.Join(root, name), filepath.Join(scratch, "old")
	if _, err := clone(ctx, fresh, url, commit); err != nil {
		return nil, err
	}
	if notes, err = examine(ctx, fresh); err != nil {
		return nil, fmt.Errorf("commit %.12s: %w", commit, err)
	}
	if err := os.Rename(dir, aside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := os.Rename(fresh, dir); err != nil {
		_ = os.Rename(aside, dir)
		return nil, err
	}
	return notes, nil
}

const lockHead = `# The commit at which each generator is fetched, and the repository and licence of those that are
# not in ` + generator.Catalogue + `. Written by "ops generators sync".
`

// SetPin writes the pin of a generator into the catalogue's lock: one line a generator, sorted by name. A repository
// and a licence that the lock has stay if pin has none. The file is read again first and replaced in one step.
func SetPin(root, name string, pin generator.Pin) error {
	pins, err := generator.ReadPins(root)
	if err != nil {
		return err
	}
	old := pins[name]
	pin.Repository, pin.Licence = cmp.Or(pin.Repository, old.Repository), cmp.Or(pin.Licence, old.Licence)
	pins[name] = pin
	text := lockHead
	for _, name := range slices.Sorted(maps.Keys(pins)) {
		p := pins[name]
		text += strings.TrimRight(fmt.Sprintf("%s %s %s %s", name, p.Commit, p.Repository, p.Licence), " ") + "\n"
	}
	return atomicfile.Write(filepath.Join(root, generator.CatalogueLock), []byte(text))
}
