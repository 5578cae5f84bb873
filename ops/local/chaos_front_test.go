package local

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
)

// window is a time in which the bucket does one thing to a part of its requests.
type window struct {
	until time.Time
	fault fault
	part  float64
}

// front stands before the endpoints of a stack and does to requests what
// networks and services do: it refuses them, resets connections before and after
// they were executed, cuts answers off, holds them up. What it does to the n-th
// request of a kind is a function of the seed.
//
// It knows HTTP, because half of the faults lie between a request's execution
// and its answer. Proxies that work on connections cannot place them there.
type front struct {
	seed     uint64
	rate     float64       // of the requests that something happens to
	dateSkew time.Duration // of the bucket's clock, as its answers show it
	hurry    time.Duration // messages are hidden for no longer; 0 for as long as they say
	log      func(format string, args ...any)

	S3, SQS *httptest.Server
	outputs atomic.Pointer[stack.Outputs] // the real endpoints
	on      atomic.Bool
	window  atomic.Pointer[window]
	mu      sync.Mutex
	counts  map[string]uint64 // requests by kind
	hits    map[string]int    // by fault
}

func (f *front) start() {
	f.counts, f.hits = map[string]uint64{}, map[string]int{}
	f.on.Store(true)
	f.S3 = httptest.NewServer(f.handler(kindS3, func(o *stack.Outputs) string { return o.S3Endpoint }))
	f.SQS = httptest.NewServer(f.handler(kindSQS, func(o *stack.Outputs) string { return o.SQSEndpoint }))
}

func (f *front) stop() {
	f.S3.CloseClientConnections()
	f.SQS.CloseClientConnections()
	f.S3.Close()
	f.SQS.Close()
}

// kindS3 is, for example, "PUT receipts".
func kindS3(r *http.Request) string {
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 3)
	what := "list"
	if len(parts) > 1 && parts[1] != "" {
		what = parts[1]
	}
	return r.Method + " " + what
}

func kindSQS(r *http.Request) string {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	return operation
}

// fault is what happens to one request.
type fault int

const (
	none      fault = iota
	internal        // 500
	slowDown        // 503
	busyWith        // 409 to a conditional put: another one is under way
	reset           // before the request is executed
	lost            // after it, instead of the answer
	cut             // in the middle of the answer
	slow            // the request is held up
	slowReply       // the answer is
	silence         // the request is taken and never answered
)

func (f fault) String() string {
	return []string{"none", "500", "503", "409", "reset", "answer lost", "answer cut", "slow", "slow answer", "silence"}[f]
}

// decide draws the fault of the next request of a kind.
func (f *front) decide(kind string, conditional bool) (fault, time.Duration) {
	f.mu.Lock()
	n := f.counts[kind]
	f.counts[kind]++
	f.mu.Unlock()
	if !f.on.Load() {
		return none, 0
	}
	h := fnv.New64a()
	_, _ = io.WriteString(h, kind)
	random := rand.New(rand.NewPCG(f.seed^h.Sum64(), n)) //nolint:gosec // repeatable
	if w := f.window.Load(); w != nil && endpointIsS3(kind) && time.Now().Before(w.until) && random.Float64() < w.part {
		return w.fault, 0
	}
	if random.Float64() >= f.rate {
		return none, 0
	}
	chosen := fault(1 + random.IntN(int(slowReply)))
	if chosen == busyWith && !conditional {
		chosen = lost
	}
	wait := time.Duration(20+random.IntN(600)) * time.Millisecond
	f.mu.Lock()
	f.hits[chosen.String()]++
	f.mu.Unlock()
	f.log("%s no. %d: %s", kind, n, chosen)
	return chosen, wait
}

func (f *front) handler(kindOf func(*http.Request) string, endpoint func(*stack.Outputs) string) http.Handler {
	transport := &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			hangUp(w)
			return
		}
		kind := kindOf(r)
		chosen, wait := f.decide(kind, r.Header.Get("If-None-Match")+r.Header.Get("If-Match") != "")
		switch chosen {
		case internal:
			refuse(w, r, http.StatusInternalServerError, "InternalError")
			return
		case slowDown:
			refuse(w, r, http.StatusServiceUnavailable, "SlowDown")
			return
		case busyWith:
			refuse(w, r, http.StatusConflict, "ConditionalRequestConflict")
			return
		case reset:
			hangUp(w)
			return
		case silence:
			<-r.Context().Done() // until the client gives it up
			hangUp(w)
			return
		case slow:
			select {
			case <-r.Context().Done(): // whoever sent it is gone, and so is what was on the way
				hangUp(w)
				return
			case <-time.After(wait):
			}
		}
		answer, text, err := f.forward(transport, r, f.hasten(kind, body), endpoint)
		switch {
		case err != nil || chosen == lost:
			hangUp(w)
			return
		case chosen == slowReply:
			time.Sleep(wait)
		case chosen == cut && len(text) > 0:
			text = text[:len(text)/2]
			defer hangUp(w)
		case chosen == cut:
			hangUp(w)
			return
		}
		for name, values := range answer.Header {
			w.Header()[name] = values
		}
		for _, name := range []string{"Date", "Last-Modified"} { // both go by one clock
			if date, err := http.ParseTime(answer.Header.Get(name)); err == nil && endpointIsS3(kind) {
				w.Header().Set(name, date.Add(f.dateSkew).UTC().Format(http.TimeFormat))
			}
		}
		w.WriteHeader(answer.StatusCode)
		_, _ = w.Write(text)
		_ = http.NewResponseController(w).Flush()
	})
}

func endpointIsS3(kind string) bool { return strings.Contains(kind, " ") }

// forward executes a request, whatever becomes of whoever sent it.
func (f *front) forward(transport *http.Transport, r *http.Request, body []byte,
	endpoint func(*stack.Outputs) string) (*http.Response, []byte, error) {
	o := f.outputs.Load()
	if o == nil {
		return nil, nil, http.ErrServerClosed
	}
	request, err := http.NewRequest(r.Method, endpoint(o)+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	request.Header, request.Host = r.Header.Clone(), r.Host // they are signed
	request.Header.Del("Expect")
	request.ContentLength = int64(len(body))
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer, text, err
}

// hasten shortens for how long messages are hidden, because schedules are
// mostly that. Holds are no shorter, so workers meet living ones more often.
func (f *front) hasten(kind string, body []byte) []byte {
	if f.hurry == 0 || kind != "ChangeMessageVisibility" && kind != "ReceiveMessage" {
		return body
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return body
	}
	seconds, err := strconv.Atoi(string(fields["VisibilityTimeout"]))
	if limit := int(f.hurry.Seconds()); err == nil && seconds > limit {
		fields["VisibilityTimeout"] = json.RawMessage(strconv.Itoa(limit))
	}
	short, err := json.Marshal(fields)
	if err != nil {
		return body
	}
	return short
}

func refuse(w http.ResponseWriter, r *http.Request, status int, code string) {
	if r.Header.Get("X-Amz-Target") != "" {
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"__type":"com.amazonaws.sqs#%s","message":"chaos"}`, code)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>chaos</Message></Error>`, code)
}

// hangUp resets the connection.
func hangUp(w http.ResponseWriter) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := connection.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = connection.Close()
}
