package web_test

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/web"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// newQueue is a queue of the local stack's server with one task in it, and counts the requests for its depth.
func newQueue(t testing.TB) (*queue.Client, *atomic.Int64) {
	t.Helper()
	depths := new(atomic.Int64)
	var server *sqsserver.Server
	on := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".GetQueueAttributes") {
			depths.Add(1)
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(on.Close)
	var err error
	server, err = sqsserver.Open(filepath.Join(t.TempDir(), "sqs"), sqsserver.Options{BaseURL: on.URL,
		MaxWait: 50 * time.Millisecond})
	check(t, err)
	t.Cleanup(func() { _ = server.Close() })
	dead, err := server.CreateQueue(sqsserver.Queue{Name: "dead", Retention: time.Hour})
	check(t, err)
	tasks, err := server.CreateQueue(sqsserver.Queue{Name: "tasks", Retention: time.Hour, DeadLetter: "dead",
		MaxReceives: 3})
	check(t, err)
	q := queue.New(sqs.New(sqs.Options{Region: "us-east-2", BaseEndpoint: &on.URL,
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""), HTTPClient: store.HTTPClient(nil)}), tasks, dead)
	check(t, q.SendMessage(t.Context(), "{}", nil))
	return q, depths
}

// Ten viewers of a run have one poller, and it ends when the last of them has left.
func TestOnePoller(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	g := maze(20)
	b.commit(t, "v1", task.Files, g, task.Range{End: 15})
	check(t, b.store.PutRun(t.Context(), task.Run{ID: "run-1", Created: time.Now(), Seed: 42, Samples: 20, Batch: 10,
		ChunkSize: 10, Format: task.Files, Generators: []task.RunGenerator{{Name: g.Name}}}))
	q, depths := newQueue(t)
	s := b.serve(t, func(c *web.Config) { c.Queue = q })
	s.get("/run").want(t, http.StatusOK, "15 of 20 samples", "waiting in the queue", "run-1")

	const viewers = 10
	seen := make([]map[string]bool, viewers)
	var group errgroup.Group
	for n := range viewers {
		seen[n] = map[string]bool{}
		client := s.viewer()
		group.Go(func() error {
			answer, err := client.Get(s.base + "/run/events?run=run-1")
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			lines := bufio.NewScanner(answer.Body)
			for lines.Scan() {
				if _, time, ok := strings.Cut(lines.Text(), "As of "); ok {
					seen[n][time] = true
				}
				if len(seen[n]) == 3 {
					return nil
				}
			}
			return fmt.Errorf("the events ended: %w", lines.Err())
		})
	}
	check(t, group.Wait())
	polls := 0
	for n := range viewers {
		polls = max(polls, len(seen[n]))
	}
	if got := depths.Load(); got > int64(2*(polls+2)) { // of queue and DLQ
		t.Errorf("%d counts of queues for %d polls", got, polls)
	}
	if s.Feeds() != 1 {
		t.Errorf("%d runs are polled", s.Feeds())
	}
	for limit := time.Now().Add(20 * time.Second); s.Feeds() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the run is polled, and nobody watches")
		}
	}
}
