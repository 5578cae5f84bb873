package queue

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// endpoint is the local stack's SQS endpoint, with a place to put faults before
// it.
type endpoint struct {
	server *sqsserver.Server
	client *Client
	mu     sync.Mutex
	fault  func(operation string, body []byte, next http.Handler, w http.ResponseWriter, r *http.Request) bool
	calls  map[string]int
}

const (
	tasks = "tasks"
	dead  = "dead"
)

func newEndpoint(t testing.TB, dir string) *endpoint {
	t.Helper()
	e := &endpoint{calls: map[string]int{}}
	web := httptest.NewUnstartedServer(http.HandlerFunc(e.serve))
	web.Start()
	t.Cleanup(web.Close)
	var err error
	if e.server, err = sqsserver.Open(dir, sqsserver.Options{BaseURL: web.URL}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.server.Close() })
	deadURL, err := e.server.CreateQueue(sqsserver.Queue{Name: dead, Visibility: 30 * time.Second, Retention: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	taskURL, err := e.server.CreateQueue(sqsserver.Queue{Name: tasks, Visibility: 30 * time.Second, Retention: time.Hour,
		DeadLetter: dead, MaxReceives: 3})
	if err != nil {
		t.Fatal(err)
	}
	e.client = New(sqs.New(sqs.Options{
		Region: "us-east-2", BaseEndpoint: &web.URL, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
		RetryMaxAttempts: 1, // a fault is one fault
		HTTPClient:       store.HTTPClient(nil),
	}), taskURL, deadURL)
	e.client.pace, e.client.wait = 10*time.Microsecond, 0 // this queue is exact without waiting
	return e
}

func (e *endpoint) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	e.mu.Lock()
	e.calls[operation]++
	fault := e.fault
	e.mu.Unlock()
	if fault != nil && fault(operation, body, e.server, w, r) {
		return
	}
	e.server.ServeHTTP(w, r)
}

func (e *endpoint) setFault(f func(operation string, body []byte, next http.Handler, w http.ResponseWriter,
	r *http.Request) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault = f
}

// bodies takes everything out of a queue, as a worker would.
func (e *endpoint) bodies(t testing.TB, queue string) []string {
	t.Helper()
	var list []string
	for {
		ctx, cancel := context.WithCancel(t.Context())
		if visible, _, _ := e.server.Counts(queue); visible == 0 {
			cancel()
			return list
		}
		d, err := e.server.Receive(ctx, queue)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if d == nil {
			return list
		}
		list = append(list, d.Body)
		if err := e.server.Delete(queue, d.ReceiptHandle); err != nil {
			t.Fatal(err)
		}
	}
}

// moveToDLQ puts messages into the dead letter queue.
func (e *endpoint) moveToDLQ(t testing.TB, bodies ...string) {
	t.Helper()
	other := New(e.client.sqs, e.client.dlq, "")
	for _, b := range bodies {
		if err := other.SendMessage(t.Context(), b, map[string]Attribute{"cause": {Type: "String", Text: "crashed"},
			"receives": {Type: "Number", Text: "3"}}); err != nil {
			t.Fatal(err)
		}
	}
}

func list(n int) []task.Task {
	var all []task.Task
	for i := range n {
		all = append(all, task.Task{Generator: "maze", StartIndex: i * 10, NumSamples: 10, Seed: 7, Format: task.Files,
			ChunkSize: 10})
	}
	return all
}

func TestDepth(t *testing.T) {
	e := newEndpoint(t, t.TempDir())
	if err := e.client.Send(t.Context(), list(5), func(int) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := e.server.Receive(t.Context(), tasks); err != nil {
		t.Fatal(err)
	}
	e.moveToDLQ(t, "x")
	got, err := e.client.Depth(t.Context())
	if want := (Depth{Waiting: 4, InFlight: 1}); err != nil || got != want {
		t.Errorf("Depth = %+v, %v, want %+v", got, err, want)
	}
	if got.Total() != 5 {
		t.Errorf("Total = %d, want 5", got.Total())
	}
	if got, err := e.client.DLQDepth(t.Context()); err != nil || got != (Depth{Waiting: 1}) {
		t.Errorf("DLQDepth = %+v, %v", got, err)
	}
	e.setFault(func(operation string, body []byte, next http.Handler, w http.ResponseWriter, r *http.Request) bool {
		fmt.Fprint(w, `{"Attributes":{}}`)
		return true
	})
	if got, err := e.client.Depth(t.Context()); err == nil {
		t.Errorf("an answer without counts was read as %+v", got)
	}
}

// TestPeek looks at one message: the others must not be received, because every
// receive brings a task nearer to the dead letter queue.
func TestPeek(t *testing.T) {
	e := newEndpoint(t, t.TempDir())
	if err := e.client.Send(t.Context(), list(20), func(int) error { return nil }); err != nil {
		t.Fatal(err)
	}
	got, err := e.client.Peek(t.Context(), 1)
	if err != nil || len(got) != 1 {
		t.Fatalf("Peek = %v, %v, want one message", got, err)
	}
	if got[0].Receives != 1 || got[0].Sent.IsZero() || got[0].ID == "" {
		t.Errorf("message %+v lacks receives, time or id", got[0])
	}
	if d, _ := e.client.Depth(t.Context()); d != (Depth{Waiting: 20}) {
		t.Errorf("depth after a peek is %+v, want all 20 waiting", d)
	}
	received := 0
	for range 20 {
		d, err := e.server.Receive(t.Context(), tasks)
		if err != nil {
			t.Fatal(err)
		}
		if d.Attributes["ApproximateReceiveCount"] != "1" {
			received++
		}
	}
	if received != 1 {
		t.Errorf("a peek at one message counted as a receive of %d", received)
	}
}

func TestDLQ(t *testing.T) {
	for _, n := range []int{0, 1, 10, 11, 95} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			e := newEndpoint(t, t.TempDir())
			for i := range n {
				e.moveToDLQ(t, fmt.Sprintf("message %d", i))
			}
			got, err := e.client.DLQ(t.Context(), 0)
			if err != nil || len(got) != n {
				t.Fatalf("%d messages, %v, want %d", len(got), err, n)
			}
			ids := map[string]bool{}
			for _, m := range got {
				ids[m.ID] = true
				if m.Text("cause") != "crashed" || m.Attributes["receives"].Type != "Number" || m.Text("receives") != "3" {
					t.Fatalf("attributes are %v", m.Attributes)
				}
			}
			if len(ids) != n {
				t.Errorf("%d different messages, want %d", len(ids), n)
			}
			if d, _ := e.client.DLQDepth(t.Context()); d != (Depth{Waiting: n}) {
				t.Errorf("depth after the look is %+v, want all %d waiting", d, n)
			}
		})
	}
}

// TestDLQReceivesTwice lists a queue that hands out the same messages again and
// again, as SQS does when a listing takes longer than they stay hidden.
func TestDLQReceivesTwice(t *testing.T) {
	e := newEndpoint(t, t.TempDir())
	for i := range 40 {
		e.moveToDLQ(t, fmt.Sprintf("message %d", i))
	}
	var mu sync.Mutex
	receives := 0
	var first []byte
	e.setFault(func(operation string, body []byte, next http.Handler, w http.ResponseWriter, r *http.Request) bool {
		if operation != "ReceiveMessage" {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		receives++
		switch receives {
		case 1:
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			first = answer.Body.Bytes()
		case 2: // the first ten once more
		default:
			return false
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = w.Write(first)
		return true
	})
	got, err := e.client.DLQ(t.Context(), 0)
	if err != nil || len(got) != 40 {
		t.Errorf("%d messages, %v, want all 40 though ten came twice", len(got), err)
	}
}

func TestPurge(t *testing.T) {
	e := newEndpoint(t, t.TempDir())
	e.moveToDLQ(t, "x")
	if err := e.client.Send(t.Context(), list(3), func(int) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := e.client.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, _ := e.client.Depth(t.Context()); d.Total() != 0 {
		t.Errorf("%+v after a purge", d)
	}
	if d, _ := e.client.DLQDepth(t.Context()); d.Total() != 1 {
		t.Errorf("the DLQ has %+v after a purge of the queue", d)
	}
	if err := e.client.PurgeDLQ(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.setFault(func(operation string, body []byte, next http.Handler, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.Header().Set("X-Amzn-Query-Error", "AWS.SimpleQueueService.PurgeQueueInProgress;Sender")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"__type":"com.amazonaws.sqs#PurgeQueueInProgress","message":"no"}`)
		return true
	})
	if err := e.client.Purge(t.Context()); err == nil || !strings.Contains(err.Error(), "60 seconds") {
		t.Errorf("a second purge within the minute says %v", err)
	}
}
