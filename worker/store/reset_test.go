package store_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A connection that is reset in the middle of a body that is being written costs one
// more request, which sends the body from its beginning.
func TestResetInABody(t *testing.T) {
	t.Parallel()
	server := s3test.New(t)
	to, err := url.Parse(server.URL)
	check(t, err)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // it is signed
	}}
	var mu sync.Mutex
	puts := map[string]int{}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			proxy.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		puts[r.URL.RequestURI()]++
		first := puts[r.URL.RequestURI()] == 1
		mu.Unlock()
		if !first {
			proxy.ServeHTTP(w, r)
			return
		}
		_, _ = io.CopyN(io.Discard, r.Body, r.ContentLength/2)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.(*net.TCPConn).SetLinger(0) // a reset, and not an end
		_ = conn.Close()
	}))
	defer front.Close()
	s := store.New(s3test.Client(front.URL, nil), s3test.Name)
	check(t, s.PutFiles(t.Context(), "maze", makeSamples(t, 0, 3, 1<<20)))
	o, err := s.PutShard(t.Context(), "maze", task.Chunk{Keep: task.Range{End: 4}}, 1, makeSamples(t, 0, 2, 6<<20))
	check(t, err)
	if data := content(t, s, o.Key); int64(len(data)) != o.Size {
		t.Errorf("the shard has %d bytes, want %d", len(data), o.Size)
	}
	if len(puts) < 3+2 {
		t.Errorf("puts: %v", puts)
	}
	for what, n := range puts {
		if n != 2 && !strings.Contains(what, "uploads") {
			t.Errorf("%s was sent %d times", what, n)
		}
	}
}
