package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// inImage returns the generators in a stack's image, or after a rollback in that of the version that works,
// with the settings of the local catalogue, and with the problem of the local source if that is of the same
// commit. One that is only in the local folder is not ready. Whether its environment could be made in the
// image is known after a rollback only: otherwise a worker finds out.
func (v Inventory) inImage(ctx context.Context, t *target.Target) ([]generator.Generator, error) {
	works, err := t.RolledBack(ctx, v.Say)
	if err != nil {
		return nil, err
	}
	if works == nil {
		for _, name := range slices.Sorted(maps.Keys(t.Generators)) {
			works = append(works, worker.Installed{Name: name, Commit: t.Generators[name], Lock: t.Locks[name]})
		}
	}
	commits := map[string]string{}
	here, err := v.deployable()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	byName := map[string]generator.Generator{}
	for _, g := range here {
		byName[g.Name] = g
	}
	var list []generator.Generator
	for _, in := range works {
		commits[in.Name] = in.Commit
		source := byName[in.Name]
		g := generator.Generator{Name: in.Name, Commit: in.Commit, Lock: in.Lock, Flags: source.Flags,
			HelpKey: source.HelpKey,
			Traits:  generator.Traits{ChunkSize: source.ChunkSize, Options: source.Options, Pool: source.Pool},
			Problem: in.Problem}
		if g.Commit == source.Commit || source.Network {
			g.Problem = cmp.Or(g.Problem, source.Problem)
		}
		list = append(list, g)
	}
	for _, g := range here {
		if _, there := t.Generators[g.Name]; g.Network && !there {
			list = append(list, g)
		}
	}
	if here == nil {
		return list, nil
	}
	d := Compare(here, commits)
	for _, name := range d.Local {
		list = append(list, generator.Generator{Name: name,
			Problem: "it is in " + v.Generators + " but not in the stack's image: pulumi up brings it there"})
	}
	if len(d.Changed) > 0 {
		v.Say("note: the image has another commit than %s of %s: pulumi up brings the local one", v.Generators,
			ui.Some(d.Changed, 3))
	}
	return list, nil
}

// Difference is what an image and the local folder do not have in common.
type Difference struct {
	Local   []string // not in the image
	Image   []string // not in the folder
	Changed []string // of another commit
}

// Compare compares the local folder with an image. Commits that are not known are no difference.
func Compare(here []generator.Generator, image map[string]string) (d Difference) {
	seen := map[string]bool{}
	for _, g := range here {
		commit, there := image[g.Name]
		seen[g.Name] = true
		switch {
		case !there && g.Problem == "":
			d.Local = append(d.Local, g.Name)
		case there && commit != g.Commit && commit != "" && g.Commit != "":
			d.Changed = append(d.Changed, g.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(image)) {
		if !seen[name] {
			d.Image = append(d.Image, name)
		}
	}
	return d
}

// ForWorker returns the folder with the index of this machine's generators, for workers of the target: in a container
// of the worker's image those that are installed there, or else those of the folder, whose environments are made first.
// A queue gives a worker tasks of every generator, so one that the target has and this machine has not, or has of
// another commit or lock, is an error. One that is not ready is named.
func (v Inventory) ForWorker(ctx context.Context, t *target.Target) (string, error) {
	dir := os.Getenv(stack.EnvGenerators)
	var index *generator.Index
	var err error
	if dir != "" {
		index, err = generator.LoadIndex(dir)
	} else {
		dir = filepath.Join(v.LocalDir, "generators")
		index, err = v.prepareFor(ctx, t)
	}
	if err != nil {
		return "", err
	}
	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(t.Generators)) {
		g, err := index.Find(name)
		if err != nil {
			wrong = append(wrong, name+" (not here)")
			continue
		}
		if text := differs("commit", g.Commit, t.Generators[name]) + differs("lock", g.Lock, t.Locks[name]); text != "" {
			wrong = append(wrong, name+text)
		} else if g.Problem != "" {
			v.Say("note: tasks of %s are left to other workers: %s", name, g.Problem)
		}
	}
	if len(wrong) > 0 {
		return "", ui.WithHint(fmt.Errorf("the queue of stack %s has tasks that this machine cannot take: of its "+
			"generators %s", t.Name,
			ui.Some(wrong, 5)), "check out the commit that the stack was deployed from, then ops generators sync; "+
			"or use a container of the stack's image (docs/WORKERS.md)")
	}
	return dir, nil
}

// prepareFor makes the environments of those generators that the target has, or of all if
// it names none, as far as they are in the folder.
func (v Inventory) prepareFor(ctx context.Context, t *target.Target) (*generator.Index, error) {
	here, err := v.Folder()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, g := range here {
		if _, there := t.Generators[g.Name]; there || t.Generators == nil {
			names = append(names, g.Name)
		}
	}
	if len(names) == 0 {
		return &generator.Index{}, nil
	}
	return local.Prepare(ctx, v.LocalDir, v.Generators, names, func(line string) { v.Say("%s", line) })
}

// differs describes a commit or a lock that is not the target's. What is not known is no difference.
func differs(what, here, there string) string {
	if here == there || here == "" || there == "" {
		return ""
	}
	return fmt.Sprintf(" (%s %s, not %s)", what, ui.Short(here), ui.Short(there))
}
