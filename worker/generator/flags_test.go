package generator

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestHelpFlags(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"argparse", `usage: generate.py [-h] --num-samples NUM_SAMPLES [--output OUTPUT]
                   [--fast | --slow]

Makes samples. Without --seed they differ.

options:
  -h, --help            show this help message and exit
  --num-samples NUM_SAMPLES
                        Number, see also --start-index
  -o OUTPUT, --output OUTPUT
                        Output directory

Examples:
    python examples/generate.py --num-samples 10 --seed 42
`, "--fast --help --num-samples --output --slow"},
		{"click", `Usage: generate.py [OPTIONS]

Options:
  -n, --num-samples INTEGER  Number of samples.  [required]
  --output-dir TEXT
  --help                     Show this message and exit.
`, "--help --num-samples --output-dir"},
		{"typer", `
 Usage: generate.py [OPTIONS]

╭─ Options ─────────────────────────────╮
│ *  --num-samples        INTEGER  [required] │
│    --seed               INTEGER  like --x   │
│    --help                        Show this. │
╰───────────────────────────────────────╯
`, "--help --num-samples --seed"},
		{"nothing", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := strings.Join(slices.Sorted(maps.Keys(helpFlags(test.text))), " "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// The flags are those that --help lists; a generator without one has the contract's.
func TestBuildFindsFlags(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	for name, source := range map[string]string{
		"elsewhere": "import cli\ncli.flags('--num-samples', '--output-dir', '--start-index', '--no-videos')",
		"other":     "import cli\ncli.flags('--count', '--output')",
		"incapable": "import no_such_module\nno_such_module.main()",
		"no-help":   "raise SystemExit('no arguments please')",
		"stands-in": "",
	} {
		write(t, filepath.Join(root, name, DefaultEntry), source)
		write(t, filepath.Join(root, name, "cli.py"), `import argparse
def flags(*names):
    p = argparse.ArgumentParser()
    for n in names:
        p.add_argument(n)
    return p.parse_args()
`)
	}
	build := func() *Index {
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
		flags   Flags
		problem string
	}{
		{"elsewhere", Flags{Output: "--output-dir", StartIndex: true, NoVideo: "--no-videos", From: FromHelp}, ""},
		{"other", Flags{Output: "--output", From: FromHelp}, "its --help lists no --num-samples"},
		{"incapable", contractFlags, "No module named 'no_such_module': add what it lacks"},
		{"no-help", contractFlags, ""},
		{"stands-in", contractFlags, ""},
	} {
		g, err := x.Find(test.name)
		if err != nil {
			t.Fatal(err)
		}
		if g.Flags != test.flags || !strings.Contains(g.Problem, test.problem) || (test.problem == "") != (g.Problem == "") ||
			(g.Reason == CommandLine) != (g.Problem != "") {
			t.Errorf("%s: got %+v, problem %q, reason %q", test.name, g.Flags, g.Problem, g.Reason)
		}
	}

	// The answer is kept: another one in the index is believed until something changes.
	index := filepath.Join(dir, IndexFile)
	text, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	write(t, index, strings.Replace(string(text), `"output": "--output-dir"`, `"output": "--kept"`, 1))
	if g, _ := build().Find("elsewhere"); g.Flags.Output != "--kept" {
		t.Errorf("run again without need: %+v", g.Flags)
	}
	write(t, filepath.Join(root, "elsewhere", DefaultEntry),
		"import cli\ncli.flags('--num-samples', '--output', '--seed')")
	if g, _ := build().Find("elsewhere"); g.Flags != (Flags{Output: "--output", Seed: true, From: FromHelp}) {
		t.Errorf("not run again: %+v", g.Flags)
	}
}
