package worker

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// counted notes the methods of requests to the model.
type counted struct {
	inMemory
	seen []string
}

func (c *counted) Do(r *http.Request) (*http.Response, error) {
	c.seen = append(c.seen, r.Method)
	return c.inMemory.Do(r)
}

// A worker reads a manifest with one GET, and again when a minute is over or a task does not fit what it has.
func TestManifestStaysForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := &bucket{objects: map[string][]byte{}, written: map[string]time.Time{}, pageSize: 1000}
		count := &counted{inMemory: inMemory{model}}
		st := store.New(s3test.Client("http://bucket", count), s3test.Name)
		g := &generator.Generator{Name: "maze", Commit: "aaaa", Lock: "1111"}
		s3test.Pin(t, st, task.Files, &s3test.Generator{Name: "maze", Chunk: 20, Commit: "aaaa", Lock: "1111"})
		d := &datasets{known: map[task.Dataset]manifest{}}
		fits := func(what, want string, seed int) error {
			t.Helper()
			count.seen = nil
			x := task.Task{Generator: "maze", RunID: "r", NumSamples: 1, Seed: seed, Format: task.Files, ChunkSize: 20}
			err := d.fit(t.Context(), st, &x, g, "")
			if got := strings.Join(count.seen, " "); got != want {
				t.Errorf("%s: the requests were %q, want %q", what, got, want)
			}
			return err
		}
		for _, step := range []struct {
			after      time.Duration
			what, want string
		}{{0, "first", "GET"}, {time.Second, "warm", ""}, {58 * time.Second, "warm still", ""},
			{2 * time.Second, "after a minute", "GET"}, {time.Second, "warm again", ""}} {
			time.Sleep(step.after)
			if err := fits(step.what, step.want, 42); err != nil {
				t.Errorf("%s: %v", step.what, err)
			}
		}
		if _, ok := errors.AsType[*task.ContradictionError](fits("another seed", "GET", 7)); !ok {
			t.Error("another seed is not refused")
		}
		if err := st.DeleteDataset(t.Context(), func(int) {}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := fits("deleted", "GET", 42); err == nil || !strings.Contains(err.Error(), "it was deleted") {
			t.Errorf("a deleted dataset: %v", err)
		}
	})
}
