package workers

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// instance runs one worker process after the other and serves them the Lambda
// runtime API, from which they get their work.
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
type instance struct {
	pool    *Pool
	number  int
	address string           // of the runtime API, with a secret
	idle    chan struct{}    // the process has asked for its next invocation
	next    chan *invocation // and gets it here
	mu      sync.Mutex
	current *invocation
}

// invocation is one message being worked on.
type invocation struct {
	id       string
	payload  []byte
	deadline time.Time
	answer   chan answer
}

type answer struct {
	failed bool // of the function itself
	body   []byte
}

// newInstance serves a runtime API until ctx ends.
func newInstance(ctx context.Context, group *sync.WaitGroup, p *Pool, number int) (*instance, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	secret := "/" + rand.Text() // else every user of the machine could take tasks, and answer that they are done
	w := &instance{pool: p, number: number, address: l.Addr().String() + secret, idle: make(chan struct{}),
		next: make(chan *invocation)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+secret+"/2018-06-01/runtime/invocation/next", w.serveNext)
	mux.HandleFunc("POST "+secret+"/2018-06-01/runtime/invocation/{id}/response",
		func(rw http.ResponseWriter, r *http.Request) { w.serveAnswer(rw, r, false) })
	mux.HandleFunc("POST "+secret+"/2018-06-01/runtime/invocation/{id}/error",
		func(rw http.ResponseWriter, r *http.Request) { w.serveAnswer(rw, r, true) })
	mux.HandleFunc("POST "+secret+"/2018-06-01/runtime/init/error",
		func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusAccepted) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	group.Go(func() { _ = server.Serve(l) })
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return w, nil
}

func (w *instance) serveNext(rw http.ResponseWriter, r *http.Request) {
	select {
	case w.idle <- struct{}{}:
	case <-r.Context().Done():
		return
	}
	select {
	case inv := <-w.next:
		deadline := inv.deadline
		if behind := w.pool.config.Behind; behind != nil {
			deadline = deadline.Add(behind(w.number)) // by the worker's clock
		}
		h := rw.Header()
		h.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(deadline.UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", w.pool.config.FunctionARN)
		h.Set("Content-Type", "application/json")
		_, _ = rw.Write(inv.payload)
	case <-r.Context().Done():
	}
}

func (w *instance) serveAnswer(rw http.ResponseWriter, r *http.Request, failed bool) {
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, 6<<20)) // Lambda's own limit
	w.mu.Lock()
	inv := w.current
	w.mu.Unlock()
	if err != nil || inv == nil || inv.id != r.PathValue("id") {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	select {
	case inv.answer <- answer{failed, body}:
	default:
	}
	rw.WriteHeader(http.StatusAccepted)
}
