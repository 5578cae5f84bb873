package inventory

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

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
		return "", ui.WithHint(fmt.Errorf("the queue of stack %s has tasks that this machine cannot take: of its generators %s", t.Name,
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
