package worker_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A message as the predecessor sent it makes the manifest where there is none, and
// may have a seed of its own. What contradicts the manifest is refused, and told how
// to go on; another lock is taken in by an update.
func TestDatasetOfWorker(t *testing.T) {
	t.Parallel()
	st := s3test.New(t).Store(nil)
	generators := install(t, "good")
	change := func(what func(*generator.Generator)) {
		t.Helper()
		index, err := generator.LoadIndex(generators)
		if err != nil {
			t.Fatal(err)
		}
		what(&index.Generators[0])
		text, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(generators, generator.IndexFile), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	environment := func(commit, lock string) {
		t.Helper()
		change(func(g *generator.Generator) { g.Commit, g.Lock = commit, lock })
	}
	h, err := worker.New(worker.Config{Bucket: "bucket", Generators: generators, Image: "image@sha256:1"}, st, nil,
		t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	handle := func(payload, want string) {
		t.Helper()
		ctx, cancel := invocation(t.Context(), "r")
		defer cancel()
		got, err := h.Handle(ctx, json.RawMessage(payload))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %+v, %v; want %q", payload, got, err, want)
		}
	}
	manifest := func() task.Manifest {
		t.Helper()
		m, err := st.Manifest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}

	environment("", "")
	handle(`{"type":"good","num_samples":2,"start_index":0,"seed":5,"output_format":"files","dedup":false,"output_bucket":null}`, "")
	m := manifest()
	if g := m.Generator("good"); m.Seed != task.DefaultSeed || m.Format != task.Files || g == nil ||
		!reflect.DeepEqual(*g, task.PinnedGenerator{Name: "good", ChunkSize: task.DefaultChunkSize}) ||
		!reflect.DeepEqual(m.Images(), []string{"image@sha256:1"}) {
		t.Errorf("the manifest is %+v", m)
	}
	handle(`{"type":"good","num_samples":1,"start_index":20,"seed":6}`, "")

	// What was not known is learned, once.
	environment("aaaa", "1111")
	handle(`{"type":"good","num_samples":1,"start_index":40,"seed":5}`, "")
	handle(`{"type":"good","num_samples":1,"start_index":60,"seed":5}`, "")
	if m := manifest(); !reflect.DeepEqual(m.Commits("good"), []string{"aaaa"}) ||
		!reflect.DeepEqual(m.Locks("good"), []string{"1111"}) || len(m.History) != 2 {
		t.Errorf("the manifest is %+v", m)
	}

	const other = ": ops submit --dataset v2 makes another dataset"
	handle(`{"type":"good","num_samples":1,"start_index":80,"seed":7,"run_id":"r"}`, "dataset v1 has the seed 42, not 7"+
		other)
	handle(`{"type":"good","num_samples":1,"start_index":80,"seed":42,"chunk_size":5}`,
		"dataset v1 has chunks of 20, not of 5, of good"+other)
	handle(`{"type":"good","num_samples":1,"start_index":80,"output_format":"tar"}`,
		"dataset v1 has the format files, not tar"+other)
	handle(`{"type":"good","num_samples":1,"start_index":80,"seed":42,"run_id":"r","dataset":"v2"}`,
		"dataset v2 has no manifest: it was deleted")
	environment("bbbb", "1111")
	handle(`{"type":"good","num_samples":1,"start_index":80}`,
		"dataset v1 has commit aaaa, not bbbb, of good: ops submit --update-generators takes the other one in from now on, --dataset v2 makes another dataset")
	environment("aaaa", "2222")
	handle(`{"type":"good","num_samples":1,"start_index":80}`,
		"dataset v1 has lock 1111, not 2222, of good: ops submit --update-generators takes the other one in from now on, --dataset v2 makes another dataset")
	if _, err := st.ChangeManifest(t.Context(), func(m *task.Manifest) (*task.Manifest, error) {
		m.Update(task.PinnedGenerator{Name: "good", Commit: "aaaa", Lock: "2222"})
		return m, nil
	}); err != nil {
		t.Fatal(err)
	}
	handle(`{"type":"good","num_samples":1,"start_index":80}`, "")
	environment("aaaa", "1111") // a worker of before
	handle(`{"type":"good","num_samples":1,"start_index":100}`, "dataset v1 has lock 2222, not 1111, of good")
	// Options: what a message does not say the dataset says, and for a new one the catalogue.
	change(func(g *generator.Generator) {
		g.Commit, g.Lock, g.Options, g.Flags.Options = "aaaa", "2222", task.Options{"difficulty": "3"}, []string{"difficulty"}
	})
	handle(`{"type":"good","num_samples":1,"start_index":120}`, "")
	handle(`{"type":"good","num_samples":1,"start_index":140,"options":{"difficulty":"3"}}`,
		"dataset v1 has no options, not difficulty=3, of good"+other)
	handle(`{"type":"good","num_samples":1,"dataset":"hard","options":{"width":"16"}}`,
		"generator good has no option width: it has difficulty")
	// The test's generator refuses what it is given.
	handle(`{"type":"good","num_samples":1,"dataset":"hard"}`, "unrecognized arguments: ")
	handle(`{"type":"good","num_samples":1,"dataset":"hard","seed":42,"run_id":"r"}`,
		"dataset hard has the options difficulty=3, not none, of good: ops submit --dataset hard-2 makes another dataset")
	change(func(g *generator.Generator) { g.Options = nil })

	// A generator's dataset does not hold another's up.
	handle(`{"type":"good","num_samples":1,"seed":9,"dataset":"v2"}`, "")
}
