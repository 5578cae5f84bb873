package environment

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// The flags are those that --help lists; a generator without one has the contract's.
func TestBuildFindsFlags(t *testing.T) {
	assumed := generator.Flags{Output: "--output", Seed: true, From: generator.FromContract}
	root, dir := t.TempDir(), t.TempDir()
	for name, source := range map[string]string{
		"elsewhere": "import cli\ncli.flags('--num-samples', '--output-dir', '--start-index', '--no-videos', '--width', '--difficulty')",
		"wrong":     "import cli\ncli.flags('--num-samples', '--output', '--width')",
		"other":     "import cli\ncli.flags('--count', '--output')",
		"incapable": "import no_such_module\nno_such_module.main()",
		"no-help":   "raise SystemExit('no arguments please')",
		"stands-in": "",
	} {
		write(t, filepath.Join(root, name, generator.DefaultEntry), source)
		write(t, filepath.Join(root, name, "cli.py"), `import argparse
def flags(*names):
    p = argparse.ArgumentParser()
    for n in names:
        p.add_argument(n)
    return p.parse_args()
`)
	}
	write(t, filepath.Join(root, generator.Catalogue), "wrong: {options: {difficulty: 3}}\n")
	build := func() *generator.Index {
		t.Helper()
		x, err := (&Builder{Root: root, Dir: dir, Python: python(t)}).Build(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	x := build()
	for _, test := range []struct {
		name    string
		flags   generator.Flags
		problem string
	}{
		{"elsewhere", generator.Flags{Output: "--output-dir", StartIndex: true, NoVideo: "--no-videos",
			Options: []string{"difficulty", "width"}, From: generator.FromHelp}, ""},
		{"wrong", generator.Flags{Output: "--output", Options: []string{"width"}, From: generator.FromHelp},
			"its options in catalog.yaml: generator wrong has no option difficulty: it has width"},
		{"other", generator.Flags{Output: "--output", Options: []string{"count"}, From: generator.FromHelp}, "its --help lists no --num-samples"},
		{"incapable", assumed, "No module named 'no_such_module': add what it lacks"},
		{"no-help", assumed, ""},
		{"stands-in", assumed, ""},
	} {
		g, err := x.Find(test.name)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(g.Flags, test.flags) || !strings.Contains(g.Problem, test.problem) || (test.problem == "") != (g.Problem == "") ||
			(g.Reason == generator.CommandLine) != (g.Problem != "") {
			t.Errorf("%s: got %+v, problem %q, reason %q", test.name, g.Flags, g.Problem, g.Reason)
		}
	}

	// The answer is kept: another one in the index is believed until something changes.
	index := filepath.Join(dir, generator.IndexFile)
	text, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	write(t, index, strings.Replace(string(text), `"output": "--output-dir"`, `"output": "--kept"`, 1))
	if g, _ := build().Find("elsewhere"); g.Flags.Output != "--kept" {
		t.Errorf("run again without need: %+v", g.Flags)
	}
	write(t, filepath.Join(root, "elsewhere", generator.DefaultEntry),
		"import cli\ncli.flags('--num-samples', '--output', '--seed')")
	if g, _ := build().Find("elsewhere"); !reflect.DeepEqual(g.Flags, generator.Flags{Output: "--output", Seed: true, From: generator.FromHelp}) {
		t.Errorf("not run again: %+v", g.Flags)
	}
}
