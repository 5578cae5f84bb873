package monitor

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestMain(m *testing.M) {
	s3server.Main()
	os.Exit(m.Run())
}

// cloud is what a monitor polls: a queue with its DLQ, and a bucket.
type cloud struct {
	store     *store.Store
	queue     *queue.Client
	cellReads atomic.Int64
	refuses   atomic.Bool // to read a cell
	folder    string      // of the bucket
}

// Do is the store's way to the bucket.
func (c *cloud) Do(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, ".json") &&
		strings.Contains(r.URL.Path, task.ReceiptKind) {
		c.cellReads.Add(1)
		if c.refuses.Load() {
			return &http.Response{StatusCode: http.StatusForbidden, Body: http.NoBody, Request: r}, nil
		}
	}
	return http.DefaultClient.Do(r)
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	dir := t.TempDir()
	web := httptest.NewUnstartedServer(nil)
	url := "http://" + web.Listener.Addr().String()
	server, err := sqsserver.Open(filepath.Join(dir, "sqs"),
		sqsserver.Options{BaseURL: url, MaxWait: 50 * time.Millisecond})
	must(t, err)
	t.Cleanup(func() { _ = server.Close() })
	web.Config.Handler = server
	web.Start()
	t.Cleanup(web.Close)
	dead, err := server.CreateQueue(sqsserver.Queue{Name: "dead", Retention: time.Hour})
	must(t, err)
	tasks, err := server.CreateQueue(sqsserver.Queue{Name: "tasks", Retention: time.Hour, DeadLetter: "dead",
		MaxReceives: 3})
	must(t, err)
	const bucket, region = "bucket", "eu-west-1"
	objects, err := s3server.Start(t.Context(), s3server.Config{Dir: filepath.Join(dir, "s3"),
		Meta:    filepath.Join(dir, "meta"),
		Address: "127.0.0.1:0", Bucket: bucket, Region: region, AccessKey: "key", SecretKey: "secret"}, io.Discard)
	must(t, err)
	t.Cleanup(func() { _ = objects.Close() })
	key := credentials.NewStaticCredentialsProvider("key", "secret", "")
	c := &cloud{queue: queue.New(sqs.New(sqs.Options{Region: region, BaseEndpoint: &url, Credentials: key}), tasks, dead),
		folder: filepath.Join(dir, "s3")}
	c.store = store.New(s3.New(s3.Options{Region: region, BaseEndpoint: aws.String(objects.URL()), Credentials: key,
		HTTPClient: c}, store.ClientOptions), bucket)
	return c
}

// commitReceipt commits a receipt, as a worker does, whose objects nobody asks for.
func commitReceipt(ctx context.Context, st *store.Store, r store.Receipt) error {
	start := r.Start / r.ChunkSize * r.ChunkSize
	by := store.Holder{RequestID: "test", Deadline: time.Now().Add(time.Hour)}
	c, err := st.Take(ctx, r.Generator, task.Range{Start: start, End: start + r.ChunkSize}, by,
		func(*store.Cell) bool { return true })
	if err != nil {
		return err
	}
	r.Epoch = c.Epoch
	return st.Commit(ctx, c, r, -1, true)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
