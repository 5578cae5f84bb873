package contract

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

//go:embed watch.py
var watcher []byte

// watchFolder is where the watcher lies in a run's scratch folder.
const watchFolder = "watch"

// watch puts the watcher into a scratch folder, and returns the variable that makes Python import it.
func watch(scratch string) (variable string, err error) {
	dir := filepath.Join(scratch, watchFolder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return "PYTHONPATH=" + dir + string(os.PathListSeparator) + filepath.Join(scratch, "work"),
		os.WriteFile(filepath.Join(dir, "sitecustomize.py"), watcher, 0o600)
}

// Seen is what a generator was seen to ask of the system.
type Seen struct {
	Network     []string `json:"network,omitempty"`       // hosts that it asked for
	Shared      []string `json:"shared_memory,omitempty"` // what of it that needs /dev/shm
	Outside     []string `json:"outside,omitempty"`       // files that it wanted to write and may not
	SystemFonts []string `json:"system_fonts,omitempty"`  // of the machine: an image may have others
	OwnFonts    []string `json:"own_fonts,omitempty"`     // that it or its packages bring
	MissedFonts []string `json:"missed_fonts,omitempty"`  // that it looked for in vain
	Programs    []string `json:"programs,omitempty"`      // that it ran
}

// mostSeen is how much of what the watcher wrote is read: some thousand lines each of a hundred processes.
const mostSeen = 64 << 20

// readSeen reads what the watcher wrote in a scratch folder. The error is fs.ErrNotExist when it was not even started.
func readSeen(scratch string, g *generator.Generator) (Seen, error) {
	text, err := generator.ReadLeft(scratch, watchFolder+"/seen", mostSeen)
	if err != nil {
		return Seen{}, err
	}
	sets := map[string]map[string]bool{}
	for line := range bytes.Lines(text) {
		var pair [2]string
		if json.Unmarshal(line, &pair) != nil {
			continue // two processes wrote at once
		}
		if what, name := pair[0], pair[1]; what != "" {
			if what == "font" && own(name, scratch, g) {
				what = "own font"
			}
			if sets[what] == nil {
				sets[what] = map[string]bool{}
			}
			sets[what][name] = true
		}
	}
	list := func(what string) []string { return slices.Sorted(maps.Keys(sets[what])) }
	return Seen{Network: list("network"), Shared: list("shared memory"), Outside: list("write"), SystemFonts: list("font"),
		OwnFonts: list("own font"), MissedFonts: list("no font"), Programs: list("program")}, nil
}

// own reports whether a file is the generator's, its environment's or made by the run.
func own(name, scratch string, g *generator.Generator) bool {
	for _, dir := range []string{scratch, g.Dir, filepath.Dir(filepath.Dir(g.Python))} {
		if resolved, err := filepath.EvalSymlinks(dir); err == nil &&
			strings.HasPrefix(name, resolved+string(filepath.Separator)) {
			return true
		}
	}
	return false
}

// strays names and counts the files that a run has left in a folder of its own, beside the links of its beginning.
func strays(dir string) (text string, count int) {
	var names []string
	_ = filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil //nolint:nilerr // what cannot be read was not left for us
		}
		if count++; count <= few {
			name, _ := filepath.Rel(dir, file)
			names = append(names, filepath.ToSlash(name))
		}
		return nil
	})
	text = strings.Join(names, ", ")
	if more := count - few; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text, count
}
