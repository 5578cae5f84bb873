package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/posener/complete"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// choice are the flags that choose generators.
type choice struct {
	All       bool     `help:"Every generator." xor:"generators"`
	Generator []string `help:"Only this generator; may be repeated. 'all' means --all." placeholder:"NAME" xor:"generators" predictor:"generator"`
}

func (c *choice) given() bool { return c.All || len(c.Generator) > 0 }

// names returns the chosen names out of those that are known. An unknown one is
// refused with the nearest that is known.
func (c *choice) names(known []string) ([]string, error) {
	if c.All || slices.Equal(c.Generator, []string{"all"}) {
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

// known returns the generators that a run on the target can use. For the local
// stack their environments are made first if they are not there, unless its
// workers run in an image that has them.
func known(ctx context.Context, o *Output, stackName string) ([]generator.Generator, error) {
	if stackName != stack.Local {
		return discover(o.Globals)
	}
	if up, err := local.Outputs(o.LocalDir); err == nil && up.ImageURI != "" {
		image, err := local.FindImage(ctx, up.ImageURI)
		if err != nil {
			return nil, err
		}
		return image.Generators, nil
	}
	if _, err := discover(o.Globals); err != nil {
		return nil, err
	}
	index, err := local.Prepare(ctx, o.LocalDir, o.Generators, func(line string) { o.Say("%s", line) })
	if err != nil {
		return nil, err
	}
	return index.Generators, nil
}

func discover(g *Globals) ([]generator.Generator, error) {
	list, err := generator.Discover(g.Generators)
	if err != nil {
		return nil, withHint(err, "run ops in the checkout, or name the folder with --generators-dir")
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
		return nil, withHint(err, "ops generators list")
	}
	var chosen []generator.Generator
	for _, name := range names {
		g := byName[name]
		switch {
		case g.Problem == "":
			chosen = append(chosen, g)
		case c.All || slices.Contains(c.Generator, "all"):
			o.Say("left out: %s: %s", name, g.Problem)
		default:
			return nil, fmt.Errorf("generator %s is not ready: %s", name, g.Problem)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("no generator is ready")
	}
	return chosen, nil
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
