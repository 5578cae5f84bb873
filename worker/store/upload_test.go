package store_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// An object of which nothing was written is there, too.
func TestUploadOfNothing(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	o, err := s.Upload(t.Context(), "exports/metadata.jsonl", 0, func(io.Writer) error { return nil })
	check(t, err)
	if data := content(t, s, o.Key); len(data) != 0 || o.Size != 0 {
		t.Errorf("%+v has %d bytes", o, len(data))
	}
}

// Whatever the estimate, an upload does not run out of parts: behind the first ones, each few are twice as large.
func TestUploadLargerThanEstimated(t *testing.T) {
	store.SetParts(t, 2, 1)
	s, n := newStore(t)
	var mu sync.Mutex
	var sizes []int64
	n.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		if r.URL.Query().Has("partNumber") {
			mu.Lock()
			sizes = append(sizes, r.ContentLength>>20)
			mu.Unlock()
		}
		return send()
	})
	h := sha256.New()
	o, err := s.Upload(t.Context(), "exports/large.tar", 1, func(w io.Writer) error {
		block := make([]byte, 1<<20+1)
		for i := range 60 {
			block[i]++
			if _, err := io.MultiWriter(w, h).Write(block); err != nil {
				return err
			}
		}
		return nil
	})
	check(t, err)
	data := content(t, s, o.Key)
	if sum := hex.EncodeToString(h.Sum(nil)); o.SHA256 != sum || o.Size != 60<<20+60 || len(data) != 60<<20+60 {
		t.Errorf("%+v, not %s", o, sum)
	}
	if want := []int64{5, 5, 10, 20, 20}; !slices.Equal(sizes, want) {
		t.Errorf("parts of %v MiB, not %v", sizes, want)
	}
}

// 5 TB fit into the parts that S3 takes.
func TestUploadParts(t *testing.T) {
	var size, total int64 = store.PartSize, 0
	steady, every := store.Parts()
	for n := range 10_000 {
		if n >= steady && (n-steady)%every == 0 {
			size *= 2
		}
		if total += size; total >= 5e12 {
			return
		}
	}
	t.Errorf("%d bytes fit", total)
}
