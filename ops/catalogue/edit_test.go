package catalogue

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

var (
	oldCommit = strings.Repeat("0a", 20)
	newCommit = strings.Repeat("9b", 20)
)

func TestPin(t *testing.T) {
	for _, test := range []struct{ name, before, after string }{
		{"commit in place", `# All of them
b: # the first
  repository: org/b
  commit: OLD # of May

  licence: MIT

# between
a: &common
  licence: MIT # not a commit
x:
  repository: org/x
  commit: OLD
`, `# All of them
b: # the first
  repository: org/b
  commit: OLD # of May

  licence: MIT

# between
a: &common
  licence: MIT # not a commit
x:
  repository: org/x
  commit: NEW
`},
		{"quoted", "x: {repository: 'org/ü', \"commit\": \"OLD\"}\n", "x: {repository: 'org/ü', \"commit\": NEW}\n"},
		{"flow behind other characters", "x: {licence: 'ääää', commit: OLD, repository: org/x}",
			"x: {licence: 'ääää', commit: NEW, repository: org/x}"},
		{"not yet, block", "x:\n    repository: org/x # here\n    licence: MIT\n",
			"x:\n    repository: org/x # here\n    commit: NEW\n    licence: MIT\n"},
		{"not yet, block, at the end", "x:\n  repository: org/x", "x:\n  repository: org/x\n  commit: NEW\n"},
		{"not yet, flow", "x: {repository: org/x, chunk_size: 100} # small\n",
			"x: {repository: org/x, commit: NEW, chunk_size: 100} # small\n"},
		{"merged", "a: &a {licence: MIT}\nx:\n  <<: *a\n  repository: org/x\n  commit: OLD\n",
			"a: &a {licence: MIT}\nx:\n  <<: *a\n  repository: org/x\n  commit: NEW\n"},
		{"Windows' line ends", "x:\r\n  repository: org/x\r\n  commit: OLD\r\n",
			"x:\r\n  repository: org/x\r\n  commit: NEW\r\n"},
		{"added", "# Ours\na: {licence: MIT}",
			"# Ours\na: {licence: MIT}\nx:\n  repository: org/new\n  commit: NEW\n  licence: MIT\n"},
		{"added to nothing", "", "x:\n  repository: org/new\n  commit: NEW\n  licence: MIT\n"},
		{"added to a comment", "# nothing yet\n",
			"# nothing yet\nx:\n  repository: org/new\n  commit: NEW\n  licence: MIT\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			commits := strings.NewReplacer("OLD", oldCommit, "NEW", newCommit)
			path := filepath.Join(root, generator.Catalogue)
			if err := os.WriteFile(path, []byte(commits.Replace(test.before)), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := Pin(root, "x", generator.Entry{Repository: "org/new", Commit: newCommit, Licence: "MIT"}); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if want := commits.Replace(test.after); err != nil || string(got) != want {
				t.Errorf("got %v\n%s\nwant\n%s", err, got, want)
			}
		})
	}
}

func TestPinRefuses(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"alias", "a: &a {repository: org/a}\nx: *a\n", "its entry is that of another"},
		{"merged repository", "a: &a {repository: org/a}\nx: {<<: *a}\n", "no repository of its own"},
		{"folded", "x:\n  repository: org/x\n  commit: >-\n    " + oldCommit + "\n", "cannot be edited"},
		{"one flow mapping", "{a: {}}\n", "cannot be edited"},
		{"broken", "x: [\n", "read "},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, generator.Catalogue)
			if err := os.WriteFile(path, []byte(test.text), 0o644); err != nil {
				t.Fatal(err)
			}
			err := Pin(root, "x", generator.Entry{Repository: "org/x", Commit: newCommit})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want ...%s...", err, test.want)
			}
			if got, _ := os.ReadFile(path); string(got) != test.text {
				t.Errorf("the file has changed: %s", got)
			}
		})
	}
}

// TestPinAny adds and moves pins of any names: the catalogue then says what was
// asked, and every line that was there still is.
func TestPinAny(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		root, err := os.MkdirTemp("", "pin")
		if err != nil {
			r.Fatal(err)
		}
		defer os.RemoveAll(root)
		path := filepath.Join(root, generator.Catalogue)
		want := map[string]string{}
		lines := []string{"# ours", ""}
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
			r.Fatal(err)
		}
		for range rapid.IntRange(1, 12).Draw(r, "pins") {
			name := rapid.StringMatching(`(true|null|no|[0-9]{1,3}|[A-Za-z0-9][A-Za-z0-9._-]{0,6})`).Draw(r, "name")
			commit := rapid.StringMatching(`[0-9a-f]{40}`).Draw(r, "commit")
			if err := Pin(root, name,
				generator.Entry{Repository: rapid.SampledFrom([]string{"org/a", "./with: colon", "# no"}).Draw(r, "repository"),
					Commit: commit}); err != nil {
				r.Fatal(err)
			}
			want[name] = commit
		}
		got, err := generator.ReadCatalogue(root)
		if err != nil || len(got) != len(want) {
			r.Fatalf("%v, %v", got, err)
		}
		for name, commit := range want {
			if got[name].Commit != commit {
				r.Fatalf("%s: %v", name, got[name])
			}
		}
		if text, _ := os.ReadFile(path); !strings.HasPrefix(string(text), "# ours\n") {
			r.Fatalf("%s", text)
		}
	})
}
