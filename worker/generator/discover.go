// Package generator knows the generators: it finds them, has the index that workers
// read, and runs one chunk of one in a sandbox.
package generator

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/agext/levenshtein"
	"go.yaml.in/yaml/v3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
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

// DefaultRoot is the generators' folder of the repository.
const DefaultRoot = "generators"

// Dirty ends a commit that the files differ from.
const Dirty = "-dirty"

// commitOf returns the git commit of a folder: its own clone's, or the last one that changed it or the packages it
// shares in the repository it stands in, with "-dirty" when it differs. So other commits do not give a generator
// another one. It is "" without git, and where git does not know the folder: a fetched copy that is ignored is not of
// the commit around it.
func commitOf(dir string, shared []string) string {
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

// Files of the generators' folder.
const (
	Catalogue     = "catalog.yaml" // written by hand: what the generators' code does not say
	CatalogueLock = "catalog.lock" // written by ops: the commit of each generator that is fetched
)

// Entry is what the catalogue says about one generator.
type Entry struct {
	Traits       `yaml:",inline"`
	Commit       string   `yaml:"-"`    // full hash, from the lock; "" if it was never fetched
	Skip         string   `yaml:"skip"` // why it is neither fetched nor run
	Requirements []string `yaml:"requirements"`
	Python       string   `yaml:"python"` // ">=3.11,<3.13", where the generator itself does not say it
}

// Traits are what only the catalogue knows of a generator.
type Traits struct {
	Required  []string     `json:"required,omitempty" yaml:"required"` // files beyond those that every sample must have
	Videoless bool         `json:"videoless,omitempty" yaml:"videoless"`
	FilesVary bool         `json:"files_vary,omitempty" yaml:"files_vary"`
	ExtraArgs []string     `json:"extra_args,omitempty" yaml:"extra_args"`
	Options   task.Options `json:"options,omitempty" yaml:"options"` // defaults of its datasets
	ChunkSize int          `json:"chunk_size,omitempty" yaml:"chunk_size"`
	Licence   string       `json:"licence,omitempty" yaml:"licence"`
	Category  string       `json:"category,omitempty" yaml:"category"` // one of Categories
	Domain    string       `json:"domain,omitempty" yaml:"domain"`     // of its samples
	Pool      int          `json:"pool,omitempty" yaml:"pool"`         // puzzles it can make; 0: unknown or endless
	Network   bool         `json:"network,omitempty" yaml:"network"`   // it converts what it downloads: in no image
	Blender   bool         `json:"blender,omitempty" yaml:"blender"`   // it reads its arguments after --
	// owner/name on GitHub, a URL, or a path; "" if it is kept here
	Repository string `json:"repository,omitempty" yaml:"repository"`
}

// Categories are the kinds of abilities that a generator's samples can train or test.
var Categories = []string{"abstraction", "knowledge", "perception", "spatiality", "transformation"}

// OnRequest is why a generator is fetched only if it is named; "" for most.
func (e Entry) OnRequest() string {
	switch {
	case e.Network:
		return "it downloads the data that it converts"
	case e.Blender:
		return "it needs Blender, as the package bpy of a gigabyte, and minutes of CPU for a sample"
	}
	return ""
}

// Pin is one line of the catalogue's lock: the commit at which a generator is fetched.
// Repository and Licence are those of a generator that the catalogue does not have.
type Pin struct{ Commit, Repository, Licence string }

// ReadCatalogue returns the catalogue of the generators' folder, with the commits of
// its lock and the generators that only the lock has. Files that do not exist are empty.
func ReadCatalogue(root string) (map[string]Entry, error) {
	path := filepath.Join(root, Catalogue)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	entries := map[string]Entry{}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&entries); err != nil && !errors.Is(err, io.EOF) { // EOF: an empty file
		// The decoder names a Go type; the reader needs the field.
		reason := unknownFieldPattern.ReplaceAllString(err.Error(), "unknown field $1")
		reason = strings.Replace(reason, "field commit", "field commit (commits are in "+CatalogueLock+")", 1)
		reason = goTypePattern.ReplaceAllString(reason, "")
		return nil, fmt.Errorf("read %s: %s", path, strings.TrimPrefix(reason, "yaml: "))
	}
	for name, e := range entries {
		if err := e.check(name); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
	}
	pins, err := ReadPins(root)
	if err != nil {
		return nil, err
	}
	for name, pin := range pins {
		e, listed := entries[name]
		switch {
		case listed && e.Repository != "":
			e.Commit = pin.Commit
		case pin.Repository != "":
			e.Commit, e.Repository, e.Licence = pin.Commit, pin.Repository, cmp.Or(e.Licence, pin.Licence)
		default:
			continue // its entry was removed, or lost its repository
		}
		entries[name] = e
	}
	return entries, nil
}

// ReadPins reads the catalogue's lock, by generator. A file that does not exist is empty.
func ReadPins(root string) (map[string]Pin, error) {
	path := filepath.Join(root, CatalogueLock)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	pins := map[string]Pin{}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		name := fields[0]
		fields = append(fields[1:], "", "", "")
		if err := task.CheckName(name); err != nil {
			return nil, fmt.Errorf("read %s: line %d: name %w", path, number, err)
		}
		if _, twice := pins[name]; twice || len(fields) > 6 || !commitPattern.MatchString(fields[0]) {
			return nil, fmt.Errorf("read %s: line %d must be a name, once, and a full commit hash: restore the "+
				"file with git, or remove the line and run ops generators sync", path, number)
		}
		pins[name] = Pin{Commit: fields[0], Repository: fields[1], Licence: fields[2]}
	}
	return pins, nil
}

var (
	unknownFieldPattern = regexp.MustCompile(`field (\S+) not found in type \S+`)
	goTypePattern       = regexp.MustCompile(` into (map\[string\])?generator\.\w+`)
	commitPattern       = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
)

func (e Entry) check(name string) error {
	if err := task.CheckName(name); err != nil {
		return fmt.Errorf("name %w", err)
	}
	for _, arg := range e.ExtraArgs {
		switch flag, _, _ := strings.Cut(arg, "="); flag {
		case "--num-samples", "--seed", "--start-index", "--output", "--output-dir":
			return fmt.Errorf("%s: extra_args may not set %s, the worker does", name, flag)
		}
	}
	if err := e.Options.Check(); err != nil {
		return fmt.Errorf("%s: options: %w", name, err)
	}
	if e.Category != "" && !slices.Contains(Categories, e.Category) {
		return fmt.Errorf("%s: category is %q, it must be one of %s", name, e.Category, strings.Join(Categories, ", "))
	}
	if e.Domain != "" && task.CheckName(e.Domain) != nil {
		return fmt.Errorf("%s: domain is %q, it must be what stands before _task in the name of a folder that it writes",
			name, e.Domain)
	}
	if e.Pool < 0 {
		return fmt.Errorf("%s: pool is %d, it must be a number of puzzles", name, e.Pool)
	}
	if e.ChunkSize < 0 || e.ChunkSize > task.MaxSamples {
		return fmt.Errorf("%s: chunk_size is %d, it must be from 1 to %d", name, e.ChunkSize, task.MaxSamples)
	}
	for _, file := range e.Required {
		if err := task.CheckFile(file); err != nil {
			return fmt.Errorf("%s: required %w", name, err)
		}
	}
	return nil
}

// Index is what a worker knows of generators: index.json in its generators path.
type Index struct {
	Generators []Generator `json:"generators"`
}

// IndexFile is the index's name in the folder that LoadIndex is given.
const IndexFile = "index.json"

// UnknownError says that there is no generator of a name, and which is nearest.
type UnknownError struct{ Name, Nearest string }

func (e *UnknownError) Error() string {
	if e.Nearest == "" {
		return fmt.Sprintf("there is no generator %q", e.Name)
	}
	return fmt.Sprintf("there is no generator %q; did you mean %s?", e.Name, e.Nearest)
}

// LoadIndex reads the index in a folder, strictly: one that another version wrote is refused.
func LoadIndex(dir string) (*Index, error) {
	text, err := os.ReadFile(filepath.Join(dir, IndexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no generators are installed in %s: it has no %s", dir, IndexFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read the index of generators: %w", err)
	}
	x, err := ParseIndex(text)
	if err != nil {
		return nil, fmt.Errorf("read the index of generators in %s: %w", dir, err)
	}
	return x, nil
}

// ParseIndex reads an index, strictly.
func ParseIndex(text []byte) (*Index, error) {
	x := &Index{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(x); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	seen := map[string]bool{}
	for _, g := range x.Generators {
		switch {
		case g.Problem == "" && task.CheckName(g.Name) != nil || g.Name == "":
			return nil, fmt.Errorf("%q is no name of a generator", g.Name)
		case seen[g.Name]:
			return nil, fmt.Errorf("%s is in it twice", g.Name)
		case g.Problem == "" && (!filepath.IsAbs(g.Dir) || !filepath.IsAbs(g.Python) || g.Flags.Output == "" ||
			!filepath.IsLocal(filepath.FromSlash(g.Entry))):
			return nil, fmt.Errorf("the entry of %s is incomplete", g.Name)
		}
		seen[g.Name] = true
	}
	return x, nil
}

// Write replaces the index in a folder in one step: a worker may be reading it.
func (x *Index) Write(dir string) error {
	text, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, IndexFile), append(text, '\n'))
}

// Find returns the generator of a name, or an *UnknownError.
func (x *Index) Find(name string) (*Generator, error) {
	var names []string
	for i := range x.Generators {
		if x.Generators[i].Name == name {
			return &x.Generators[i], nil
		}
		names = append(names, x.Generators[i].Name)
	}
	return nil, &UnknownError{Name: name, Nearest: Nearest(name, names)}
}

// Nearest returns the known name that was probably meant: one that begins with name or holds it ("chess" for
// chess-task-data-generator), else the one with the fewest edits from it. It is "" when none is near: half of name
// would have to change. Capitals, hyphens and underscores make no difference.
func Nearest(name string, known []string) string {
	name = folded(name)
	if len(name) >= 3 {
		for _, match := range []func(string, string) bool{strings.HasPrefix, strings.Contains} {
			for _, k := range known {
				if match(folded(k), name) {
					return k
				}
			}
		}
	}
	best, least := "", len(name)/2+1
	for _, k := range known {
		whole := folded(k)
		beginning := whole[:min(len(whole), len(name))] // mase is near maze-task-data-generator
		d := min(levenshtein.Distance(name, whole, nil), levenshtein.Distance(name, beginning, nil)+1)
		if d < least {
			best, least = k, d
		}
	}
	return best
}

func folded(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "-")) }
