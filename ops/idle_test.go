package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/monitor"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/runs"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// inProcess takes requests to a handler without a network: in a bubble of
// synctest, a connection that waits would stop the clock.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	r.Host = r.URL.Host
	p.ServeHTTP(w, r)
	return w.Result(), nil
}

// late is a deployed stack whose queue counts as SQS does on a bad day: a minute
// late. Its clock is synctest's.
func late(t *testing.T, do func(t *testing.T, c *cloud)) {
	out, now := newCloud(t), time.Now()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(now)) // the bucket does not take what was signed in 2000
		server, err := sqsserver.Open(t.TempDir(), sqsserver.Options{BaseURL: "http://127.0.0.1", Lag: time.Minute})
		must(t, err)
		t.Cleanup(func() { _ = server.Close() })
		c := &cloud{sqs: server}
		dead, err := server.CreateQueue(sqsserver.Queue{Name: testDead})
		must(t, err)
		tasks, err := server.CreateQueue(sqsserver.Queue{Name: testTasks, DeadLetter: testDead, MaxReceives: 3})
		must(t, err)
		url := "http://127.0.0.1"
		client := sqs.New(sqs.Options{Region: "eu-west-1", BaseEndpoint: &url,
			HTTPClient:  &http.Client{Transport: inProcess{server}},
			Credentials: credentials.NewStaticCredentialsProvider("key", "secret", "")})
		c.queue = queue.New(client, tasks, dead)
		options := out.s3.Options()
		options.HTTPClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		c.s3 = s3.New(options)
		c.store = store.New(c.s3, testBucket)
		do(t, c)
	})
}

// work takes the task in the queue after a while, and is at it for as long.
func (c *cloud) work(t *testing.T, starts, takes time.Duration, commit func() error) {
	time.Sleep(starts)
	d, err := c.sqs.Receive(context.Background(), testTasks)
	if err != nil {
		t.Error(err)
		return
	}
	time.Sleep(takes)
	if err := commit(); err != nil {
		t.Error(err)
	}
	if err := c.sqs.Delete(testTasks, d.ReceiptHandle); err != nil {
		t.Error(err)
	}
}

// A watch neither ends nor calls a run broken while the queue is said to be empty
// and is not, and ends when it is.
func TestWatchWhileCountsLag(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		starts, takes time.Duration
		committed     int
		least, most   time.Duration
	}{
		{"whole in the end", 20 * time.Second, 25 * time.Second, 5, 45 * time.Second, 50 * time.Second},
		{"never whole", 20 * time.Second, 25 * time.Second, 3, 135 * time.Second, 205 * time.Second},
		{"at work while nothing is counted", 0, 29 * time.Second, 5, 29 * time.Second, 35 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			late(t, func(t *testing.T, c *cloud) {
				run := task.Run{ID: "r", Seed: 7, Samples: 5, Batch: 5, ChunkSize: 5, Format: task.Files, Created: time.Now(),
					Generators: []task.RunGenerator{{Name: "maze"}}}
				must(t, c.queue.Send(t.Context(), run.Plan(), func(int) error { return nil }))
				var worker sync.WaitGroup
				defer worker.Wait()
				worker.Go(func() {
					c.work(t, test.starts, test.takes, func() error {
						return c.commit(context.Background(), "maze", "r", "", "", task.Range{Start: 0, End: test.committed}, 7, 5)
					})
				})
				began := time.Now()
				o := &Output{&ui.Output{Style: &ui.Style{}, Stdout: io.Discard, Stderr: io.Discard}, &target.Flags{}}
				p, err := monitor.New(c.store, c.queue, run).WatchLines(t.Context(), o.Output, 5*time.Second,
					func(*monitor.Progress) error { return nil })
				must(t, err)
				if took := time.Since(began); took < test.least || took > test.most {
					t.Errorf("it ended after %s, want %s to %s", took, test.least, test.most)
				}
				verdict := fmt.Sprint(incomplete(&target.Target{}, p))
				if want := map[bool]string{true: "<nil>",
					false: "the run is incomplete: 2 samples missing, and the queue is empty"}[test.committed == 5]; verdict != want {
					t.Errorf("verdict %q, want %q", verdict, want)
				}
			})
		})
	}
}

// What waits for an empty queue, before duplicates are replaced and after each
// round, waits for the tasks that are not counted yet.
func TestWaitWhileCountsLag(t *testing.T) {
	t.Parallel()
	late(t, func(t *testing.T, c *cloud) {
		must(t, c.queue.SendMessage(t.Context(), "{}", nil))
		var done time.Time
		var worker sync.WaitGroup
		defer worker.Wait()
		worker.Go(func() {
			c.work(t, 2*time.Second, 20*time.Second, func() error { done = time.Now(); return nil })
		})
		s := &runs.Sender{Out: &ui.Output{Style: &ui.Style{}, Stdout: io.Discard, Stderr: io.Discard},
			Target: &target.Target{}, Queue: c.queue}
		must(t, s.WaitIdle(t.Context()))
		if done.IsZero() {
			t.Fatal("it did not wait for the task")
		}
		if after := time.Since(done); after > 3*time.Minute {
			t.Errorf("it ended %s after the task", after)
		}
	})
}
