package store

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// brief is the limit of silence in these tests: longer than a process waits for a CPU on a machine under load.
const brief = 1500 * time.Millisecond

// silent is a server that does not do all it should.
type silent struct {
	*httptest.Server
	requests atomic.Int32
	release  chan struct{}
}

// newSilent serves with a function that knows the number of the request, from 1 on.
func newSilent(t *testing.T, serve func(s *silent, n int32, w http.ResponseWriter, r *http.Request)) *silent {
	s := &silent{release: make(chan struct{})}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serve(s, s.requests.Add(1), w, r)
	}))
	s.Start()
	t.Cleanup(func() {
		close(s.release)
		s.Close()
	})
	return s
}

func (s *silent) store() *Store {
	return New(s3.New(s3.Options{BaseEndpoint: &s.URL, Region: "us-east-2", HTTPClient: httpClient(nil, brief),
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")},
		ClientOptions), "bucket")
}

func list(s *Store) error {
	for _, err := range s.List(context.Background(), "p/", "") {
		return err
	}
	return nil
}

const empty = `<?xml version="1.0"?><ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated></ListBucketResult>`

// A server that says nothing, before it answers, in the middle of an answer or in the
// middle of a request, costs the limit of silence and one more request.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	large := bytes.Repeat([]byte("more than sockets hold "), 1<<19)
	read := func(s *Store) error {
		_, err := s.read(context.Background(), "k")
		return err
	}
	for name, test := range map[string]struct {
		serve func(s *silent, n int32, w http.ResponseWriter, r *http.Request)
		do    func(s *Store) error
	}{
		"never answers": {func(s *silent, n int32, w http.ResponseWriter, _ *http.Request) {
			if n == 1 {
				<-s.release
			}
			_, _ = io.WriteString(w, empty)
		}, list},
		"stops in a listing": {func(s *silent, n int32, w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, empty[:50])
			if n == 1 {
				_ = http.NewResponseController(w).Flush()
				<-s.release
			}
			_, _ = io.WriteString(w, empty[50:])
		}, list},
		"stops in an object": {func(s *silent, n int32, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "01234")
			if n == 1 {
				_ = http.NewResponseController(w).Flush()
				<-s.release
			}
			_, _ = io.WriteString(w, "56789")
		}, read},
		"does not read": {func(s *silent, n int32, _ http.ResponseWriter, r *http.Request) {
			if n == 1 {
				<-s.release
			}
			if body, err := io.ReadAll(r.Body); err == nil && !bytes.Equal(body, large) {
				panic("another body")
			}
		}, func(s *Store) error { return s.put(context.Background(), "k", large) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newSilent(t, test.serve)
			began := time.Now()
			err := test.do(server.store())
			// on a machine under load the next try may seem silent, too
			if n, took := server.requests.Load(), time.Since(began); err != nil || took < brief || n < 2 || n > 4 {
				t.Errorf("%d requests, %s: %v", n, took, err)
			}
		})
	}
}

// A server that is never heard ends a command with a sentence.
func TestSilentForEver(t *testing.T) {
	t.Parallel()
	server := newSilent(t, func(s *silent, _ int32, _ http.ResponseWriter, _ *http.Request) { <-s.release })
	err := list(server.store())
	if err == nil || !strings.Contains(err.Error(), "was silent for 1.5s") || server.requests.Load() != 3 {
		t.Errorf("%d requests: %v", server.requests.Load(), err)
	}
}

// What is slow but not silent has all the time it takes: a body both ways, and a
// long poll that is shorter than the limit.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	slowly := func(do func(i int)) {
		for i := range 10 {
			time.Sleep(brief / 5)
			do(i)
		}
	}
	server := newSilent(t, func(_ *silent, _ int32, w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Amz-Target") != "" {
			time.Sleep(brief * 2 / 3) // as long as 20 s of 30 s
			w.Header().Set("Content-Type", "application/x-amz-json-1.0")
			_, _ = io.WriteString(w, "{}")
			return
		}
		if r.Method == http.MethodPut {
			part := make([]byte, 1<<20)
			slowly(func(int) { _, _ = io.ReadFull(r.Body, part) })
			_, _ = io.Copy(io.Discard, r.Body)
			return
		}
		w.Header().Set("Content-Length", "10")
		slowly(func(int) {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
		})
	})
	s := server.store()
	var group sync.WaitGroup
	group.Go(func() {
		if o, err := s.read(t.Context(), "k"); err != nil || len(o.text) != 10 {
			t.Errorf("read %q, %v", o.text, err)
		}
	})
	group.Go(func() {
		if err := s.put(t.Context(), "k", make([]byte, 16<<20)); err != nil {
			t.Error(err)
		}
	})
	queue := sqs.New(sqs.Options{BaseEndpoint: &server.URL, Region: "us-east-2", HTTPClient: httpClient(nil, brief),
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""), Retryer: LimitedRetries()})
	for range 2 { // the second on a connection that has been idle
		if _, err := queue.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &server.URL,
			WaitTimeSeconds: 20}); err != nil {
			t.Error(err)
		}
		time.Sleep(brief * 2 / 3)
	}
	group.Wait()
	if n := server.requests.Load(); n != 4 {
		t.Errorf("%d requests", n)
	}
}

// Connections that are dead without a word, as after a worker was frozen for long,
// cost one more request however many they are, and none if they were idle for
// longer than the limit.
func TestStaleConnections(t *testing.T) {
	t.Parallel()
	const many = 8
	for name, test := range map[string]struct {
		idle     time.Duration
		requests int32
	}{"shortly": {0, many + 2}, "for long": {brief + brief/2, many + 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var all atomic.Int32
			together := make(chan struct{})
			var dead atomic.Bool
			var old sync.Map // addresses of the connections that were there first
			server := newSilent(t, func(s *silent, n int32, w http.ResponseWriter, r *http.Request) {
				if n <= many { // on a connection of its own each
					if old.Store(r.RemoteAddr, true); all.Add(1) == many {
						close(together)
					}
					<-together
				} else if _, first := old.Load(r.RemoteAddr); first && dead.Load() {
					<-s.release
				}
				_, _ = io.WriteString(w, empty)
			})
			s := server.store()
			if err := s.each(t.Context(), many, func(context.Context, int) error { return list(s) }); err != nil {
				t.Fatal(err)
			}
			dead.Store(true)
			time.Sleep(test.idle)
			began := time.Now()
			if err := list(s); err != nil || server.requests.Load() != test.requests || time.Since(began) > 5*brief {
				t.Errorf("%d requests, %s: %v", server.requests.Load(), time.Since(began), err)
			}
		})
	}
}
