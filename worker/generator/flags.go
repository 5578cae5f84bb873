package generator

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Flags are what a generator's command line understands beside --num-samples.
type Flags struct {
	Output     string    `json:"output"` // --output or --output-dir
	Seed       bool      `json:"seed"`
	StartIndex bool      `json:"start_index,omitempty"`
	NoVideo    string    `json:"no_video,omitempty"`
	From       FlagsFrom `json:"from,omitempty"`
}

// FlagsFrom says how the flags are known.
type FlagsFrom string

// The ways to know a command line.
const (
	FromSource   FlagsFrom = "source"   // the program defines all of it
	FromHelp     FlagsFrom = "help"     // --help was asked, because the program does not
	FromContract FlagsFrom = "contract" // nobody has asked yet: it is taken to have the contract's
)

var (
	// Strings of one line are kept, all else that may hold a call without making it is not.
	notCodePattern  = regexp.MustCompile(`'''(?s:.*?)'''|"""(?s:.*?)"""|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|#[^\n]*`)
	argumentPattern = regexp.MustCompile(`add_argument\(\s*((?:["'][^"'\n]*["']\s*,?\s*)+)`)
	callPattern     = regexp.MustCompile(`add_argument\(`)
	flagPattern     = regexp.MustCompile(`["'](--[a-zA-Z][a-zA-Z0-9_-]*)["']`)
	parserPattern   = regexp.MustCompile(`(\w+)\s*=\s*(?:argparse\.)?ArgumentParser\(`)
	// Signs that flags are defined in other places too.
	elsewherePattern = regexp.MustCompile(`ArgumentParser\([^)]*\bparents\s*=|\badd_subparsers\(|\bparse_known_args\(`)
)

// definedFlags reads the flags from the source of the entry point: the names that
// stand first in its calls of add_argument, not those its help text mentions.
// They are whole if it defines what the contract has, and hands its parser to
// nobody who could define more.
func definedFlags(source []byte) (has map[string]bool, whole bool) {
	code := notCodePattern.ReplaceAllFunc(source, func(text []byte) []byte {
		if text[0] == '#' {
			return nil
		}
		if len(text) >= 6 && (text[1] == text[0] && text[2] == text[0]) {
			return []byte(`""`)
		}
		return text
	})
	has = map[string]bool{}
	calls := argumentPattern.FindAllSubmatch(code, -1)
	for _, call := range calls {
		for _, flag := range flagPattern.FindAllSubmatch(call[1], -1) {
			has[string(flag[1])] = true
		}
	}
	parsers := parserPattern.FindAllSubmatch(code, -1)
	whole = has["--num-samples"] && (has["--output"] || has["--output-dir"]) && len(parsers) == 1 &&
		len(calls) == len(callPattern.FindAll(code, -1)) && !elsewherePattern.Match(code)
	if whole {
		handed := regexp.MustCompile(`[(,=]\s*` + regexp.QuoteMeta(string(parsers[0][1])) + `\s*[,)]`)
		whole = !handed.Match(code)
	}
	return has, whole
}

// readFlags sets the flags from the source of the entry point, or to the
// contract's where that does not define the command line by itself.
func (g *Generator) readFlags(source []byte, says Entry) {
	g.says = says
	has, whole := definedFlags(source)
	if whole {
		g.setFlags(has, FromSource)
		return
	}
	g.defined, g.empty = has, len(source) == 0
	g.Flags = Flags{Output: cmp.Or(says.OutputFlag, "--output"), Seed: !says.Seedless, From: FromContract}
}

// setFlags sets the flags to those that are known for certain, as the catalogue
// would have them. A command line that the worker cannot use is a Problem.
func (g *Generator) setFlags(has map[string]bool, from FlagsFrom) {
	f := Flags{Output: g.says.OutputFlag, Seed: has["--seed"] && !g.says.Seedless, StartIndex: has["--start-index"],
		From: from}
	if f.Output == "" && !has["--output"] && has["--output-dir"] {
		f.Output = "--output-dir"
	}
	f.Output = cmp.Or(f.Output, "--output")
	for _, name := range []string{"--no-videos", "--no-video"} {
		if has[name] {
			f.NoVideo = name
			break
		}
	}
	g.Flags = f
	for _, name := range []string{"--num-samples", f.Output} {
		if !has[name] && g.Problem == "" {
			g.Problem = fmt.Sprintf("its command line has no %s (known from its %s): catalog.yaml can name another entry or output_flag", name, from)
		}
	}
}

var (
	usagePattern  = regexp.MustCompile(`(?is)^\s*usage:.*?(?:\n\s*\n|\z)`)
	optionPattern = regexp.MustCompile(`(?m)^[\s│|*]*(?:-\w(?:[ =]\S+)?,?\s+)?(--[a-zA-Z][a-zA-Z0-9_-]*)`)
	inUsage       = regexp.MustCompile(`[\[\s|(](--[a-zA-Z][a-zA-Z0-9_-]*)`)
)

// helpFlags reads the flags from what --help printed: those in the usage and those
// that begin a line, not those in sentences and examples.
func helpFlags(text string) map[string]bool {
	has := map[string]bool{}
	for _, match := range inUsage.FindAllStringSubmatch(usagePattern.FindString(text), -1) {
		has[match[1]] = true
	}
	for _, match := range optionPattern.FindAllStringSubmatch(text, -1) {
		has[match[1]] = true
	}
	return has
}

// helpTime is how long --help may take: some import all they have first, and the
// first import after an installation reads it from the disk.
const helpTime = 2 * time.Minute

// ask sets the flags by running the generator with --help, in its environment and
// the sandbox. The error is ctx's; whatever else goes wrong is the generator's
// Problem, and so is a --help that does not show what the source defines. One that
// defines nothing and does not know --help either keeps the contract's flags.
func (g *Generator) ask(ctx context.Context) error {
	scratch, err := os.MkdirTemp("", "vm-dataset-help-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	limited, cancel := context.WithTimeout(ctx, helpTime)
	defer cancel()
	result, err := Run(limited, Request{Generator: g, Scratch: scratch, help: true})
	if ctx.Err() != nil {
		return fmt.Errorf("ask generator %s for its flags: %w", g.Name, context.Cause(ctx))
	}
	if err != nil {
		what := err.Error()
		if f, ok := errors.AsType[*Failure](err); ok {
			if len(g.defined) == 0 && f.Cause != task.Environment {
				return nil // it reads its command line in a way of its own: the contract's is what it should be
			}
			what = f.Detail
			if f.Cause == task.Environment {
				what += ": add what it lacks to its requirements, or to those in " + Catalogue
			}
		}
		g.Problem = "its --help could not be read: " + what
		return nil
	}
	has := helpFlags(result.stdout)
	var hidden []string
	for _, name := range []string{"--num-samples", "--output", "--output-dir", "--seed", "--start-index"} {
		said := name == g.says.OutputFlag || name == "--seed" && g.says.Seedless // by the catalogue, which knows better
		if g.defined[name] && !has[name] && !said {
			hidden = append(hidden, name)
		}
	}
	if len(hidden) > 0 {
		g.Problem = fmt.Sprintf("its source defines %s and its --help does not show it: catalog.yaml can name the entry, output_flag or seedless", strings.Join(hidden, ", "))
		return nil
	}
	g.setFlags(has, FromHelp)
	return nil
}

// askedOf is a hash of what the answer to --help depends on: the commit, or
// without one the state of its files; its environment; what the catalogue says.
func (g *Generator) askedOf() string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %q %v\n", g.Environment, g.Commit, g.Entry, g.says.OutputFlag, g.says.Seedless)
	if g.Commit == "" || strings.HasSuffix(g.Commit, dirty) {
		for _, dir := range append([]string{g.Dir}, g.shared...) {
			fmt.Fprintln(h, state(dir))
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6])
}

// learn finds out the flags that the source does not tell: from the last index if
// nothing has changed since, else from the generator.
func (g *Generator) learn(ctx context.Context, last *Index) error {
	if g.Problem != "" || g.Flags.From != FromContract || g.empty {
		return nil
	}
	of := g.askedOf()
	if last != nil {
		if i := slices.IndexFunc(last.Generators, func(old Generator) bool { return old.Name == g.Name }); i >= 0 {
			if old := last.Generators[i]; old.Problem == "" && old.Flags.From == FromHelp && old.Asked == of {
				g.Flags, g.Asked = old.Flags, of
				return nil
			}
		}
	}
	g.Asked = of
	return g.ask(ctx)
}
