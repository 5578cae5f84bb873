package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// optionFlags is the flag of the generators' own options.
type optionFlags struct {
	Option []string `help:"Argument for the generators, as in difficulty=3 for --difficulty 3; may be repeated. It is for all chosen generators that have it, or with GENERATOR: in front for that one. A dataset keeps the first values of a generator. Default: the catalogue's." placeholder:"[GENERATOR:]NAME=VALUE" sep:"none"`
}

// option is one value of the flag.
type option struct {
	generator string // "" for all that have it
	name      string
	task.Options
}

func parseOption(text string) (x option, err error) {
	x.name, _, _ = strings.Cut(text, "=")
	if before, name, ok := strings.Cut(x.name, ":"); ok {
		text = text[len(before)+1:]
		if x.generator, x.name = before, name; task.CheckName(before) != nil {
			return x, ui.Usage("--option %s:%s: %.60q is no name of a generator", before, text, before)
		}
	}
	if x.Options, err = task.ParseOption(text); err != nil {
		err = ui.Usage("--option: %v", err)
	}
	return x, err
}

// parse reads the flags: what is for one generator comes last, and counts.
func (f *optionFlags) parse() (list []option, err error) {
	for _, text := range f.Option {
		x, err := parseOption(text)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(list, func(y option) bool { return x.generator == y.generator && x.name == y.name }) {
			return nil, ui.Usage("--option %s is given twice", x.name)
		}
		list = append(list, x)
	}
	slices.SortStableFunc(list, func(a, b option) int { return min(len(a.generator), 1) - min(len(b.generator), 1) })
	return list, nil
}

// check checks what can be checked without the generators.
func (f *optionFlags) check() error {
	_, err := f.parse()
	return err
}

// give sets the options of the chosen generators, and returns those that the flags gave
// them. An option that none of them has is refused; those that lack one are named.
func (f *optionFlags) give(o *Output, chosen []generator.Generator) (map[string]task.Options, error) {
	list, err := f.parse()
	if err != nil {
		return nil, err
	}
	given := map[string]task.Options{}
	for _, x := range list {
		has, without, refused := false, []string(nil), error(nil)
		for i := range chosen {
			g := &chosen[i]
			if g.Problem != "" || x.generator != "" && x.generator != g.Name {
				continue
			}
			err := g.CheckOptions(x.Options)
			switch {
			case err == nil:
				has, given[g.Name], g.Options = true, given[g.Name].With(x.Options), g.Options.With(x.Options)
			case !g.OptionsKnown():
				return nil, ui.WithHint(err, "ops generators check %s", g.Name)
			default:
				without, refused = append(without, g.Name), err
			}
		}
		switch {
		case !has && refused == nil:
			return nil, fmt.Errorf("--option %s is for generator %s, which is not chosen", x.name, x.generator)
		case !has && len(without) > 1:
			return nil, fmt.Errorf("none of the %d generators has the option %s: %w, for example", len(without), x.name, refused)
		case !has:
			return nil, refused
		case without != nil:
			o.Say("note: made without --option %s, which they do not have: %s", x.name, ui.Some(without, 3))
		}
	}
	return given, nil
}
