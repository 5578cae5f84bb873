package generator

import (
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
`, "--fast --help --num-samples= --output= --slow"},
		{"click", `Usage: generate.py [OPTIONS]

Options:
  -n, --num-samples INTEGER  Number of samples.  [required]
  --output-dir TEXT
  --help                     Show this message and exit.
`, "--help --num-samples= --output-dir="},
		{"typer", `
 Usage: generate.py [OPTIONS]

╭─ Options ─────────────────────────────╮
│ *  --num-samples        INTEGER  [required] │
│    --seed               INTEGER  like --x   │
│    --help                        Show this. │
╰───────────────────────────────────────╯
`, "--help --num-samples= --seed="},
		{"choices and switches", `usage: g.py [-h] [--level {1,2}] [--debug]
            [--colour | --no-colour]

  --level {1,2}
  --debug               Print much.
  --colour, --no-colour
`, "--colour --debug --level= --no-colour"},
		{"nothing", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var list []string
			for flag, value := range helpFlags(test.text) {
				list = append(list, flag+map[bool]string{true: "="}[value])
			}
			slices.Sort(list)
			if got := strings.Join(list, " "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
