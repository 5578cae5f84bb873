package worker

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type datasets struct {
	mu    sync.Mutex
	known map[task.Dataset]manifest
}

type manifest struct {
	task.Manifest
	read time.Time
}

// fit checks a task against its dataset and fills in what it lacks, with one request unless the manifest is known. One
// of no run makes a missing manifest. The error is a *task.ContradictionError, a *task.InvalidError, or the store's.
func (d *datasets) fit(ctx context.Context, st *store.Store, t *task.Task, g *generator.Generator, image string) error {
	pinned := task.PinnedGenerator{Name: g.Name, Commit: g.Commit, Lock: g.Lock, Options: t.Options,
		ChunkSize: cmp.Or(t.ChunkSize, g.ChunkSize, task.DefaultChunkSize)}
	if t.Options == nil && t.RunID == "" { // the catalogue's, for a dataset that does not have the generator
		pinned.Options = g.Options
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	began := time.Now()
	// Not for longer: a dataset may be deleted and made anew.
	if m := d.known[t.Dataset]; time.Since(m.read) < time.Minute && m.Generator(g.Name) != nil &&
		m.Fit(t, pinned) == nil && !m.Learn(pinned) {
		return t.Validate()
	}
	m, err := st.In(t.Dataset).ChangeManifest(ctx, func(m *task.Manifest) (*task.Manifest, error) {
		if m == nil && t.RunID != "" {
			return nil, &task.ContradictionError{Dataset: t.Dataset, What: "no manifest: it was deleted"}
		}
		first := m == nil
		if first {
			m = new(task.NewManifest(t.Dataset, task.DefaultSeed, cmp.Or(t.Format, task.Files)))
		}
		added := m.Add(pinned)
		if err := m.Fit(t, pinned); err != nil {
			return nil, err
		}
		learned, worked := m.Learn(pinned), m.Worked(image)
		if !first && !added && !learned && !worked {
			return nil, nil
		}
		return m, nil
	})
	if err != nil {
		return err
	}
	d.known[t.Dataset] = manifest{m, began}
	return t.Validate()
}
