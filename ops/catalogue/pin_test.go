package catalogue

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

var (
	oldCommit = strings.Repeat("0a", 20)
	newCommit = strings.Repeat("9b", 20)
)

// One line of the lock changes with a pin, and the catalogue does not.
func TestSetPin(t *testing.T) {
	root := t.TempDir()
	const byHand = "# mine\nx: {repository: org/x} # here\n"
	write(t, filepath.Join(root, generator.Catalogue), byHand)
	lock := filepath.Join(root, generator.CatalogueLock)
	for _, step := range []struct {
		name string
		pin  generator.Pin
		want string
	}{
		{"x", generator.Pin{Commit: oldCommit}, "x " + oldCommit + "\n"},
		{"new", generator.Pin{Commit: newCommit, Repository: "org/new", Licence: "MIT"},
			"new " + newCommit + " org/new MIT\nx " + oldCommit + "\n"},
		{"x", generator.Pin{Commit: newCommit}, "new " + newCommit + " org/new MIT\nx " + newCommit + "\n"},
		{"new", generator.Pin{Commit: oldCommit}, "new " + oldCommit + " org/new MIT\nx " + newCommit + "\n"},
	} {
		if err := SetPin(root, step.name, step.pin); err != nil {
			t.Fatal(err)
		}
		if got := read(t, lock); got != lockHead+step.want {
			t.Errorf("got\n%s\nwant\n%s", got, lockHead+step.want)
		}
	}
	if got := read(t, filepath.Join(root, generator.Catalogue)); got != byHand {
		t.Errorf("the catalogue is now\n%s", got)
	}
	entries, err := generator.ReadCatalogue(root)
	if err != nil || entries["x"].Commit != newCommit || entries["new"].Repository != "org/new" ||
		entries["new"].Licence != "MIT" {
		t.Errorf("%+v, %v", entries, err)
	}
	// Without its entry in the catalogue a pin is no generator.
	write(t, filepath.Join(root, generator.Catalogue), "")
	if entries, err := generator.ReadCatalogue(root); err != nil || len(entries) != 1 {
		t.Errorf("%+v, %v", entries, err)
	}
	write(t, lock, "x [\n")
	if err := SetPin(root, "x", generator.Pin{Commit: newCommit}); err == nil || read(t, lock) != "x [\n" {
		t.Errorf("a damaged lock was overwritten: %v", err)
	}
}

// What was pinned is read again, whatever the names, and the lines are sorted.
func TestSetPinAny(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		root, err := os.MkdirTemp("", "pin")
		if err != nil {
			r.Fatal(err)
		}
		defer os.RemoveAll(root)
		want := map[string]generator.Pin{}
		for range rapid.IntRange(1, 12).Draw(r, "pins") {
			name := rapid.StringMatching(`(true|null|no|[0-9]{1,3}|[A-Za-z0-9][A-Za-z0-9._-]{0,6})`).Draw(r, "name")
			pin := generator.Pin{Commit: rapid.StringMatching(`[0-9a-f]{40}`).Draw(r, "commit")}
			if rapid.Bool().Draw(r, "added") {
				pin.Repository = rapid.StringMatching(`[a-z]{1,5}/[a-zA-Z0-9._-]{1,5}`).Draw(r, "repository")
				pin.Licence = rapid.SampledFrom([]string{"", "MIT", "Apache-2.0"}).Draw(r, "licence")
			}
			if err := SetPin(root, name, pin); err != nil {
				r.Fatal(err)
			}
			old := want[name]
			pin.Repository, pin.Licence = cmp.Or(pin.Repository, old.Repository), cmp.Or(pin.Licence, old.Licence)
			want[name] = pin
		}
		got, err := generator.ReadPins(root)
		if err != nil || len(got) != len(want) {
			r.Fatalf("%v, %v", got, err)
		}
		for name, pin := range want {
			if got[name] != pin {
				r.Fatalf("%s: got %v, want %v", name, got[name], pin)
			}
		}
		text, _ := os.ReadFile(filepath.Join(root, generator.CatalogueLock))
		lines := strings.Split(strings.TrimPrefix(string(text), lockHead), "\n")
		if !slices.IsSortedFunc(lines[:len(lines)-1], func(a, b string) int {
			return strings.Compare(strings.Fields(a)[0], strings.Fields(b)[0])
		}) {
			r.Fatalf("%s", text)
		}
	})
}
