package inventory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// InRun returns those generators that a run has.
func InRun(run task.Run, list []generator.Generator) []generator.Generator {
	return slices.DeleteFunc(slices.Clone(list), func(g generator.Generator) bool {
		return !slices.ContainsFunc(run.Generators, func(r task.RunGenerator) bool { return r.Name == g.Name })
	})
}

// KeepLocks puts the locks of generators into the bucket, so that the environments can
// be made again without the checkout that sent the run.
func (v Inventory) KeepLocks(ctx context.Context, st *store.Store, list []generator.Generator) error {
	kept := map[string]bool{"": true}
	for _, g := range list {
		hash := g.Lock
		if hash == "" && g.Dir != "" { // a stack on AWS without a list of its generators
			var err error
			if hash, err = environment.Locked(v.Generators, &g); err != nil {
				return err
			}
		}
		if kept[hash] {
			continue
		}
		kept[hash] = true
		text, err := v.hereLock(ctx, hash)
		if err == nil && text != nil {
			err = st.PutLock(ctx, hash, text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// FindLock finds a lock by its hash: on this machine, or in the bucket.
func (v Inventory) FindLock(ctx context.Context, st *store.Store, receipt store.Receipt) ([]byte, error) {
	hash := receipt.Lock
	if hash == "" {
		return nil, nil
	}
	text, err := v.hereLock(ctx, hash)
	if err != nil || text != nil {
		return text, err
	}
	text, err = st.Lock(ctx, hash)
	switch {
	case errors.Is(err, store.ErrNotFound):
		way := "fetch the commit of the repository that had it"
		if receipt.Image != "" {
			way += ", or the image: docker pull " + receipt.Image
		}
		return nil, ui.WithHint(fmt.Errorf(
			"the receipt's lock %.12s is neither in %s, nor in the history of that folder, nor in the bucket", hash,
			ui.FromHere(filepath.Join(v.Generators, environment.LocksFolder))), "%s", way)
	case err != nil:
		return nil, err
	case environment.LockHash(text) != hash:
		return nil, fmt.Errorf("the bucket's lock %.12s is not what its name says: put the right one in its place, or "+
			"delete it", hash)
	}
	return text, nil
}

// hereLock finds a lock by its hash on this machine: in the generators' folder, in the
// local folder, and in the history of git. It is nil if there is none.
func (v Inventory) hereLock(ctx context.Context, hash string) ([]byte, error) {
	folder := filepath.Join(v.Generators, environment.LocksFolder)
	text, err := environment.FindLock(hash, folder, local.LocksDir(v.LocalDir))
	if err != nil || text != nil {
		return text, err
	}
	git := func(args ...string) []byte {
		out, _ := exec.CommandContext(ctx, "git", append([]string{"-C", v.Generators}, args...)...).Output()
		return out // none where there is no git, or no repository
	}
	seen := map[string]bool{}
	for line := range bytes.Lines(git("log", "--all", "--full-history", "--raw", "--no-abbrev", "--no-renames",
		"--format=", "--", environment.LocksFolder)) {
		fields := strings.Fields(string(line)) // modes, blobs, state, name
		if len(fields) < 5 || seen[fields[3]] {
			continue
		}
		seen[fields[3]] = true
		if text := git("cat-file", "blob", fields[3]); environment.LockHash(text) == hash {
			return text, nil
		}
	}
	return nil, context.Cause(ctx)
}

// LockState is the state of the lock of a generator: kept, stale or missing; "" if it requires nothing.
func (v Inventory) LockState(g *generator.Generator) (string, error) {
	hash, err := environment.Locked(v.Generators, g)
	switch {
	case err != nil:
		return "", err
	case hash != "":
		return "kept", nil
	case len(g.Requirements) == 0:
		return "", nil
	case environment.Stale(v.Generators, g):
		return "stale", nil
	}
	return "missing", nil
}
