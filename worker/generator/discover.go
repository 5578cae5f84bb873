// Package generator knows the generators: it finds them, makes the Python
// environments they need, and runs one chunk of one in a sandbox.
package generator

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Generator is one generator, ready to run unless Problem says why not.
type Generator struct {
	Name         string   `json:"name"`
	Dir          string   `json:"dir"`   // absolute
	Entry        string   `json:"entry"` // below Dir, with slashes
	Commit       string   `json:"commit,omitempty"`
	Flags        Flags    `json:"flags"`
	Required     []string `json:"required,omitempty"` // files beyond those that every sample must have
	Videoless    bool     `json:"videoless,omitempty"`
	FilesVary    bool     `json:"files_vary,omitempty"`
	ExtraArgs    []string `json:"extra_args,omitempty"`
	ChunkSize    int      `json:"chunk_size,omitempty"`
	Licence      string   `json:"licence,omitempty"`
	Repository   string   `json:"repository,omitempty"`   // where it was fetched from, as the catalogue writes it
	Requirements []string `json:"requirements,omitempty"` // lines for pip
	Environment  string   `json:"environment,omitempty"`  // id of its environment
	Lock         string   `json:"lock,omitempty"`         // SHA-256 of its requirement set's lock
	Python       string   `json:"python,omitempty"`       // absolute path of its interpreter
	Asked        string   `json:"asked,omitempty"`        // what its flags are known of, if --help told them
	Version      string   `json:"version,omitempty"`      // of that Python
	Platform     string   `json:"platform,omitempty"`     // as in linux-x86_64
	Problem      string   `json:"problem,omitempty"`

	says  Entry  // of the catalogue
	needs string // the file of its requirements

	specifier string          // of Python versions, as in ">=3.11,<3.13"; "" for all that are new enough
	shared    []string        // packages beside it that it may import; absolute
	defined   map[string]bool // flags in the source, where that is not the whole command line
	empty     bool            // its entry has no source: it only stands for one
}

// DefaultEntry is the contract's program, below a generator's folder: every
// generator has it unless the catalogue says otherwise.
const DefaultEntry = "examples/generate.py"

const entry = DefaultEntry

// Catalogue is the file in the generators' folder that says what cannot be found
// out by looking at a generator.
const Catalogue = "catalog.yaml"

// Entry is what the catalogue says of one generator.
type Entry struct {
	Repository   string   `yaml:"repository"` // owner/name on GitHub, a URL, or a path; empty for one that is kept here
	Commit       string   `yaml:"commit"`     // full hash
	Skip         string   `yaml:"skip"`       // why it is neither fetched nor run
	Entry        string   `yaml:"entry"`
	OutputFlag   string   `yaml:"output_flag"`
	Seedless     bool     `yaml:"seedless"`
	Required     []string `yaml:"required"`
	Videoless    bool     `yaml:"videoless"`
	FilesVary    bool     `yaml:"files_vary"`
	ExtraArgs    []string `yaml:"extra_args"`
	ChunkSize    int      `yaml:"chunk_size"`
	Licence      string   `yaml:"licence"`
	Requirements []string `yaml:"requirements"`
	Python       string   `yaml:"python"` // which versions, as requires-python has it; "3.12" for that one
}

// ReadCatalogue reads the catalogue in the generators' folder. A folder without
// one has an empty one.
func ReadCatalogue(root string) (map[string]Entry, error) {
	text, err := os.ReadFile(filepath.Join(root, Catalogue))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return ParseCatalogue(filepath.Join(root, Catalogue), text)
}

// ParseCatalogue reads the text of a catalogue, strictly; errors begin with its
// path.
func ParseCatalogue(path string, text []byte) (map[string]Entry, error) {
	var catalogue map[string]Entry
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&catalogue); err != nil && !errors.Is(err, io.EOF) { // an empty file overrides nothing
		// The decoder's words name a Go type where the reader needs the field.
		said := unknownFieldPattern.ReplaceAllString(err.Error(), "unknown field $1")
		said = goTypePattern.ReplaceAllString(said, "")
		return nil, fmt.Errorf("read %s: %s", path, strings.TrimPrefix(said, "yaml: "))
	}
	for name, e := range catalogue {
		if err := e.check(name); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
	}
	return catalogue, nil
}

var (
	unknownFieldPattern = regexp.MustCompile(`field (\S+) not found in type \S+`)
	goTypePattern       = regexp.MustCompile(` into (map\[string\])?generator\.\w+`)
	longFlagPattern     = regexp.MustCompile(`^--[a-z][a-z0-9-]*$`)
	commitPattern       = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
)

func (o Entry) check(name string) error {
	if err := task.CheckName(name); err != nil {
		return fmt.Errorf("name %w", err)
	}
	if o.Commit != "" && !commitPattern.MatchString(o.Commit) {
		return fmt.Errorf("%s: commit %q must be a full hash of 40 hexadecimal digits", name, o.Commit)
	}
	if o.Commit != "" && o.Repository == "" {
		return fmt.Errorf("%s: a commit without a repository", name)
	}
	for _, arg := range o.ExtraArgs {
		switch flag, _, _ := strings.Cut(arg, "="); flag {
		case "--num-samples", "--seed", "--start-index", cmp.Or(o.OutputFlag, "--output"):
			return fmt.Errorf("%s: extra_args may not set %s, the worker does", name, flag)
		}
	}
	if o.Entry != "" && !filepath.IsLocal(filepath.FromSlash(o.Entry)) {
		return fmt.Errorf("%s: entry %q leaves the generator's folder", name, o.Entry)
	}
	if o.OutputFlag != "" && !longFlagPattern.MatchString(o.OutputFlag) {
		return fmt.Errorf("%s: output_flag %q must be a long flag such as --output", name, o.OutputFlag)
	}
	if o.ChunkSize < 0 || o.ChunkSize > task.MaxSamples {
		return fmt.Errorf("%s: chunk_size is %d, it must be from 1 to %d", name, o.ChunkSize, task.MaxSamples)
	}
	if _, err := pythons(o.Python); err != nil {
		return fmt.Errorf("%s: python %w", name, err)
	}
	for _, file := range o.Required {
		if err := task.CheckFile(file); err != nil {
			return fmt.Errorf("%s: required %w", name, err)
		}
	}
	return nil
}

// Discover finds the generators in a folder: every folder in it that has an
// examples/generate.py. Nothing is registered anywhere; catalog.yaml beside them
// may override what their source tells. They come sorted by name, without an
// environment yet. No Python is run.
func Discover(root string) ([]Generator, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("look for generators: %w", err)
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
		g := Generator{Name: e.Name(), Dir: filepath.Join(root, e.Name()), Entry: entry, Required: o.Required,
			Videoless: o.Videoless,
			FilesVary: o.FilesVary, ExtraArgs: o.ExtraArgs, ChunkSize: o.ChunkSize, Licence: o.Licence, Repository: o.Repository,
			shared: shared}
		if o.Entry != "" {
			g.Entry = o.Entry
		}
		source, err := os.ReadFile(filepath.Join(g.Dir, filepath.FromSlash(g.Entry)))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue // no generator
		}
		unreadable := err
		g.Commit = commitOf(g.Dir, shared)
		if err := task.CheckName(g.Name); err != nil {
			g.Problem = "its name " + err.Error()
		} else if unreadable != nil {
			g.Problem = unreadable.Error()
		} else if g.Requirements, g.needs, err = readNeeds(g.Dir); err != nil {
			g.Problem = err.Error()
		}
		g.Requirements = append(g.Requirements, o.Requirements...)
		if g.Problem == "" {
			if g.specifier, err = readPythons(g.Dir, o.Python); err != nil {
				g.Problem = err.Error()
			}
		}
		g.readFlags(source, o)
		list = append(list, g)
	}
	return list, nil
}

// dirty ends a commit that the files differ from.
const dirty = "-dirty"

// commitOf returns the git commit of a folder: its own clone's, or the last one
// that changed it in the repository it stands in, with "-dirty" when it differs
// from it; in the second case the packages it shares with others count as well.
// So a commit that has nothing to do with a generator does not give it another
// one. It is "" where there is no git, and where git does not know the folder (a
// fetched copy that is ignored has nothing to do with the commit around it).
func commitOf(dir string, shared []string) string {
	git := func(args ...string) (string, error) {
		cmd := exec.Command("git", append([]string{"-C", dir, "--no-optional-locks"}, args...)...)
		for _, v := range os.Environ() {
			// Set inside a git hook, these point at the repository of the hook.
			if !strings.HasPrefix(v, "GIT_DIR=") && !strings.HasPrefix(v, "GIT_WORK_TREE=") &&
				!strings.HasPrefix(v, "GIT_INDEX_FILE=") {
				cmd.Env = append(cmd.Env, v)
			}
		}
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}
	commit, err := git("rev-parse", "--verify", "--quiet", "HEAD")
	if err != nil {
		return ""
	}
	watched := []string{"."}
	if prefix, err := git("rev-parse", "--show-prefix"); err == nil && prefix != "" {
		watched = append(watched, shared...)
		if last, err := git(append([]string{"rev-list", "-1", "HEAD", "--"}, watched...)...); err == nil && last != "" {
			commit = last
		}
	}
	changes, err := git(append([]string{"status", "--porcelain", "--"}, watched...)...)
	if err != nil || changes != "" {
		return commit + dirty
	}
	if _, err := git("rev-parse", "--verify", "--quiet", "HEAD:./"); err != nil {
		return ""
	}
	return commit
}
