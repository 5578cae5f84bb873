package store_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Many make and extend a manifest at once, and answers get lost: one of them has
// made it, its seed stays, and every change of the others is there once.
func TestChangeManifest(t *testing.T) {
	t.Parallel()
	all, network := newStore(t)
	st := all.In("race")
	network.loseAnswers(3)
	const writers = 12
	var group errgroup.Group
	var made atomic.Int64
	seeds := make([]int, writers)
	for i := range writers {
		group.Go(func() error {
			m, err := st.ChangeManifest(t.Context(), func(m *task.Manifest) (*task.Manifest, error) {
				if m == nil {
					made.Add(1)
					first := task.NewManifest("race", i, task.Files)
					m = &first
				}
				if !m.Worked(fmt.Sprint("image ", i)) {
					return nil, nil
				}
				return m, nil
			})
			seeds[i] = m.Seed
			return err
		})
	}
	check(t, group.Wait())
	m, err := st.Manifest(t.Context())
	check(t, err)
	images := slices.Sorted(slices.Values(m.Images()))
	if len(images) != writers || len(slices.Compact(images)) != writers || made.Load() == 0 {
		t.Errorf("there are %v", images)
	}
	for i, seed := range seeds {
		if seed != m.Seed {
			t.Errorf("writer %d got the seed %d, it is %d", i, seed, m.Seed)
		}
	}
	if _, err := all.Manifest(t.Context()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("another dataset: %v", err)
	}
	refused := errors.New("no")
	if _, err := st.ChangeManifest(t.Context(), func(*task.Manifest) (*task.Manifest, error) {
		return nil,
			refused
	}); !errors.Is(err, refused) {
		t.Errorf("refused: %v", err)
	}
}

// Who may not list a bucket as a whole is told 403 of what is missing; a listing below
// the name tells it from what may not be read.
func TestManifestOfALimitedRole(t *testing.T) {
	t.Parallel()
	st, network := newStore(t)
	network.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		response, err := send()
		if err == nil && r.Method == http.MethodGet && !r.URL.Query().Has("list-type") &&
			response.StatusCode == http.StatusNotFound {
			response.StatusCode = http.StatusForbidden
		}
		return response, err
	})
	first := task.NewManifest("", 7, task.Tar)
	m, err := st.ChangeManifest(t.Context(), func(there *task.Manifest) (*task.Manifest, error) { return &first, nil })
	if err != nil || m.Seed != 7 {
		t.Errorf("made as %+v, %v", m, err)
	}
	network.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		response, err := send()
		if err == nil && r.Method == http.MethodGet && !r.URL.Query().Has("list-type") {
			response.StatusCode = http.StatusForbidden
		}
		return response, err
	})
	if _, err := st.ChangeManifest(t.Context(), func(there *task.Manifest) (*task.Manifest, error) {
		return &first,
			nil
	}); err == nil {
		t.Error("a manifest that may not be read was written over")
	}
}

// A dataset is deleted with all that belongs to it and nothing else, its manifest
// last: what was interrupted goes on.
func TestDeleteDataset(t *testing.T) {
	t.Parallel()
	all, network := newStore(t)
	list := makeSamples(t, 0, 5, 10)
	for _, name := range []task.Dataset{"v1", "v2", "v22"} {
		st := all.In(name)
		_, err := st.ChangeManifest(t.Context(), func(*task.Manifest) (*task.Manifest, error) {
			m := task.NewManifest(name, 1, task.Files)
			return &m, nil
		})
		_, flagged := st.PutNew(t.Context(), name.Prefix(task.FlagKind)+"maze/00000000_00009999.json", []byte("{}"))
		check(t, errors.Join(err, flagged, st.PutFiles(t.Context(), "maze", list), st.PutRun(t.Context(), task.Run{ID: "r"})))
		_, err = st.PutFailure(t.Context(), store.Failure{Generator: "maze", Name: "x", RequestID: "m"})
		check(t, err)
		commit(t, st, task.Range{End: 5}, 0, 1)
	}
	before := keys(t, all, "")
	st := all.In("v2")
	limited, kill := context.WithCancel(t.Context())
	network.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		if r.Method == http.MethodGet && r.URL.Query().Get("prefix") == "failures/v2/" {
			kill()
			return nil, limited.Err()
		}
		return send()
	})
	n := 0
	if err := st.DeleteDataset(limited, func(some int) { n += some }); err == nil ||
		n != len(list)*len(list[0].Files)+1 {
		t.Errorf("interrupted after %d: %v", n, err)
	}
	if _, err := st.Manifest(t.Context()); err != nil {
		t.Errorf("the manifest of what is left: %v", err)
	}
	network.set(nil)
	check(t, st.DeleteDataset(t.Context(), func(some int) { n += some }))
	left := keys(t, all, "")
	for _, key := range left {
		if key == "datasets/v2.json" || strings.Contains(key, "/v2/") {
			t.Errorf("left: %s", key)
		}
	}
	if len(left)*3 != len(before)*2 {
		t.Errorf("%d of %d are left", len(left), len(before))
	}
	names, err := all.Datasets(t.Context())
	if err != nil || !slices.Equal(names, []task.Dataset{"v1", "v22"}) {
		t.Errorf("left: %v, %v", names, err)
	}
}
