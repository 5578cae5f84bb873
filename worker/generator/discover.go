// Package generator knows the generators: it finds them, has the index that workers
// read, and runs one chunk of one in a sandbox.
package generator

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/requirements"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Generator is one generator, ready to run unless Problem says why not.
type Generator struct {
	Name   string `json:"name"`
	Dir    string `json:"dir"`   // absolute
	Entry  string `json:"entry"` // below Dir, with slashes
	Commit string `json:"commit,omitempty"`
	Flags  Flags  `json:"flags"`
	Traits
	Requirements []string `json:"requirements,omitempty"` // lines for pip
	Environment  string   `json:"environment,omitempty"`  // id of its environment
	Lock         string   `json:"lock,omitempty"`         // SHA-256 of its requirement set's lock
	Python       string   `json:"python,omitempty"`       // absolute path of its interpreter
	HelpKey      string   `json:"asked,omitempty"`        // hash of what the answer of --help depends on
	Version      string   `json:"version,omitempty"`      // of that Python
	Platform     string   `json:"platform,omitempty"`     // as in linux-x86_64
	Problem      string   `json:"problem,omitempty"`
	Reason       Reason   `json:"reason,omitempty"` // of the Problem

	RequirementsFile string `json:"-"` // below Dir: where its requirements are written
	Pythons          string `json:"-"` // that it is for, as in ">=3.11,<3.13"; "" for all that are new enough

	shared []string // packages beside it that it may import; absolute
	empty  bool     // its program has no source: it stands for one, in an image that is being built
}

// DefaultEntry is the contract's program, below a generator's folder: every generator has it.
const DefaultEntry = "examples/generate.py"

// Discover finds the generators in a folder: every folder in it that has an examples/generate.py. Nothing has to be
// registered; the catalogue beside them may add to what their folders say. They are sorted by name, have no environment
// yet and the contract's flags. No Python is run.
func Discover(root string) ([]Generator, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("find generators: %w", err)
	}
	catalogue, err := ReadCatalogue(root)
	if err != nil {
		return nil, err
	}
	var shared []string // packages that generators import from beside them
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(root, e.Name(), "__init__.py")); err == nil {
			shared = append(shared, filepath.Join(root, e.Name()))
		}
	}
	var list []Generator
	for _, e := range entries {
		o := catalogue[e.Name()]
		if o.Skip != "" {
			continue
		}
		g := Generator{Name: e.Name(), Dir: filepath.Join(root, e.Name()), Entry: DefaultEntry, Flags: contractFlags,
			Traits: o.Traits, shared: shared}
		info, err := os.Stat(filepath.Join(g.Dir, filepath.FromSlash(g.Entry)))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue // no generator
		}
		unreadable := err
		g.empty = err == nil && info.Size() == 0
		g.Commit = commitOf(g.Dir, shared)
		if err := task.CheckName(g.Name); err != nil {
			g.Problem = "its name " + err.Error()
		} else if unreadable != nil {
			g.Problem = unreadable.Error()
		} else if g.Requirements, g.RequirementsFile, err = requirements.Read(g.Dir); err != nil {
			g.Problem = err.Error()
		}
		g.Requirements = append(g.Requirements, o.Requirements...)
		if g.Problem == "" {
			if g.Pythons, err = requirements.ReadPythons(g.Dir); err != nil {
				g.Problem = err.Error()
			}
			if g.Pythons == "" && o.Python != "" {
				if g.Pythons, err = requirements.Pythons(o.Python); err != nil {
					g.Problem = "its python in the catalogue: " + err.Error()
				}
			}
		}
		list = append(list, g)
	}
	return list, nil
}

// inRepository reports whether a folder, or one that it is in, is a clone.
func inRepository(dir string) bool {
	at, err := filepath.EvalSymlinks(dir)
	if err == nil {
		at, err = filepath.Abs(at)
	}
	for ; err == nil; at = filepath.Dir(at) {
		if _, err := os.Lstat(filepath.Join(at, ".git")); err == nil {
			return true
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	return false
}

// DefaultRoot is the generators' folder of the repository.
const DefaultRoot = "generators"

// Dirty ends a commit that the files differ from.
const Dirty = "-dirty"

// commitOf returns the git commit of a folder: its own clone's, or the last one that changed it or the packages it
// shares in the repository it stands in, with "-dirty" when it differs. So other commits do not give a generator
// another one. It is "" without git, and where git does not know the folder: a fetched copy that is ignored is not of
// the commit around it.
func commitOf(dir string, shared []string) string {
	if !inRepository(dir) { // a start of git takes 5 ms
		return ""
	}
	git := func(args ...string) (string, error) {
		cmd := exec.Command("git", append([]string{"-C", dir, "--no-optional-locks"}, args...)...)
		cmd.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
			name, _, _ := strings.Cut(variable, "=") // set inside a git hook, these point at the repository of the hook
			return slices.Contains([]string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}, name)
		})
		out, err := cmd.Output()
		return strings.TrimSuffix(string(out), "\n"), err
	}
	// A line each, up to what there is not.
	out, err := git("rev-parse", "--show-prefix", "HEAD", "HEAD:./", "--")
	prefix, revisions, _ := strings.Cut(out, "\n")
	commit, _, _ := strings.Cut(revisions, "\n")
	if commit == "" { // no repository, or one without commits
		return ""
	}
	ignored := err != nil // or new, which git status tells
	watched := []string{"."}
	if prefix != "" {
		watched = append(watched, shared...)
		if last, err := git(append([]string{"rev-list", "-1", "HEAD", "--"}, watched...)...); err == nil && last != "" {
			commit = last
		}
	}
	changes, err := git(append([]string{"status", "--porcelain", "--"}, watched...)...)
	switch {
	case err != nil || changes != "":
		return commit + Dirty
	case ignored:
		return ""
	}
	return commit
}
