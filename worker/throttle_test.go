package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// hurried waits a hundredth of the time before it tries again.
type hurried struct{ aws.Retryer }

func (h hurried) RetryDelay(attempt int, err error) (time.Duration, error) {
	d, err := h.Retryer.RetryDelay(attempt, err)
	return d / 100, err
}

// gate stands before the bucket of a bench and counts.
type gate struct {
	*httptest.Server
	refuses     atomic.Pointer[func(*http.Request) bool] // with 503
	connections atomic.Int64
	now, most   atomic.Int64 // requests being served, and the most at once
	mu          sync.Mutex
	requests    map[string]int
	refused     int
}

// newGate puts a server with TLS or without before the bench's bucket, and gives it a
// worker that goes through it with the product's retries.
func (b *bench) newGate(secure bool) *gate {
	b.t.Helper()
	to, err := url.Parse(b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	g := &gate{requests: map[string]int{}}
	forward := httputil.NewSingleHostReverseProxy(to)
	forward.Transport = &http.Transport{MaxIdleConnsPerHost: 1000}
	g.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := g.now.Add(1)
		defer g.now.Add(-1)
		for most := g.most.Load(); now > most && !g.most.CompareAndSwap(most, now); most = g.most.Load() {
		}
		refuses := g.refuses.Load()
		refused := refuses != nil && (*refuses)(r)
		g.mu.Lock()
		g.requests[r.Method]++
		if refused {
			g.refused++
		}
		g.mu.Unlock()
		if !refused {
			forward.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprint(w, "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
	}))
	g.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			g.connections.Add(1)
		}
	}
	if secure {
		g.StartTLS()
	} else {
		g.Start()
	}
	b.t.Cleanup(g.Close)
	return g
}

// A bucket that answers most PUTs with 503 for a time makes no chunk fail, and no
// generator run twice.
func TestThrottledBucket(t *testing.T) {
	t.Parallel()
	var runs atomic.Int64
	counter := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { runs.Add(1) }))
	defer counter.Close()
	count := fmt.Sprintf("import urllib.request\nurllib.request.urlopen(%q)", counter.URL)
	b := newBench(t, worker.Config{CPUs: 5}, map[string]string{"third": count, "half": count, "most": count})
	for name, part := range map[string]float64{"third": 0.3, "half": 0.5, "most": 0.7} {
		t.Run(name, func(t *testing.T) {
			runs.Store(0)
			g := b.newGate(false)
			random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // repeatable
			var mu sync.Mutex
			refuses := func(r *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				return r.Method == http.MethodPut && random.Float64() < part
			}
			g.refuses.Store(&refuses)
			h := b.through(g, func(o *s3.Options) { o.Retryer = hurried{store.UnlimitedRetries()} })
			defer h.Close()
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			x := task.Task{Generator: name, NumSamples: 60, ChunkSize: 12, Seed: 7, Format: task.Files}
			got, err := h.Handle(lambdacontext.NewContext(ctx, &lambdacontext.LambdaContext{AwsRequestID: name}),
				json.RawMessage(x.Body()))
			if s, _ := got.(worker.Summary); err != nil || s.Samples != 60 {
				t.Errorf("after %.1f s: %+v, %v", time.Since(began).Seconds(), got, err)
			}
			files := 0
			for _, r := range b.receipts(name) {
				n, _ := r.Size()
				files += n
			}
			if objects := b.objects(task.DefaultDataset.Prefix(task.DataKind) + name + "/"); files != 300 ||
				len(objects) != 300 {
				t.Errorf("%d objects, receipts name %d", len(objects), files)
			}
			if n := runs.Load(); n != 5 {
				t.Errorf("%d generators ran for 5 chunks", n)
			}
			t.Logf("%.0f %% of PUTs refused: %d requests, %d of them refused, %.1f s with a hundredth of the backoff", 100*part,
				g.requests["PUT"], g.refused, time.Since(began).Seconds())
		})
	}
}

// What a bucket refuses until the time is up is a failure of storage, which says what
// the bucket had said, and is reported before the invocation ends.
func TestThrottledUntilTheEnd(t *testing.T) {
	b := newBench(t, worker.Config{CPUs: 1}, map[string]string{"good": ""})
	g := b.newGate(false)
	h := b.through(g, func(o *s3.Options) { o.Retryer = hurried{store.UnlimitedRetries()} })
	defer h.Close()
	do := func(x task.Task, within time.Duration) (time.Duration, error) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		_, err := h.Handle(lambdacontext.NewContext(ctx, &lambdacontext.LambdaContext{AwsRequestID: "r"}),
			json.RawMessage(x.Body()))
		return time.Since(began), err
	}
	// The samples must be there before the time is up, however busy the machine is.
	takes, err := do(task.Task{Generator: "good", StartIndex: 5, NumSamples: 1, ChunkSize: 5, Seed: 1}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	refuses := func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/"+task.DataKind)
	}
	g.refuses.Store(&refuses)
	within := 4*time.Second + 4*takes
	takes, err = do(task.Task{Generator: "good", NumSamples: 1, ChunkSize: 5, Seed: 1}, within)
	if err == nil || !strings.Contains(err.Error(), "storage: ") ||
		!strings.Contains(err.Error(), "no time was left to try again") || !strings.Contains(err.Error(), "SlowDown") {
		t.Errorf("it says %v", err)
	}
	if takes >= within {
		t.Error("it was said only after the invocation's end")
	}
	if reports := b.objects(task.FailureKind); len(reports) != 1 {
		t.Errorf("the reports are %q", reports)
	}
}

// A worker keeps the connections that it has needed: for three tasks of 5 chunks with
// 60 files it makes no more than a store has requests in flight.
func TestConnections(t *testing.T) {
	t.Parallel()
	b := newBench(t, worker.Config{CPUs: 5}, map[string]string{"good": ""})
	g := b.newGate(true)
	// As many requests wait for one another as come at once, like those of chunks that
	// end together and have S3's latency.
	latency := func(*http.Request) bool {
		time.Sleep(20 * time.Millisecond)
		return false
	}
	g.refuses.Store(&latency)
	h := b.through(g)
	defer h.Close()
	made, began := int64(0), time.Now()
	for n := range 3 {
		ctx, cancel := invocation(t.Context(), "r")
		x := task.Task{Generator: "good", StartIndex: 60 * n, NumSamples: 60, ChunkSize: 12, Seed: 7, Format: task.Files}
		if _, err := h.Handle(ctx, json.RawMessage(x.Body())); err != nil {
			t.Fatal(err)
		}
		cancel()
		now := g.connections.Load() - made
		t.Logf("task %d: %d new connections with TLS, %d requests in all, at most %d at once", n+1, now,
			g.requests["PUT"]+g.requests["GET"], g.most.Load())
		made += now
	}
	// A task whose chunks end nearer to each other than those before it needs some more.
	// What was made is kept, so all of them together need no more than may be in flight,
	// unless the machine is so slow that some were idle for the 30 s after which they are closed.
	if made > 6*store.Parallel && time.Since(began) < 30*time.Second {
		t.Errorf("%d new connections, %d requests were in flight at most", made, g.most.Load())
	}
}

// through returns a worker that reaches the bench's bucket through a gate.
func (b *bench) through(g *gate, options ...func(*s3.Options)) *worker.Handler {
	b.t.Helper()
	options = append([]func(*s3.Options){store.ClientOptions}, options...)
	trusting := awshttp.NewBuildableClient().WithTransportOptions(func(to *http.Transport) {
		if own, ok := g.Client().Transport.(*http.Transport); ok && g.TLS != nil {
			to.TLSClientConfig.RootCAs = own.TLSClientConfig.RootCAs
		}
	})
	client := s3.New(s3.Options{BaseEndpoint: &g.URL, Region: "us-east-2", HTTPClient: store.HTTPClient(trusting),
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}, options...)
	h, err := worker.New(worker.Config{Bucket: "bucket", Generators: b.generators, CPUs: b.cpus},
		store.New(client, "bucket"), nil, b.log)
	if err != nil {
		b.t.Fatal(err)
	}
	return h
}

func (b *bench) objects(prefix string) (keys []string) {
	b.t.Helper()
	for o, err := range b.store.List(b.t.Context(), prefix, "") {
		if err != nil {
			b.t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}
