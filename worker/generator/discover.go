// Package generator knows the generators: it finds them, makes the Python
// environments they need, and runs one chunk of one in a sandbox.
package generator

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

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
	if err := d.Decode(&catalogue); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(root, Catalogue), err)
	}
	for name, o := range catalogue {
		if err := task.CheckName(name); err != nil {
			return nil, fmt.Errorf("read %s: name %w", filepath.Join(root, Catalogue), err)
		}
		if o.Entry != "" && !filepath.IsLocal(o.Entry) {
			return nil, fmt.Errorf("read %s: %s: entry %s leaves the generator's folder", filepath.Join(root, Catalogue), name, o.Entry)
		}
		if o.ChunkSize < 0 || o.ChunkSize > task.MaxSamples {
			return nil, fmt.Errorf("read %s: %s: chunk_size must be from 1 to %d", filepath.Join(root, Catalogue), name, task.MaxSamples)
		}
	}
	return catalogue, nil
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
	var list []Generator
	for _, e := range entries {
		o := catalogue[e.Name()]
		g := Generator{Name: e.Name(), Dir: filepath.Join(root, e.Name()), Entry: entry, Required: o.Required, Videoless: o.Videoless,
			FilesVary: o.FilesVary, ExtraArgs: o.ExtraArgs, ChunkSize: o.ChunkSize, Licence: o.Licence}
		if o.Entry != "" {
			g.Entry = o.Entry
		}
		source, err := os.ReadFile(filepath.Join(g.Dir, filepath.FromSlash(g.Entry)))
		if err != nil {
			continue // no generator
		}
		g.Flags = flagsOf(source)
		if o.OutputFlag != "" {
			g.Flags.Output = o.OutputFlag
		}
		g.Flags.Seed = g.Flags.Seed && !o.Seedless
		g.Commit = commitOf(g.Dir)
		if err := task.CheckName(g.Name); err != nil {
			g.Problem = "its name " + err.Error()
		} else if g.Requirements, err = readRequirements(g.Dir, "requirements.txt", 0); err != nil {
			g.Problem = err.Error()
		}
		g.Requirements = append(g.Requirements, o.Requirements...)
		list = append(list, g)
	}
	return list, nil
}

var flagPattern = regexp.MustCompile(`["'](--[a-z][a-z0-9-]*)["']`)

// flagsOf reads the flags from the source of the entry point. Where the source
// does not define the command line itself, the contract's is assumed.
func flagsOf(source []byte) Flags {
	has := map[string]bool{}
	for _, m := range flagPattern.FindAllSubmatch(source, -1) {
		has[string(m[1])] = true
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

// readRequirements returns the lines of a requirements file for pip, those of
// the files it includes in their place. Included files must lie in the folder.
func readRequirements(dir, name string, depth int) ([]string, error) {
	if !filepath.IsLocal(name) || depth > 5 {
		return nil, fmt.Errorf("requirements file %s leaves the generator's folder", name)
	}
	text, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) && depth == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		if i := strings.Index(line, " #"); i >= 0 {
			line = line[:i]
		}
		line = strings.Join(strings.Fields(line), " ")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if included, ok := cutAny(line, "-r ", "--requirement "); ok {
			more, err := readRequirements(dir, filepath.Join(filepath.Dir(name), included), depth+1)
			if err != nil {
				return nil, err
			}
			lines = append(lines, more...)
			continue
		}
		if target, ok := cutAny(line, "-e ", "--editable "); ok || strings.HasPrefix(line, ".") || strings.HasPrefix(line, "/") || strings.HasPrefix(line, "file:") {
			if !ok {
				target = line
			}
			if !filepath.IsLocal(target) {
				return nil, fmt.Errorf("requirement %q leaves the generator's folder", line)
			}
			line = filepath.Join(dir, target)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return slices.Compact(lines), nil
}

func cutAny(line string, prefixes ...string) (string, bool) {
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(line, p); ok {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

// commitOf returns the git commit of a folder, with "-dirty" when it differs
// from it, or "" where there is no git.
func commitOf(dir string) string {
	head, err := exec.Command("git", "-C", dir, "rev-parse", "HEAD").Output()
	if err != nil {
		return ""
	}
	commit := strings.TrimSpace(string(head))
	changes, err := exec.Command("git", "-C", dir, "status", "--porcelain", "--", ".").Output()
	if err != nil || len(bytes.TrimSpace(changes)) > 0 {
		commit += "-dirty"
	}
	return commit
}
