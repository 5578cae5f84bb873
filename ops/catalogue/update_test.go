package catalogue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

func TestUpdate(t *testing.T) {
	o, rewritten, broken := newOrigin(t), newOrigin(t), newOrigin(t)
	first := o.commit(map[string]string{program: "1"})
	o.commit(map[string]string{"x": "2"})
	third := o.commit(map[string]string{program: "3"})
	start := rewritten.commit(map[string]string{program: "1", "of": "b"})
	user(t, rewritten.work, "commit", "-q", "--amend", "-m", "another")
	other := rewritten.push()
	whole := broken.commit(map[string]string{program: "1", "of": "c"})
	user(t, broken.work, "mv", program, "moved.py")
	broken.commit(nil)
	root := catalogueOf(t, map[string][2]string{"a": {o.bare, first}, "b": {"file://" + rewritten.bare, start},
		"c": {broken.bare, whole}})
	lock := filepath.Join(root, generator.CatalogueLock)
	before := read(t, lock)
	s := &Syncer{Root: root}
	if _, err := s.Sync(t.Context(), []string{"a", "c"}, nil); err != nil {
		t.Fatal(err)
	}
	s.Update = true
	results, err := s.Sync(t.Context(), []string{"a", "b", "c"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := results[0]; r.State != Moved || r.Before != first || r.Commit != third || r.Commits != 2 {
		t.Errorf("a: %+v", r)
	}
	if r := results[1]; r.State != Moved || r.Before != start || r.Commit != other || r.Commits != -1 {
		t.Errorf("b: %+v", r)
	}
	if r := results[2]; r.State != Failed || r.Commit != whole || !strings.Contains(r.Reason, "it has no "+program) ||
		read(t, filepath.Join(root, "c", program)) != "1" {
		t.Errorf("c: %+v", r)
	}
	if got, want := read(t, lock), strings.NewReplacer(first, third, start, other).Replace(before); got != want {
		t.Errorf("lock\n%s\nwant\n%s", got, want)
	}
	if got := read(t, filepath.Join(root, "a", program)); got != "3" {
		t.Errorf("a is at %q", got)
	}
	if r := synced(t, s, "a"); r.State != There || r.Before != "" {
		t.Errorf("again: %+v", r)
	}
	// The branch has moved away from a pin: its commit is fetched all the same, while
	// the repository has it.
	write(t, lock, before)
	if r := synced(t, &Syncer{Root: root}, "b"); r.State != Moved || r.Commit != start {
		t.Errorf("b again: %+v", r)
	}
}

func TestAdd(t *testing.T) {
	server := t.TempDir()
	for _, name := range []string{"new", "tool", "taken", "vanished"} {
		o := newOrigin(t)
		o.commit(map[string]string{map[bool]string{true: "readme", false: program}[name == "tool"]: name})
		user(t, server, "clone", "-q", "--bare", o.bare, filepath.Join(server, "org", name+".git"))
	}
	if err := os.RemoveAll(filepath.Join(server, "org", "vanished.git")); err != nil {
		t.Fatal(err)
	}
	root := catalogueOf(t, map[string][2]string{"old": {"org/old", oldCommit}})
	write(t, filepath.Join(root, "taken", program), "mine")
	before := read(t, filepath.Join(root, generator.CatalogueLock))
	var add []Repository
	for _, name := range []string{"new", "tool", "taken", "vanished"} {
		add = append(add, Repository{Name: name, FullName: "org/" + name, Licence: "MIT"})
	}
	results, err := (&Syncer{Root: root, Server: "file://" + server}).Sync(t.Context(), nil, add)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		state  State
		reason string
	}{{Added, ""}, {Skipped, "it has no " + program}, {Failed, "there is a folder"},
		{Failed, "not there, or not public"}} {
		if results[i].State != want.state || !strings.Contains(results[i].Reason, want.reason) {
			t.Errorf("got %+v, want %v", results[i], want)
		}
	}
	want := strings.Replace(before, "old ", "new "+results[0].Commit+" org/new MIT\nold ", 1)
	if got := read(t, filepath.Join(root, generator.CatalogueLock)); got != want {
		t.Errorf("lock\n%s\nwant\n%s", got, want)
	}
	if _, err := os.Stat(filepath.Join(root, "tool")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("tool: %v", err)
	}
}

// TestSettings syncs for a user whose git runs hooks and filters and changes line
// ends. None of it may reach the files of a generator.
func TestSettings(t *testing.T) {
	home, ran := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	hook := "#!/bin/sh\ntouch " + ran + "\n"
	for _, dir := range []string{"template/hooks", "hooks"} {
		for _, name := range []string{"post-checkout", "reference-transaction", "post-index-change"} {
			path := filepath.Join(home, dir, name)
			write(t, path, hook)
			if err := os.Chmod(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(t, filepath.Join(home, ".gitconfig"),
		fmt.Sprintf("[core]\n\tautocrlf = true\n\thooksPath = %[1]s/hooks\n\tfsmonitor = %[1]s/hooks/post-checkout\n[init]\n\ttemplateDir = %[1]s/template\n"+
			"[filter \"shout\"]\n\tsmudge = tr a-z A-Z\n\trequired = true\n[submodule]\n\trecurse = true\n[url \"%[2]s\"]\n\tinsteadOf = https://git.example.invalid/\n", home, t.TempDir()+"/"))
	o, sub := newOrigin(t), newOrigin(t)
	sub.commit(map[string]string{"x": ""})
	user(t, o.work, "submodule", "--quiet", "add", sub.bare, "module")
	pointer := "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
	commit := o.commit(map[string]string{program: "a\nb\n",
		".gitattributes": "examples/* filter=shout\n*.bin filter=lfs\n", "x.bin": pointer})
	t.Setenv("HOME", home)
	t.Setenv("GIT_DIR", filepath.Join(home, "elsewhere")) // as inside a hook
	root := catalogueOf(t, map[string][2]string{"a": {o.bare, commit}})
	r := synced(t, &Syncer{Root: root}, "a")
	if r.State != Fetched || strings.Join(r.Notes,
		"; ") != "its submodule module is not fetched; 1 of its files are in Git LFS and are not fetched" {
		t.Errorf("got %+v", r)
	}
	if got := read(t, filepath.Join(root, "a", program)); got != "a\nb\n" {
		t.Errorf("program %q", got)
	}
	if got := read(t, filepath.Join(root, "a", "x.bin")); got != pointer {
		t.Errorf("pointer %q", got)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a hook ran")
	}
	if hooks, _ := filepath.Glob(filepath.Join(root, "a", ".git", "hooks", "*")); len(hooks) > 0 {
		t.Errorf("hooks %v", hooks)
	}
	if r := synced(t, &Syncer{Root: root}, "a"); r.State != There {
		t.Errorf("again: %+v", r)
	}
	t.Setenv("GIT_DIR", "")
	os.Unsetenv("GIT_DIR")
}
