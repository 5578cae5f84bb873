// Package requirements reads what a generator requires: the packages of its
// requirements.txt or pyproject.toml, and its versions of Python.
package requirements

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
	version "github.com/aquasecurity/go-pep440-version"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// OldestMinor is the oldest Python 3 that generators are run with.
const OldestMinor = 11

// Files in which a generator says what it requires. The first that exists counts.
const (
	File        = "requirements.txt"
	ProjectFile = "pyproject.toml"
)

const maxIncludes = 5

// Read returns what the generator in a folder requires, as lines for pip, and the file that says so.
func Read(dir string) (lines []string, file string, err error) {
	if _, err := os.Stat(filepath.Join(dir, File)); !errors.Is(err, fs.ErrNotExist) {
		lines, err = readRequirements(dir, File, 0)
		return lines, File, err
	}
	lines, err = readProject(dir)
	return lines, ProjectFile, err
}

type project struct {
	BuildSystem *struct{} `toml:"build-system"`
	Project     struct {
		Dependencies   []string `toml:"dependencies"`
		Dynamic        []string `toml:"dynamic"`
		RequiresPython string   `toml:"requires-python"`
	} `toml:"project"`
}

// decodeProject reads a pyproject.toml; nil if there is none.
func decodeProject(dir string) (*project, error) {
	path, err := inside(dir, dir, ProjectFile)
	if err != nil {
		return nil, err
	}
	var is project
	if _, err := toml.DecodeFile(path, &is); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read %s: %w", ProjectFile, err)
	}
	return &is, nil
}

// ReadPythons returns which versions of Python the generator in a folder is for, as
// its requires-python says. Every version from the oldest on is "".
func ReadPythons(dir string) (string, error) {
	is, err := decodeProject(dir)
	if is == nil || err != nil {
		return "", nil // reading its requirements reports that error
	}
	specifier, err := Pythons(is.Project.RequiresPython)
	if err != nil {
		return "", fmt.Errorf("its %s: requires-python %w", ProjectFile, err)
	}
	return specifier, nil
}

// Pythons checks a specifier of Python versions, and returns it, or "" if it allows all that are new enough.
func Pythons(specifier string) (string, error) {
	if LowestMinor(specifier) < 0 {
		return "", fmt.Errorf("%q allows no Python from 3.%d on, or is no version specifier such as >=3.11,<3.13", specifier,
			OldestMinor)
	}
	for minor := OldestMinor; minor < minorLimit; minor++ {
		if !allows(specifier, minor) {
			return specifier, nil
		}
	}
	return "", nil
}

// minorLimit is above every minor version of Python 3.
const minorLimit = 40

// LowestMinor is the first Python 3 that a specifier allows, or -1.
func LowestMinor(specifier string) int {
	for minor := OldestMinor; minor < minorLimit; minor++ {
		if allows(specifier, minor) {
			return minor
		}
	}
	return -1
}

func allows(specifier string, minor int) bool {
	return Allows(specifier, fmt.Sprintf("3.%d.99", minor))
}

// Allows reports whether a specifier, as in ">=3.11,<3.13", allows a version of Python; "" allows every one.
func Allows(specifier, python string) bool {
	if specifier == "" {
		return true
	}
	specifiers, err := version.NewSpecifiers(specifier)
	if err != nil {
		return false
	}
	v, err := version.Parse(python)
	return err == nil && specifiers.Check(v)
}

// readProject returns what a pyproject.toml requires, as its standards have it: a project with a build system is a
// package and is installed itself, and any other is the list of its dependencies.
func readProject(dir string) ([]string, error) {
	is, err := decodeProject(dir)
	if is == nil || err != nil {
		return nil, err
	}
	switch {
	case is.BuildSystem != nil:
		return []string{dir}, nil
	case slices.Contains(is.Project.Dynamic, "dependencies"):
		return nil, fmt.Errorf("its %s computes its dependencies and has no [build-system] to do so: list them in "+
			"requirements.txt", ProjectFile)
	}
	for i, line := range is.Project.Dependencies {
		if is.Project.Dependencies[i], err = localPackage(dir, strings.Join(strings.Fields(line), " ")); err != nil {
			return nil, err
		}
	}
	return is.Project.Dependencies, nil
}

// readRequirements returns the lines of a requirements file for pip, as they are written but for two things: the lines
// of included files stand in their place, and paths are absolute. Files, constraints, link folders and local packages
// must lie in the generator's folder. A missing file at depth 0 is an empty one.
func readRequirements(dir, name string, depth int) ([]string, error) {
	if depth > maxIncludes {
		return nil, fmt.Errorf("requirements files include each other more than %d deep", maxIncludes)
	}
	path, err := inside(dir, dir, name)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && depth == 0 {
		return nil, nil
	}
	if err == nil {
		text, _, err = transform.Bytes(unicode.BOMOverride(transform.Nop), text)
	}
	if err != nil {
		return nil, fmt.Errorf("read requirements: %w", err)
	}
	var lines []string
	for _, line := range logicalLines(string(text)) {
		if !utf8.ValidString(line) || strings.ContainsRune(line, 0) {
			return nil, fmt.Errorf("%s is not text in UTF-8, or in UTF-16 with a byte order mark", path)
		}
		option, value := CutOption(line)
		beside := filepath.Dir(path) // pip takes these two from where the file is, local packages from where it runs
		more := []string{line}
		switch option {
		case "-r", "--requirement":
			if value, err = inside(dir, beside, value); err == nil {
				more, err = readRequirements(dir, value, depth+1)
			}
		case "-c", "--constraint":
			value, err = inside(dir, beside, value)
			more[0] = "-c " + value
		case "-f", "--find-links":
			if isURL(value) {
				err = localURL(dir, value)
			} else {
				value, err = inside(dir, beside, value)
				more[0] = "-f " + value
			}
		case "-e", "--editable":
			if !isURL(value) && !filepath.IsAbs(value) && !strings.HasPrefix(value, ".") {
				value = "./" + value // only a path or a URL can be edited
			}
			value, err = localPackage(dir, value)
			more[0] = "-e " + value
		case "":
			more[0], err = localPackage(dir, line)
		}
		if err != nil {
			return nil, err
		}
		lines = append(lines, more...)
	}
	return lines, nil
}

var commentPattern = regexp.MustCompile(`(^|\s)#.*$`)

func logicalLines(text string) []string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	var lines []string
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		if line = strings.TrimSpace(commentPattern.ReplaceAllString(strings.TrimRight(line, "\r\n"), "")); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// CutOption splits "-r file", "-rfile", "--requirement=file" and the like. The option is "" for a requirement.
func CutOption(line string) (option, value string) {
	if !strings.HasPrefix(line, "-") {
		return "", line
	}
	end := strings.IndexAny(line, " \t=")
	if !strings.HasPrefix(line, "--") && len(line) > 2 {
		end = 2
	}
	if end < 0 {
		return line, ""
	}
	return line[:end], strings.Trim(line[end:], " \t=")
}

func isURL(s string) bool { return strings.Contains(s, "://") || fileURLPattern.MatchString(s) }

// localPackage makes the path of a requirement absolute, if it is one: ./x, x/y, x.whl, also with extras or a marker.
func localPackage(dir, requirement string) (string, error) {
	if isURL(requirement) {
		return requirement, localURL(dir, requirement)
	}
	end := len(requirement)
	if i := strings.IndexAny(requirement, ";["); i >= 0 {
		end = i
	}
	path := strings.TrimSpace(requirement[:end])
	isPath := strings.HasPrefix(path, ".") || strings.Contains(path, "/") || strings.HasSuffix(path, ".whl") ||
		strings.HasSuffix(path, ".tar.gz") || strings.HasSuffix(path, ".zip")
	if !isPath || strings.Contains(path, "@") {
		return requirement, nil
	}
	absolute, err := inside(dir, dir, path)
	return absolute + requirement[end:], err
}

var fileURLPattern = regexp.MustCompile(`\bfile:\S+`)

// localURL refuses file URLs, alone or in "name @ file:...", that do not point into the generator's folder.
func localURL(dir, requirement string) error {
	found := fileURLPattern.FindString(requirement)
	if found == "" {
		return nil
	}
	u, err := url.Parse(found)
	if err != nil || u.Opaque != "" || u.Host != "" && u.Host != "localhost" {
		return fmt.Errorf("requirement %q is not a URL of an absolute path", requirement)
	}
	_, err = inside(dir, dir, u.Path)
	return err
}

// inside returns the absolute path of what a requirements file names, which
// must be in the generator's folder, by name and after its links.
func inside(dir, from, name string) (string, error) {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(from, path)
	}
	path = filepath.Clean(path)
	check := func(root, path string) bool {
		rel, err := filepath.Rel(root, path)
		return err == nil && filepath.IsLocal(rel)
	}
	ok := check(dir, path)
	if resolved, err := filepath.EvalSymlinks(path); ok && err == nil {
		root, err := filepath.EvalSymlinks(dir)
		ok = err == nil && check(root, resolved)
	}
	if !ok {
		return "", fmt.Errorf("its requirements name %q, which is outside of the generator's folder", name)
	}
	return path, nil
}

// PlainName is the name that a requirement begins with, as all its spellings are written; "" for an option.
func PlainName(requirement string) string {
	return strings.ToLower(separatorPattern.ReplaceAllString(namePattern.FindString(requirement), "-"))
}

var separatorPattern = regexp.MustCompile(`[-_.]+`)

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*`)

// Normalise writes the same requirements in the same way, whatever their order and spacing and the spelling of names,
// so that generators share environments. What a line reads from the disk is part of it, as State has it.
func Normalise(lines []string, state func(path string) string) (list []string) {
	for _, line := range lines {
		option, value := CutOption(line)
		switch {
		case option == "" && !isURL(line) && !filepath.IsAbs(line):
			what, marker, marked := strings.Cut(line, ";")
			hashes := ""
			if i := strings.Index(what, " --"); i >= 0 {
				what, hashes = what[:i], " "+strings.Join(strings.Fields(what[i:]), " ")
			}
			what = strings.Join(strings.Fields(what), "")
			name := namePattern.FindString(what)
			what = PlainName(name) + what[len(name):] + hashes
			if marked {
				what += "; " + strings.Join(strings.Fields(marker), " ")
			}
			line = what
		case option == "-e" || option == "-c" || option == "-f" || filepath.IsAbs(line):
			path, _, _ := strings.Cut(value, "[")
			line = strings.Join(strings.Fields(line), " ") + " " + state(path)
		default:
			line = strings.Join(strings.Fields(line), " ")
		}
		list = append(list, line)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// State is a hash of what is in a file or folder. What Python builds beside a package is not counted.
func State(path string) string {
	h := sha256.New()
	_ = filepath.WalkDir(path, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if name := e.Name(); e.IsDir() && (name == ".git" || name == "__pycache__" || name == "build" ||
			strings.HasSuffix(name, ".egg-info")) {
			return fs.SkipDir
		}
		if !e.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(file)
		rel, _ := filepath.Rel(path, file)
		fmt.Fprintf(h, "%q %v %x\n", rel, err, sha256.Sum256(text))
		return nil
	})
	return fmt.Sprintf("%x", h.Sum(nil)[:6])
}
