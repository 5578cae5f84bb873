package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/posener/complete"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inventory"
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

// names are the generators as they were chosen.
func (c *choice) names() []string {
	if c.All {
		return []string{inventory.Everything}
	}
	return c.Generator
}

func (c *choice) everything() bool { return slices.Contains(c.names(), inventory.Everything) }

func (c *choice) given() bool { return c.All || len(c.Generator) > 0 }

// choose returns the chosen generators of a list.
func (c *choice) choose(o *Output, list []generator.Generator) ([]generator.Generator, error) {
	return o.inventory().Choose(list, c.names())
}

// sayPools says which generators cannot make as many different puzzles as are wanted of each.
func sayPools(o *Output, chosen []generator.Generator, samples int) {
	var list []string
	for _, g := range chosen {
		if g.Pool > 0 && g.Pool < samples {
			list = append(list, fmt.Sprintf("%s (%s)", g.Name, ui.Count(g.Pool)))
		}
	}
	if len(list) > 0 {
		o.Say("note: fewer than %s different puzzles can be made by %s: ops verify counts duplicates", ui.Count(samples),
			ui.Some(list, 3))
	}
}

// predictGenerators completes generator names from the folder in which ops runs.
var predictGenerators = complete.PredictFunc(func(complete.Args) []string {
	folders, _ := filepath.Glob("generators/*/examples/generate.py")
	names := []string{inventory.Everything}
	for _, f := range folders {
		names = append(names, filepath.Base(filepath.Dir(filepath.Dir(f))))
	}
	return names
})
