package generator

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

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

// Traits are what the catalogue says of a generator; repository and licence may come from CatalogueLock. A worker puts
// its task's options in the place of these, ops adds those of the command line.
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
