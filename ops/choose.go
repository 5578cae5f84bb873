package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/posener/complete"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// choice are the flags that choose generators.
type choice struct {
	All       bool     `help:"Every generator." xor:"generators"`
	Generator []string `help:"Only this generator; may be repeated. 'all' means --all." placeholder:"NAME" xor:"generators" predictor:"generator"`
}

// named returns the generators that were named, nil for all.
func (c *choice) named() []string {
	if c.everything() {
		return nil
	}
	return c.Generator
}

func (c *choice) everything() bool { return c.All || slices.Contains(c.Generator, "all") }

func (c *choice) given() bool { return c.All || len(c.Generator) > 0 }

// names returns the chosen names out of those that are known. An unknown one is
// refused with the nearest that is known.
func (c *choice) names(known []string) ([]string, error) {
	if c.everything() {
		if len(known) == 0 {
			return nil, errors.New("there are no generators")
		}
		return known, nil
	}
	var names []string
	for _, name := range c.Generator {
		if !slices.Contains(known, name) {
			return nil, &generator.UnknownError{Name: name, Nearest: generator.Nearest(name, known)}
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// known returns the generators that a run on the target can use. On the local stack
// without an image their environments are made first if they are not there: those of
// the chosen ones, or all.
func known(ctx context.Context, o *Output, t *target.Target, chosen ...string) ([]generator.Generator, error) {
	if t.Name != stack.Local || localImage(o) != "" {
		return present(ctx, o, t)
	}
	here, err := discover(o.Flags)
	if err != nil {
		return nil, err
	}
	for _, name := range chosen {
		if !slices.ContainsFunc(here, func(g generator.Generator) bool { return g.Name == name }) {
			return here, nil // choose says so
		}
	}
	index, err := local.Prepare(ctx, o.LocalDir, o.Generators, chosen, func(line string) { o.Say("%s", line) })
	if err != nil {
		return nil, err
	}
	return index.Generators, nil
}

// localImage is the image that the workers of the local stack run in, if any.
func localImage(o *Output) string {
	up, err := local.Outputs(o.LocalDir)
	if err != nil {
		return ""
	}
	return up.ImageURI
}

// present returns the target's generators and makes no environment. A stack whose
// workers run in an image has those of the image, the local stack without one those
// of the local folder. A cloud stack that does not say what is in its image is taken
// to have the local ones.
func present(ctx context.Context, o *Output, t *target.Target) ([]generator.Generator, error) {
	switch {
	case t.Name != stack.Local && t.Generators != nil:
		return inImage(o, t)
	case t.Name != stack.Local:
		return discover(o.Flags)
	}
	if uri := localImage(o); uri != "" {
		image, err := local.FindImage(ctx, uri)
		if err != nil {
			return nil, err
		}
		return image.Generators, nil
	}
	all, err := knownGenerators(o.Flags)
	if err != nil {
		return nil, err
	}
	var list []generator.Generator
	for _, k := range all {
		if !k.Fetched {
			continue
		}
		if k.Problem == notMade {
			k.Problem = ""
		}
		list = append(list, k.Generator)
	}
	return list, nil
}

// inImage returns the generators in a stack's image. What the local catalogue
// says of one holds for it too, and so does what is wrong with its source if that
// is of the same commit; one that is in the local folder alone is not ready. Of one
// whose environment could not be made in the image nothing is known here: a worker
// says so.
func inImage(o *Output, t *target.Target) ([]generator.Generator, error) {
	here, err := generator.Discover(o.Generators)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	byName := map[string]generator.Generator{}
	for _, g := range here {
		byName[g.Name] = g
	}
	var list []generator.Generator
	for _, name := range slices.Sorted(maps.Keys(t.Generators)) {
		g := generator.Generator{Name: name, Commit: t.Generators[name], Lock: t.Locks[name], ChunkSize: byName[name].ChunkSize, Flags: byName[name].Flags}
		if g.Commit == byName[name].Commit {
			g.Problem = byName[name].Problem
		}
		list = append(list, g)
	}
	if here == nil {
		return list, nil
	}
	d := compareGenerators(here, t.Generators)
	for _, name := range d.local {
		list = append(list, generator.Generator{Name: name, Problem: "it is in " + o.Generators + " but not in the stack's image: pulumi up brings it there"})
	}
	if len(d.changed) > 0 {
		o.Say("note: the image has another commit than %s of %s: pulumi up brings the local one", o.Generators, ui.Some(d.changed, 3))
	}
	return list, nil
}

// difference is what an image and the local folder do not have in common.
type difference struct {
	local   []string // not in the image
	image   []string // not in the folder
	changed []string // of another commit
}

// compareGenerators compares the local folder with an image. Commits that are
// not known are no difference.
func compareGenerators(here []generator.Generator, image map[string]string) (d difference) {
	seen := map[string]bool{}
	for _, g := range here {
		commit, there := image[g.Name]
		seen[g.Name] = true
		switch {
		case !there && g.Problem == "":
			d.local = append(d.local, g.Name)
		case there && commit != g.Commit && commit != "" && g.Commit != "":
			d.changed = append(d.changed, g.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(image)) {
		if !seen[name] {
			d.image = append(d.image, name)
		}
	}
	return d
}

func discover(g *target.Flags) ([]generator.Generator, error) {
	list, err := generator.Discover(g.Generators)
	if err != nil {
		return nil, ui.WithHint(err, "run ops in the checkout, or name the folder with --generators-dir")
	}
	return list, nil
}

// choose returns the chosen generators. One that is not ready is refused when it
// was named, and left out with a word under --all.
func (c *choice) choose(o *Output, list []generator.Generator) ([]generator.Generator, error) {
	byName := map[string]generator.Generator{}
	var all []string
	for _, g := range list {
		byName[g.Name] = g
		all = append(all, g.Name)
	}
	names, err := c.names(all)
	if err != nil {
		return nil, notThere(o.Flags, err)
	}
	var chosen []generator.Generator
	var seedless []string
	for _, name := range names {
		g := byName[name]
		switch {
		case g.Problem == "":
			chosen = append(chosen, g)
			if !g.Flags.Seed && g.Flags.From != "" { // an image does not tell
				seedless = append(seedless, name)
			}
		case c.everything():
			o.Say("left out: %s: %s", name, g.Problem)
		default:
			return nil, fmt.Errorf("generator %s is not ready: %s", name, g.Problem)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("no generator is ready")
	}
	if len(seedless) > 0 {
		o.Say("note: no seed can be given to %s: nothing keeps chunks from coming out alike, and ops verify counts duplicates", ui.Some(seedless, 3))
	}
	return chosen, nil
}

// notThere adds the way out to the error of a name that was not found: it may be
// one of the catalogue.
func notThere(g *target.Flags, err error) error {
	unknown, ok := errors.AsType[*generator.UnknownError](err)
	if !ok {
		return err
	}
	if entries, err := generator.ReadCatalogue(g.Generators); err == nil {
		switch e := entries[unknown.Name]; {
		case e.Skip != "":
			return ui.WithHint(fmt.Errorf("the catalogue leaves %s out: %s", unknown.Name, e.Skip), "ops generators list")
		case e.Repository != "":
			return ui.WithHint(fmt.Errorf("generator %s is in the catalogue and not fetched yet", unknown.Name), "ops generators sync %s", unknown.Name)
		}
	}
	return ui.WithHint(err, "ops generators list")
}

// predictGenerators completes generator names from the folder in which ops runs.
var predictGenerators = complete.PredictFunc(func(complete.Args) []string {
	folders, _ := filepath.Glob("generators/*/examples/generate.py")
	names := []string{"all"}
	for _, f := range folders {
		names = append(names, filepath.Base(filepath.Dir(filepath.Dir(f))))
	}
	return names
})
