package export_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// unsteady cuts off the answer to the first request for every other object with data.
type unsteady struct {
	http.RoundTripper
	seen   sync.Map
	n, cut atomic.Int64
}

func (u *unsteady) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := u.RoundTripper.RoundTrip(r)
	if err != nil || r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/data/") {
		return response, err
	}
	if _, again := u.seen.LoadOrStore(r.URL.Path, true); !again && u.n.Add(1)%2 == 1 {
		u.cut.Add(1)
		response.Body = &cutOff{response.Body, response.ContentLength / 2}
	}
	return response, err
}

type cutOff struct {
	io.ReadCloser
	left int64
}

func (c *cutOff) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errors.New("read: connection reset by peer")
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// Connections that break in the middle of an object change nothing. A file may be larger than
// what is kept in memory.
func TestConnectionsBreak(t *testing.T) {
	t.Parallel()
	large := odd
	large.Name, large.Samples = "large", 2
	large.Files = func(i int) map[string]string {
		files := odd.Files(i)
		files["ground_truth.avi"] = random(i, 9<<20)
		return files
	}
	for _, format := range []task.Format{task.Files, task.Tar} {
		b := newBucket(t)
		for _, g := range []s3test.Generator{maze, large} {
			b.commit(t, "v1", format, g)
		}
		steady := t.TempDir()
		_, err := exported(t.Context(), t, export.Export{Store: b.store, Format: export.VBVR()}, steady)
		check(t, err)
		network := &unsteady{RoundTripper: http.DefaultTransport}
		st := store.New(s3.New(s3.Options{BaseEndpoint: aws.String(b.URL), Region: "us-east-2",
			HTTPClient: &http.Client{Transport: network}, Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")},
			store.ClientOptions), "bucket")
		dir := t.TempDir()
		_, err = exported(t.Context(), t, export.Export{Store: st, Format: export.VBVR()}, dir)
		check(t, err)
		if list := differences(content(t, steady), content(t, dir)); len(list) > 0 || network.cut.Load() < 2 {
			t.Errorf("%s: %d connections were cut, and %v differ", format, network.cut.Load(), list)
		}
		checkSums(t, dir)
	}
}

// acting does something once, when a file of a part is written.
type acting struct {
	export.Destination
	act func()
}

func (a *acting) Create(ctx context.Context, name string, size int64, write func(io.Writer) error) error {
	if act := a.act; act != nil && strings.HasPrefix(name, "data/") {
		a.act = nil
		act()
	}
	return a.Destination.Create(ctx, name, size, write)
}

// A sample that is repaired while it is exported may have come into another split: the export
// ends, and one that goes on is of other samples.
func TestChangedMeanwhile(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze)
	to, err := export.OpenFolder(t.TempDir())
	check(t, err)
	defer to.Close()
	repair := func() {
		ctx := t.Context()
		c, err := b.store.Take(ctx, maze.Name, task.Range{Start: 20, End: 30}, store.Holder{RequestID: "repair",
			Deadline: time.Now().Add(time.Hour)}, func(*store.Cell) bool { return true })
		check(t, err)
		other := maze
		other.Files = func(i int) map[string]string { return maze.Files(i + 500) }
		list := []sample.Sample{other.Write(t, t.TempDir(), 22)}
		check(t, b.store.PutFiles(ctx, maze.Name, list))
		r := maze.NewReceipt("v1", task.Files, c, list)
		r.Indices = []int{22}
		check(t, b.store.Commit(ctx, c, r, -1, true))
	}
	e := export.Export{Store: b.store, Format: export.Webdataset(), Options: export.Options{ShardSize: 1e9}, Workers: 1,
		To: &acting{to, repair}, Progress: func(export.Progress) {}, Say: t.Logf}
	_, err = e.Run(t.Context())
	if err == nil || err.Error() != "samples were changed while they were exported: a repair or a run is under way" {
		t.Errorf("%v", err)
	}
	if _, err := e.Run(t.Context()); !errors.Is(err, export.ErrOther) {
		t.Errorf("again: %v", err)
	}
	if files := content(t, to.String()); slices.ContainsFunc(slices.Collect(maps.Keys(files)), func(name string) bool {
		return strings.HasPrefix(name, "data/") || strings.HasPrefix(name, ".export/tmp/")
	}) {
		t.Errorf("left are %v", slices.Sorted(maps.Keys(files)))
	}
}

// An export that is stopped ends at once, and the same one goes on. What was finished before is no progress: the first
// report has it.
func TestStopped(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	st := b.all(t, "v1", task.Files)
	undisturbed := t.TempDir()
	whole := steps{}
	_, err := exported(t.Context(), t, export.Export{Store: st, Format: export.Parquet(), Options: small,
		Progress: whole.add}, undisturbed)
	check(t, err)
	to, err := export.OpenFolder(t.TempDir())
	check(t, err)
	defer to.Close()
	ctx, stop := context.WithCancel(t.Context())
	e := export.Export{Store: st, Format: export.Parquet(), Options: small, To: to, Workers: 1, Say: t.Logf,
		Progress: func(p export.Progress) {
			if p.Bytes && p.Done > p.Total/2 {
				stop()
			}
		}}
	if _, err := e.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	again := steps{}
	e.Progress = again.add
	s, err := e.Run(t.Context())
	check(t, err)
	if list := differences(content(t, undisturbed), content(t, to.String())); s.Resumed < 2 || len(list) > 0 {
		t.Errorf("%d parts were resumed, and %v differ", s.Resumed, list)
	}
	if again.largest > whole.largest {
		t.Errorf("progress makes a step of %d bytes; a sample has at most %d", again.largest, whole.largest)
	}
}

// steps are those of an export's progress, in bytes, after its first report.
type steps struct {
	begun       bool
	at, largest int64
}

func (s *steps) add(p export.Progress) {
	if !p.Bytes {
		return
	}
	if s.begun {
		s.largest = max(s.largest, p.Done-s.at)
	}
	s.begun, s.at = true, p.Done
}
