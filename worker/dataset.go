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

// datasets keeps, while the worker is warm, the manifests that tasks fit: for a
// minute, because a dataset may be deleted and made anew.
type datasets struct {
	mu    sync.Mutex
	known map[task.Dataset]manifest
}

type manifest struct {
	task.Manifest
	read time.Time
}

const keepManifest = time.Minute

// fit checks a task against its dataset and fills in what it does not say: with one
// request, and none where the manifest is known. A task of no run makes the manifest,
// with the defaults, where there is none yet. The error is a *task.ContradictionError,
// or the store's.
func (d *datasets) fit(ctx context.Context, st *store.Store, t *task.Task, g *generator.Generator, image string) error {
	pinned := task.PinnedGenerator{Name: g.Name, ChunkSize: t.ChunkSize, Commit: g.Commit, Lock: g.Lock}
	if pinned.ChunkSize == 0 {
		pinned.ChunkSize = cmp.Or(g.ChunkSize, task.DefaultChunkSize)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	began := time.Now()
	if m := d.known[t.Dataset]; time.Since(m.read) < keepManifest && m.Generator(g.Name) != nil &&
		m.Fit(t, pinned) == nil && !m.Learn(pinned) {
		return t.Validate()
	}
	m, err := st.In(t.Dataset).ChangeManifest(ctx, func(m *task.Manifest) (*task.Manifest, error) {
		if m == nil && t.RunID != "" {
			return nil, &task.ContradictionError{Dataset: t.Dataset, What: "no manifest: it was deleted"}
		}
		first := m == nil
		if first {
			made := task.NewManifest(t.Dataset, task.DefaultSeed, cmp.Or(t.Format, task.Files))
			m = &made
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
