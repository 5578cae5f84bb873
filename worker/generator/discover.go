// Package generator knows the generators: it finds them, makes the Python
// environments they need, and runs one chunk of one in a sandbox.
package generator

import (
	"bytes"
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

// Flags are what a generator's command line understands beside --num-samples.
type Flags struct {
	Output     string `json:"output"` // --output or --output-dir
	Seed       bool   `json:"seed"`
	StartIndex bool   `json:"start_index,omitempty"`
	NoVideo    string `json:"no_video,omitempty"`
}

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
	Requirements []string `json:"requirements,omitempty"` // lines for pip
	Environment  string   `json:"environment,omitempty"`  // id of its environment
	Python       string   `json:"python,omitempty"`       // absolute path of its interpreter
	Problem      string   `json:"problem,omitempty"`
}

// entry is the contract's command: every generator has it unless the catalogue
// says otherwise.
const entry = "examples/generate.py"

// Catalogue is the file in the generators' folder that says what cannot be found
// out by looking at a generator.
const Catalogue = "catalog.yaml"

type override struct {
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
}

func readCatalogue(root string) (map[string]override, error) {
	text, err := os.ReadFile(filepath.Join(root, Catalogue))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var catalogue map[string]override
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&catalogue); err != nil && !errors.Is(err, io.EOF) { // an empty file overrides nothing
		// The decoder's words name a Go type where the reader needs the field.
		said := unknownFieldPattern.ReplaceAllString(err.Error(), "unknown field $1")
		said = goTypePattern.ReplaceAllString(said, "")
		return nil, fmt.Errorf("read %s: %s", filepath.Join(root, Catalogue), strings.TrimPrefix(said, "yaml: "))
	}
	for name, o := range catalogue {
		if err := o.check(name); err != nil {
			return nil, fmt.Errorf("read %s: %w", filepath.Join(root, Catalogue), err)
		}
	}
	return catalogue, nil
}

var (
	unknownFieldPattern = regexp.MustCompile(`field (\S+) not found in type \S+`)
	goTypePattern       = regexp.MustCompile(` into (map\[string\])?generator\.\w+`)
	longFlagPattern     = regexp.MustCompile(`^--[a-z][a-z0-9-]*$`)
)

func (o override) check(name string) error {
	if err := task.CheckName(name); err != nil {
		return fmt.Errorf("name %w", err)
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
	catalogue, err := readCatalogue(root)
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
		g := Generator{Name: e.Name(), Dir: filepath.Join(root, e.Name()), Entry: entry, Required: o.Required, Videoless: o.Videoless,
			FilesVary: o.FilesVary, ExtraArgs: o.ExtraArgs, ChunkSize: o.ChunkSize, Licence: o.Licence}
		if o.Entry != "" {
			g.Entry = o.Entry
		}
		source, err := os.ReadFile(filepath.Join(g.Dir, filepath.FromSlash(g.Entry)))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue // no generator
		}
		unreadable := err
		g.Flags = flagsOf(source)
		if o.OutputFlag != "" {
			g.Flags.Output = o.OutputFlag
		}
		g.Flags.Seed = g.Flags.Seed && !o.Seedless
		g.Commit = commitOf(g.Dir, shared)
		if err := task.CheckName(g.Name); err != nil {
			g.Problem = "its name " + err.Error()
		} else if unreadable != nil {
			g.Problem = unreadable.Error()
		} else if g.Requirements, err = readRequirements(g.Dir, requirementsFile, 0); err != nil {
			g.Problem = err.Error()
		}
		g.Requirements = append(g.Requirements, o.Requirements...)
		list = append(list, g)
	}
	return list, nil
}

var (
	argumentPattern = regexp.MustCompile(`add_argument\(\s*((?:["'][^"'\n]*["']\s*,?\s*)+)`)
	flagPattern     = regexp.MustCompile(`["'](--[a-z][a-z0-9-]*)["']`)
)

// flagsOf reads the flags from the source of the entry point: the names that
// stand first in its calls of add_argument, not those its help text mentions.
// Where the source does not define the command line itself, the contract's is
// assumed.
func flagsOf(source []byte) Flags {
	has := map[string]bool{}
	for _, call := range argumentPattern.FindAllSubmatch(source, -1) {
		for _, flag := range flagPattern.FindAllSubmatch(call[1], -1) {
			has[string(flag[1])] = true
		}
	}
	if !has["--num-samples"] {
		return Flags{Output: "--output", Seed: true}
	}
	f := Flags{Output: "--output", Seed: has["--seed"], StartIndex: has["--start-index"]}
	if !has["--output"] && has["--output-dir"] {
		f.Output = "--output-dir"
	}
	for _, name := range []string{"--no-videos", "--no-video"} {
		if has[name] {
			f.NoVideo = name
			break
		}
	}
	return f
}

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
			if !strings.HasPrefix(v, "GIT_DIR=") && !strings.HasPrefix(v, "GIT_WORK_TREE=") && !strings.HasPrefix(v, "GIT_INDEX_FILE=") {
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
		return commit + "-dirty"
	}
	if _, err := git("rev-parse", "--verify", "--quiet", "HEAD:./"); err != nil {
		return ""
	}
	return commit
}
