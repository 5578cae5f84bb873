package store_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// S3 answers 409 where two conditional requests meet, and has carried out neither:
// that says nothing of who is first, and every such request is made again.
func TestConflictIsTriedAgain(t *testing.T) {
	t.Parallel()
	s, n := newStore(t)
	var mu sync.Mutex
	answered := map[string]int{}
	n.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		conditional := r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Match") != "" || r.Method == http.MethodPost &&
			r.URL.Query().Has("uploadId")
		mu.Lock()
		defer mu.Unlock()
		if key := r.URL.Path; conditional && answered[key] < 2 {
			answered[key]++
			body := []byte("<Error><Code>ConditionalRequestConflict</Code><Message>another one is under way</Message></Error>")
			return &http.Response{StatusCode: http.StatusConflict, Status: "409 Conflict", Proto: "HTTP/1.1", ProtoMajor: 1,
				ProtoMinor: 1,
				Header:     http.Header{"Content-Type": {"application/xml"}}, Body: io.NopCloser(bytes.NewReader(body)),
				ContentLength: int64(len(body)), Request: r}, nil
		}
		return send()
	})
	commit(t, s, task.Range{End: 4}, 0, 1, 2, 3)
	if c, err := s.Cell(t.Context(), task.DefaultDataset.CellKey("maze", task.Range{End: 4})); err != nil ||
		len(c.Committed()) != 4 {
		t.Errorf("the cell is %+v, %v", c, err)
	}
	run := task.Run{ID: "r1", Samples: 4}
	check(t, s.PutRun(t.Context(), run))
	check(t, s.ChangeRun(t.Context(), "r1",
		func(r *task.Run) bool { changed := r.Image == ""; r.Image = "i"; return changed }))
	if r, err := s.Run(t.Context(), "r1"); err != nil || r.Image != "i" {
		t.Errorf("the run is %+v, %v", r, err)
	}
	o, err := s.PutShard(t.Context(), "maze", task.Chunk{Keep: task.Range{End: 4}}, 1, makeSamples(t, 0, 2, 6<<20))
	check(t, err)
	if data := content(t, s, o.Key); int64(len(data)) != o.Size {
		t.Errorf("the shard has %d bytes, want %d", len(data), o.Size)
	}
	shards := 0
	for key, times := range answered {
		if times != 2 {
			t.Errorf("%s was answered with 409 %d times", key, times)
		}
		if strings.HasSuffix(key, ".tar.gz") {
			shards++
		}
	}
	if shards != 1 || len(answered) != 3 {
		t.Errorf("answered: %v", answered)
	}
}
