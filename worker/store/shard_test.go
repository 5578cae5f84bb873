package store_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// noSuchUpload is what S3 answers to a second completion, and to one of an upload
// that was aborted.
func noSuchUpload(r *http.Request) *http.Response {
	body := []byte("<Error><Code>NoSuchUpload</Code><Message>The specified upload does not exist.</Message></Error>")
	return &http.Response{StatusCode: http.StatusNotFound, Status: "404 Not Found", Proto: "HTTP/1.1", ProtoMajor: 1,
		ProtoMinor: 1,
		Header:     http.Header{"Content-Type": {"application/xml"}}, Body: io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)), Request: r}
}

// The answer to a step of a shard's upload is lost after the step was executed, and
// the next try is told what S3 tells then. The shard is there once, and no upload is
// left.
func TestLostAnswerOfShard(t *testing.T) {
	t.Parallel()
	create := func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploads") }
	part := func(r *http.Request) bool { return r.Method == http.MethodPut && r.URL.Query().Has("partNumber") }
	complete := func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") }
	for name, test := range map[string]struct {
		step  func(*http.Request) bool
		extra int // requests more than an undisturbed upload makes
	}{"create": {create, 1}, "part": {part, 1}, "complete": {complete, 2}} {
		t.Run(name, func(t *testing.T) {
			s, n := newStore(t)
			var mu sync.Mutex
			requests, lost := 0, 0
			n.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
				mu.Lock()
				defer mu.Unlock()
				requests++
				if complete(r) && lost > 0 && name == "complete" {
					return noSuchUpload(r), nil
				}
				response, err := send()
				if err == nil && test.step(r) && lost == 0 {
					lost++
					response.Body.Close()
					return nil, errors.New("read: connection reset by peer")
				}
				return response, err
			})
			o, err := s.PutShard(t.Context(), "maze", task.Chunk{Keep: task.Range{End: 4}}, 1,
				makeSamples(t, 0, 2, 3<<20, 1<<20))
			check(t, err)
			if want := 4 + test.extra; lost != 1 || requests != want {
				t.Errorf("%d requests, want %d; %d answers were lost", requests, want, lost)
			}
			if data := content(t, s, o.Key); int64(len(data)) != o.Size {
				t.Errorf("the shard has %d bytes, want %d", len(data), o.Size)
			}
		})
	}
}

// An upload that is gone without its object, or with one of another size in its
// place, is a failure.
func TestUploadIsGone(t *testing.T) {
	t.Parallel()
	for name, there := range map[string]int{"nothing is there": 0, "something else is there": 5} {
		t.Run(name, func(t *testing.T) {
			s, n := newStore(t)
			aborted := false
			n.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
				aborted = aborted || r.Method == http.MethodDelete && r.URL.Query().Has("uploadId")
				if r.Method == http.MethodPost && r.URL.Query().Has("uploadId") {
					return noSuchUpload(r), nil
				}
				if r.Method == http.MethodHead && there > 0 {
					return &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
						Header: http.Header{"Content-Length": {"5"}},
						Body:   http.NoBody, ContentLength: int64(there), Request: r}, nil
				}
				return send()
			})
			_, err := s.PutShard(t.Context(), "maze", task.Chunk{Keep: task.Range{End: 4}}, 1,
				makeSamples(t, 0, 2, 3<<20, 1<<20))
			if err == nil || !strings.Contains(err.Error(), "NoSuchUpload") || !aborted {
				t.Errorf("it says %v; aborted: %v", err, aborted)
			}
		})
	}
}

// An abort whose answer is lost, like one that says that the upload is gone, changes
// nothing in what the chunk failed with, and is not tried for longer than 5 s.
func TestLostAnswerOfAbort(t *testing.T) {
	t.Parallel()
	s, n := newStore(t)
	aborts := 0
	n.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		switch {
		case r.Method == http.MethodDelete && r.URL.Query().Has("uploadId"):
			if aborts++; aborts > 1 {
				return noSuchUpload(r), nil
			}
			response, err := send()
			if err == nil {
				response.Body.Close()
			}
			return nil, errors.New("read: connection reset by peer")
		case r.Method == http.MethodPut && r.URL.Query().Get("partNumber") == "2":
			response, err := send()
			if err == nil {
				response.Body.Close()
				body := []byte("<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
				return &http.Response{StatusCode: http.StatusForbidden, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
					Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r}, nil
			}
			return response, err
		}
		return send()
	})
	_, err := s.PutShard(t.Context(), "maze", task.Chunk{Keep: task.Range{End: 4}}, 1, makeSamples(t, 0, 2, 3<<20, 1<<20))
	if err == nil || !strings.Contains(err.Error(), "AccessDenied") || aborts != 2 {
		t.Errorf("it says %v after %d aborts", err, aborts)
	}
}
