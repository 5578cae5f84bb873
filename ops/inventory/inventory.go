// Package inventory knows which generators a target has, and makes their environments.
package inventory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// Inventory is the generators of the folder, the catalogue and images.
type Inventory struct {
	*target.Flags
	Say func(format string, args ...any) // prints what is left out, and progress
}

// Folder returns the generators of the folder, with the flags that were found when
// their environments were made on this machine.
func (v Inventory) Folder() ([]generator.Generator, error) {
	list, err := generator.Discover(v.Generators)
	if err != nil {
		return nil, ui.WithHint(err, "run ops in the checkout, or name the folder with --generators-dir")
	}
	if index, err := generator.LoadIndex(filepath.Join(v.LocalDir, "generators")); err == nil {
		for i := range list {
			if built, err := index.Find(list[i].Name); err == nil && built.Commit == list[i].Commit {
				list[i].Flags, list[i].HelpKey = built.Flags, built.HelpKey
			}
		}
	}
	return list, nil
}

// notDeployed is the Problem on a deployed stack of a generator that downloads data.
const notDeployed = "it downloads the data that it converts, and the workers of a deployed stack do not: " +
	"run it on the local stack or by hand; docs/CATALOGUE.md says which need credentials for that"

func (v Inventory) deployable() ([]generator.Generator, error) {
	list, err := v.Folder()
	for i := range list {
		if g := &list[i]; g.Network && g.Problem == "" {
			g.Problem = notDeployed
		}
	}
	return list, err
}

// image is the image that the workers of the local stack run in, if any.
func (v Inventory) image() string {
	up, err := local.Outputs(v.LocalDir)
	if err != nil {
		return ""
	}
	return up.ImageURI
}

// List returns the target's generators and makes no environment. A stack whose workers run in an image has those of the
// image, the local stack without one those of the local folder. A stack on AWS without a list of its generators is
// taken to have the local ones.
func (v Inventory) List(ctx context.Context, t *target.Target) ([]generator.Generator, error) {
	switch {
	case t.Name != stack.Local && t.Generators != nil:
		return v.inImage(ctx, t)
	case t.Name != stack.Local:
		return v.deployable()
	}
	if uri := v.image(); uri != "" {
		image, err := local.FindImage(ctx, uri)
		if err != nil {
			return nil, err
		}
		return image.Generators, nil
	}
	all, err := v.All()
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

// Prepare returns the generators that a run on the target can use. On the local stack without an image their
// environments are made first if they are not there: those of the chosen ones, or all.
func (v Inventory) Prepare(ctx context.Context, t *target.Target, chosen ...string) ([]generator.Generator, error) {
	if t.Name != stack.Local || v.image() != "" {
		return v.List(ctx, t)
	}
	here, err := v.Folder()
	if err != nil {
		return nil, err
	}
	for _, name := range chosen {
		if !slices.ContainsFunc(here, func(g generator.Generator) bool { return g.Name == name }) {
			return here, nil // Choose refuses it
		}
	}
	index, err := local.Prepare(ctx, v.LocalDir, v.Generators, chosen, func(line string) { v.Say("%s", line) })
	if err != nil {
		return nil, err
	}
	return index.Generators, nil
}

// PrepareFolder returns generators of the folder, all if none is named, with their
// environments made. One that is not ready has a Problem.
func (v Inventory) PrepareFolder(ctx context.Context, names []string) ([]generator.Generator, error) {
	here, err := v.Folder()
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		names = []string{Everything}
	}
	if names, err = v.PickFrom(here, names); err != nil {
		return nil, err
	}
	index, err := local.Prepare(ctx, v.LocalDir, v.Generators, names, func(line string) { v.Say("%s", line) })
	if err != nil {
		return nil, err
	}
	var list []generator.Generator
	for _, name := range names {
		g, err := index.Find(name)
		if err != nil {
			return nil, err
		}
		list = append(list, *g)
	}
	return list, nil
}

// Choose returns the generators that were named. One that is not ready is refused, or
// left out with a message if all were asked for.
func (v Inventory) Choose(list []generator.Generator, names []string) ([]generator.Generator, error) {
	byName := map[string]generator.Generator{}
	for _, g := range list {
		byName[g.Name] = g
	}
	picked, err := v.PickFrom(list, names)
	if err != nil {
		return nil, err
	}
	var chosen []generator.Generator
	var seedless []string
	for _, name := range picked {
		g := byName[name]
		switch {
		case g.Problem == "":
			chosen = append(chosen, g)
			if !g.Flags.Seed && g.Flags.From != "" { // an image does not have them
				seedless = append(seedless, name)
			}
		case slices.Contains(names, Everything):
			v.Say("left out: %s: %s", name, g.Problem)
		default:
			return nil, fmt.Errorf("generator %s is not ready: %s", name, g.Problem)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("no generator is ready")
	}
	if len(seedless) > 0 {
		v.Say("note: %s cannot take a seed: chunks may be equal, and ops verify counts duplicates", ui.Some(seedless, 3))
	}
	return chosen, nil
}

// Everything among names means every generator.
const Everything = "all"

// Pick returns the names, each once. One that is not known is refused with the nearest that is.
func Pick(names, known []string) ([]string, error) {
	if slices.Contains(names, Everything) {
		if len(known) == 0 {
			return nil, errors.New("there are no generators")
		}
		return known, nil
	}
	var picked []string
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, &generator.UnknownError{Name: name, Nearest: generator.Nearest(name, known)}
		}
		if !slices.Contains(picked, name) {
			picked = append(picked, name)
		}
	}
	return picked, nil
}

// PickFrom returns the names, each once, all of a list for Everything. One that the list does not have is refused, with
// a hint if the catalogue has it.
func (v Inventory) PickFrom(list []generator.Generator, names []string) ([]string, error) {
	var known []string
	for _, g := range list {
		known = append(known, g.Name)
	}
	picked, err := Pick(names, known)
	return picked, v.notFound(err)
}

// notFound adds a hint to the error of an unknown name, which may be in the catalogue.
func (v Inventory) notFound(err error) error {
	unknown, ok := errors.AsType[*generator.UnknownError](err)
	if !ok {
		return err
	}
	if entries, err := generator.ReadCatalogue(v.Generators); err == nil {
		switch e := entries[unknown.Name]; {
		case e.Skip != "":
			return ui.WithHint(fmt.Errorf("the catalogue leaves %s out: %s", unknown.Name, e.Skip), "ops generators list")
		case e.Repository != "":
			return ui.WithHint(fmt.Errorf("generator %s is in the catalogue and not fetched yet", unknown.Name),
				"ops generators sync %s", unknown.Name)
		}
	}
	return ui.WithHint(err, "ops generators list")
}

// Known is one generator of the list.
type Known struct {
	generator.Generator
	Pin     string `json:"pin,omitempty"` // commit that the catalogue names
	Fetched bool   `json:"fetched"`       // its folder is there
	Ready   bool   `json:"ready"`
}

// notMade is no reason to leave a generator out: a run makes it.
const notMade = "its environment is not made yet"

// All returns every generator of the folder and the catalogue, by name.
func (v Inventory) All() ([]Known, error) {
	found, err := v.Folder()
	if err != nil {
		return nil, err
	}
	entries, err := generator.ReadCatalogue(v.Generators)
	if err != nil {
		return nil, err
	}
	built := map[string]generator.Generator{}
	index, err := generator.LoadIndex(filepath.Join(v.LocalDir, "generators"))
	switch {
	case err == nil:
		for _, b := range index.Generators {
			built[b.Name] = b
		}
	case !errors.Is(err, fs.ErrNotExist) && index != nil:
		return nil, err
	}
	list := []Known{}
	for _, f := range found {
		b, there := built[f.Name]
		k := Known{Generator: f, Pin: entries[f.Name].Commit, Fetched: true}
		delete(entries, f.Name)
		switch {
		case f.Problem != "":
		case !there || !slices.Equal(b.Requirements, f.Requirements):
			k.Problem = notMade
		default:
			k.Environment, k.Lock, k.Python, k.Problem = b.Environment, b.Lock, b.Python, b.Problem
			k.Ready = b.Problem == ""
		}
		list = append(list, k)
	}
	for name, e := range entries {
		k := Known{Generator: generator.Generator{Name: name, Traits: e.Traits}, Pin: e.Commit}
		switch {
		case e.Skip != "":
			k.Problem = "left out: " + e.Skip
		case e.OnRequest() != "":
			k.Problem = "fetched only if it is named: " + e.OnRequest()
		case e.Repository != "":
			k.Problem = "not fetched yet"
		default:
			continue // it only has settings for a generator that is not there
		}
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b Known) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
