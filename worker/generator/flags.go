package generator

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/requirements"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Flags are what a generator's command line understands beside --num-samples.
type Flags struct {
	Output     string    `json:"output"` // --output or --output-dir
	Seed       bool      `json:"seed"`
	StartIndex bool      `json:"start_index,omitempty"`
	NoVideo    string    `json:"no_video,omitempty"`
	Options    []string  `json:"options,omitempty"` // names of the others that take a value, sorted, without dashes
	From       FlagsFrom `json:"from,omitempty"`
}

// FlagsFrom says how the flags are known.
type FlagsFrom string

// The sources of a command line.
const (
	FromHelp     FlagsFrom = "help"     // --help lists them
	FromContract FlagsFrom = "contract" // --help was not run yet, or lists none: the contract's flags are assumed
)

var contractFlags = Flags{Output: "--output", Seed: true, From: FromContract}

var (
	usagePattern  = regexp.MustCompile(`(?is)^\s*usage:.*?(?:\n\s*\n|\z)`)
	optionPattern = regexp.MustCompile(`(?m)^[\s│|*]*(?:-\w(?:[ =]\S+)?,?\s+)?(--[a-zA-Z][a-zA-Z0-9_-]*)([ =][^\s]|[ ]+[A-Z]{3,}\b)?`)
	inUsage       = regexp.MustCompile(`[\[\s|(](--[a-zA-Z][a-zA-Z0-9_-]*)([ =][^\s\[\])|-])?`)
)

// helpFlags reads the flags from what --help printed, and whether a value comes after each: those in the usage and
// those that begin a line, not those in sentences and examples.
func helpFlags(text string) map[string]bool {
	has := map[string]bool{}
	for _, match := range append(inUsage.FindAllStringSubmatch(usagePattern.FindString(text), -1),
		optionPattern.FindAllStringSubmatch(text, -1)...) {
		has[match[1]] = has[match[1]] || match[2] != ""
	}
	return has
}

// setFlags sets the flags to those that --help lists. A command line that the worker cannot use is a Problem.
func (g *Generator) setFlags(values map[string]bool) {
	has := func(name string) bool { _, ok := values[name]; return ok }
	g.Flags = Flags{Output: "--output", Seed: has("--seed"), StartIndex: has("--start-index"), From: FromHelp}
	if !has("--output") && has("--output-dir") {
		g.Flags.Output = "--output-dir"
	}
	for flag, value := range values {
		if name := strings.TrimPrefix(flag, "--"); value && !task.ReservedOption(name) {
			g.Flags.Options = append(g.Flags.Options, name)
		}
	}
	slices.Sort(g.Flags.Options)
	for _, name := range []string{"--no-video", "--no-videos"} {
		if has(name) {
			g.Flags.NoVideo = name
		}
	}
	for _, name := range []string{"--num-samples", g.Flags.Output} {
		if !has(name) && g.Problem == "" {
			g.Problem, g.Reason = fmt.Sprintf("its --help lists no %s", name), CommandLine
		}
	}
}

// CheckOptions reports what is wrong with options for this generator, or nil: they must be
// valid, and its --help must list them.
func (g *Generator) CheckOptions(o task.Options) error {
	if err := o.Check(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(o)) {
		known := "it has " + strings.Join(g.Flags.Options, ", ")
		switch {
		case slices.Contains(g.Flags.Options, name):
			continue
		case len(g.Flags.Options) > 0:
		case !g.OptionsKnown():
			known = "its --help was not read here yet"
		default:
			known = "its --help lists none"
		}
		return fmt.Errorf("generator %s has no option %s: %s", g.Name, name, known)
	}
	return nil
}

// OptionsKnown reports whether the generator was run with --help.
func (g *Generator) OptionsKnown() bool { return g.HelpKey != "" || g.Flags.From == FromHelp }

// helpTime limits a run of --help: some generators import all their packages first, and
// the first import after an installation reads them from the disk.
const helpTime = 2 * time.Minute

// runHelp sets the flags by running the generator with --help, in its environment and the sandbox. The error is ctx's.
// A missing module or library is the generator's Problem; one that has no --help keeps the contract's flags.
func (g *Generator) runHelp(ctx context.Context) error {
	scratch, err := os.MkdirTemp("", "vm-dataset-help-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	limited, cancel := context.WithTimeout(ctx, helpTime)
	defer cancel()
	result, err := Run(limited, Request{Generator: g, Scratch: scratch, help: true})
	if ctx.Err() != nil {
		return fmt.Errorf("run --help of generator %s: %w", g.Name, context.Cause(ctx))
	}
	if f, ok := errors.AsType[*Failure](err); ok {
		if f.Cause == task.Environment {
			g.Problem, g.Reason = "its --help could not be read: "+f.Detail+
				": add what it lacks to its requirements, or to those in "+Catalogue, CommandLine
		}
		return nil
	}
	if err != nil {
		return err
	}
	if values := helpFlags(result.stdout); len(values) > 0 {
		g.setFlags(values)
	}
	return nil
}

// helpKey is a hash of what the answer to --help depends on: the environment and the commit, or without one the files.
func (g *Generator) helpKey() string {
	h := sha256.New()
	fmt.Fprintf(h, "options %q %q\n", g.Environment, g.Commit) // another first word where Flags has a new field
	if g.Commit == "" || strings.HasSuffix(g.Commit, Dirty) {
		for _, dir := range append([]string{g.Dir}, g.shared...) {
			fmt.Fprintln(h, requirements.State(dir))
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6])
}

// FindFlags sets the flags of a ready generator: the last index's if nothing has changed, else --help's if wanted.
func (g *Generator) FindFlags(ctx context.Context, last *Index, wanted bool) error {
	if g.Problem != "" || g.empty {
		return nil
	}
	key := g.helpKey()
	if last != nil {
		for _, old := range last.Generators {
			if old.Name == g.Name && old.HelpKey == key && old.Problem == "" {
				g.Flags, g.HelpKey = old.Flags, key
				g.checkDefaults()
				return nil
			}
		}
	}
	if !wanted {
		return nil
	}
	g.HelpKey = key
	err := g.runHelp(ctx)
	g.checkDefaults()
	return err
}

// checkDefaults makes it a Problem that the catalogue has options which the generator lacks.
func (g *Generator) checkDefaults() {
	if err := g.CheckOptions(g.Options); err != nil && g.Problem == "" {
		g.Problem, g.Reason = "its options in "+Catalogue+": "+err.Error(), CommandLine
	}
}
