package generator

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDefinedFlags(t *testing.T) {
	const contract = `parser = argparse.ArgumentParser()
parser.add_argument("--num-samples", type=int)
parser.add_argument("-o", "--output")
`
	for _, test := range []struct {
		name, source, want string
		whole              bool
	}{
		{"whole", contract + "args = parser.parse_args()\nmain(args)", "--num-samples --output", true},
		{"whole, in a function", "def parse_args():\n    p = ArgumentParser(\n        prog='x')\n    g = p.add_argument_group('g')\n    g.add_argument('--num-samples')\n    g.add_argument('--output-dir')\n    g.add_argument(\n        '--seed', type=int)\n    return p.parse_args()", "--num-samples --output-dir --seed", true},
		{"a comment and texts", contract + `# parser.add_argument("--seed")
"""
parser.add_argument("--start-index")
"""
parser.add_argument("--label", help='like --seed', default="# not 'a' comment")  # parser.add_argument("--no-video")
`, "--label --num-samples --output", true},
		{"nothing", "from kit import main\nmain()", "", false},
		{"empty", "", "", false},
		{"no output", "p = argparse.ArgumentParser()\np.add_argument('--num-samples')", "--num-samples", false},
		{"parser handed on", contract + "add_common(parser)", "--num-samples --output", false},
		{"parser handed on by name", contract + "add_common(x, target=parser, y=1)", "--num-samples --output", false},
		{"parents", "base = argparse.ArgumentParser()\n" + strings.Replace(contract, "()", "(parents=[base])", 1),
			"--num-samples --output", false},
		{"names from elsewhere", contract + "parser.add_argument(NAME)", "--num-samples --output", false},
		{"the rest is parsed elsewhere", contract + "args, rest = parser.parse_known_args()", "--num-samples --output",
			false},
		{"click", "@click.command()\n@click.option('--num-samples')\n@click.option('--output')\ndef main(num_samples, output): pass", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			has, whole := definedFlags([]byte(test.source))
			if got := strings.Join(slices.Sorted(maps.Keys(has)), " "); got != test.want || whole != test.whole {
				t.Errorf("got %q, %v, want %q, %v", got, whole, test.want, test.whole)
			}
		})
	}
}

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

func TestBuildAsksForFlags(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	const cli = `import argparse, sys
def flags(*names):
    p = argparse.ArgumentParser()
    for n in names:
        p.add_argument(n)
    return p.parse_args()
`
	for name, source := range map[string]string{
		"elsewhere": "import cli\ncli.flags('--num-samples', '--output-dir', '--start-index')",
		"plain":     "import argparse\np = argparse.ArgumentParser()\np.add_argument('--num-samples')\np.add_argument('--output')\np.parse_args()\nraise SystemExit('asked')",
		"other":     "import cli\ncli.flags('--count', '--output')",
		"hides":     "import argparse\np = argparse.ArgumentParser()\np.add_argument('--num-samples')\np.add_argument('--output')\np.add_argument('--seed', help=argparse.SUPPRESS)\nfor n in ['--a']: p.add_argument(n)\np.parse_args()",
		"hides-too": "import argparse\np = argparse.ArgumentParser()\np.add_argument('--num-samples')\np.add_argument('--output')\np.add_argument('--seed', help=argparse.SUPPRESS)\nfor n in ['--a']: p.add_argument(n)\np.parse_args()",
		"incapable": "import no_such_module\nno_such_module.main()",
		"stands-in": "",
	} {
		write(t, filepath.Join(root, name, DefaultEntry), source)
		write(t, filepath.Join(root, name, "cli.py"), cli)
	}
	write(t, filepath.Join(root, Catalogue), "hides-too: {seedless: true}\n")
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
		{"elsewhere", Flags{Output: "--output-dir", StartIndex: true, From: FromHelp}, ""},
		{"plain", Flags{Output: "--output", From: FromSource}, ""},
		{"other", Flags{Output: "--output", From: FromHelp}, "no --num-samples (known from its help)"},
		{"hides", Flags{Output: "--output", Seed: true, From: FromContract},
			"its source defines --seed and its --help does not show it"},
		{"hides-too", Flags{Output: "--output", From: FromHelp}, ""},
		{"incapable", Flags{Output: "--output", Seed: true, From: FromContract},
			"No module named 'no_such_module': add what it lacks"},
		{"stands-in", Flags{Output: "--output", Seed: true, From: FromContract}, ""},
	} {
		g, err := x.Find(test.name)
		if err != nil {
			t.Fatal(err)
		}
		if g.Flags != test.flags || !strings.Contains(g.Problem, test.problem) || (test.problem == "") != (g.Problem == "") {
			t.Errorf("%s: got %+v, problem %q", test.name, g.Flags, g.Problem)
		}
	}

	// What --help said is kept: another answer in the index is believed, until
	// something has changed.
	index := filepath.Join(dir, IndexFile)
	text, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	write(t, index, strings.Replace(string(text), `"output": "--output-dir"`, `"output": "--kept"`, 1))
	if g, _ := build().Find("elsewhere"); g.Flags.Output != "--kept" {
		t.Errorf("asked again without need: %+v", g.Flags)
	}
	write(t, filepath.Join(root, "elsewhere", DefaultEntry),
		"import cli\ncli.flags('--num-samples', '--output', '--seed')")
	if g, _ := build().Find("elsewhere"); g.Flags != (Flags{Output: "--output", Seed: true, From: FromHelp}) {
		t.Errorf("not asked again: %+v", g.Flags)
	}
}
