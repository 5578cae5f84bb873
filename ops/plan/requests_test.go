package plan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

var testDir string // for all tests

func TestMain(m *testing.M) {
	s3server.Main()
	var err error
	if testDir, err = os.MkdirTemp("", "vm-dataset-test-"); err != nil {
		panic(err)
	}
	status := m.Run()
	_ = os.RemoveAll(testDir)
	os.Exit(status)
}

// testGenerators is the index of the test generator.
var testGenerators = sync.OnceValues(func() (*generator.Index, error) {
	source, err := os.ReadFile(filepath.Join("..", "local", "testdata", "generate.py"))
	for _, name := range []string{"good"} {
		entry := filepath.Join(testDir, "source", name, "examples", "generate.py")
		err = errors.Join(err, os.MkdirAll(filepath.Dir(entry), 0o755), os.WriteFile(entry, source, 0o644))
	}
	if err != nil {
		return nil, err
	}
	return (&environment.Builder{Root: filepath.Join(testDir, "source"), Dir: filepath.Join(testDir, "index")}).Build(
		context.Background())
})

// counter counts the requests that go to the bucket.
type counter struct {
	mu   sync.Mutex
	seen Requests
	next interface {
		Do(r *http.Request) (*http.Response, error)
	}
}

func (c *counter) Do(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	switch {
	case r.URL.Query().Has("list-type"):
		c.seen.List++
	case r.Method == http.MethodPut || r.Method == http.MethodPost:
		c.seen.Put++
	case r.Method == http.MethodGet:
		c.seen.Get++
	}
	c.mu.Unlock()
	return c.next.Do(r)
}

func (c *counter) take() Requests {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.seen
	c.seen = Requests{}
	return seen
}

// A real worker sends a real bucket just the requests that a plan counts, and
// its receipts imply the same.
func TestRequests(t *testing.T) {
	if _, err := testGenerators(); err != nil {
		t.Fatal(err)
	}
	server := s3test.New(t)
	count := &counter{next: store.HTTPClient(nil)}
	st := server.Store(count)
	t.Setenv("TMPDIR", t.TempDir())
	handler, err := worker.New(worker.Config{Bucket: "bucket", Generators: filepath.Join(testDir, "index")}, st, nil,
		io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	cost := Cost{SampleFiles: 5, SampleBytes: 1000}
	for _, c := range []struct {
		batch, chunk int
		format       task.Format
		put          int
	}{
		{20, 20, task.Files, 2 + 100}, {20, 20, task.Tar, 2 + 1}, // docs/PERFORMANCE.md has these
		{20, 5, task.Files, 4 * (2 + 25)}, {20, 5, task.Tar, 4 * (2 + 1)}, {7, 5, task.Files, 2*2 + 35},
		{3, 20, task.Tar, 2 + 1},
	} {
		t.Run(fmt.Sprintf("%d by %d as %s", c.batch, c.chunk, c.format), func(t *testing.T) {
			order := task.Task{Dataset: task.Dataset(fmt.Sprintf("d%d-%d-%s", c.batch, c.chunk, c.format)), Generator: "good",
				StartIndex: 100, NumSamples: c.batch, Seed: 7, Format: c.format, ChunkSize: c.chunk}
			st := st.In(order.Dataset)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			first := order // makes the dataset, which the worker knows from then on
			first.StartIndex = 0
			for _, x := range []task.Task{first, order} {
				count.take()
				ctx := lambdacontext.NewContext(ctx,
					&lambdacontext.LambdaContext{AwsRequestID: fmt.Sprint("request-", x.StartIndex)})
				if _, err := handler.Handle(ctx, []byte(x.Body())); err != nil {
					t.Fatal(err)
				}
			}
			got, want := count.take(), work(order, cost)
			want.Invocations, want.Queue = 0, 0
			if got != want || got != (Requests{Put: c.put}) {
				t.Errorf("the worker sent %+v, the plan has %+v, by hand they are %d PUT", got, want, c.put)
			}

			receipts := slices.DeleteFunc(s3test.Receipts(t, st, "good"),
				func(r store.Receipt) bool { return !r.Range().Overlaps(order.Range()) })
			var traces []Trace
			for _, r := range receipts {
				traces = append(traces, TraceOf(r))
			}
			spent := DefaultWorker().Spent(traces)
			if spent.Samples != c.batch || spent.Requests.Invocations != 1 || spent.Requests.Put != want.Put+1 ||
				spent.Requests.List != want.List {
				t.Errorf("the receipts show %+v, the plan has %+v", spent, want)
			}
			if spent.Dollars <= 0 || spent.BusySeconds < receipts[0].WallSeconds {
				t.Errorf("the receipts show %+v", spent)
			}
		})
	}
}
