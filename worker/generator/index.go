package generator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/agext/levenshtein"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

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
