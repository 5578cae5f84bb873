package dataset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestMain(m *testing.M) {
	s3server.Main()
	debug.SetGCPercent(400) // it is short of CPU and not of memory
	os.Exit(m.Run())
}

// lab is a real worker with a real bucket, and what should be in it.
type lab struct {
	t       *testing.T
	random  *rand.Rand
	store   *store.Store
	client  *s3.Client
	handler *worker.Handler
	format  task.Format
	left    atomic.Int64 // requests until the worker dies; negative for ever
	die     func()
	request int
	runs    int
	sent    []task.Task    // in order
	content map[int]string // of each index: what made it
	prints  map[string]string
	history []string
}

const samplesOfModel, chunkOfModel = 24, 5

// Do is the way to the bucket of a worker that may die at any request.
func (l *lab) Do(r *http.Request) (*http.Response, error) {
	if l.left.Add(-1) == 0 {
		l.die()
	}
	if n := l.left.Load(); n <= 0 && n > -1_000_000 {
		// A refusal is not tried again, as a broken connection would be.
		return &http.Response{StatusCode: http.StatusForbidden, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
	}
	// What was sent before the death is waited for: it must not come after what follows.
	return quick.Do(r.WithContext(context.WithoutCancel(r.Context())))
}

var quick = store.HTTPClient(nil)

// goodGenerator is the index of the test generator that does nothing wrong.
var goodGenerator = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "vm-dataset-test-")
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile(filepath.Join("..", "local", "testdata", "generate.py"))
	entry := filepath.Join(dir, "source", "good", "examples", "generate.py")
	if err := errors.Join(err, os.MkdirAll(filepath.Dir(entry), 0o755), os.WriteFile(entry, source, 0o644)); err != nil {
		return "", err
	}
	_, err = (&environment.Builder{Root: filepath.Join(dir, "source"), Dir: filepath.Join(dir, "index")}).Build(
		context.Background())
	return filepath.Join(dir, "index"), err
})

func newLab(t *testing.T, seed uint64) *lab {
	t.Helper()
	index, err := goodGenerator()
	if err != nil {
		t.Fatal(err)
	}
	server := s3test.New(t)
	l := &lab{t: t, random: rand.New(rand.NewPCG(seed, 0)), content: map[int]string{}, prints: map[string]string{}} //nolint:gosec // repeatable
	l.client = server.Client(quick)
	l.store = store.New(l.client, "bucket")
	l.handler, err = worker.New(worker.Config{Bucket: "bucket", Generators: index}, server.Store(l), nil,
		io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	l.format = []task.Format{task.Files, task.Tar}[l.random.IntN(2)]
	_, err = l.store.ChangeManifest(t.Context(), func(*task.Manifest) (*task.Manifest, error) {
		m := task.NewManifest("", 7, l.format)
		return &m, nil
	})
	l.must(err)
	return l
}

// deliver gives the worker a task. With requests, it dies after so many of them.
func (l *lab) deliver(t task.Task, requests int) error {
	l.t.Helper()
	if t.Indices == nil && t.NumSamples == 0 {
		l.t.Fatalf("no task: %+v", t)
	}
	l.request++
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	ctx = lambdacontext.NewContext(ctx, &lambdacontext.LambdaContext{AwsRequestID: fmt.Sprint("request-", l.request)})
	l.die = cancel
	l.left.Store(-1_000_000)
	if requests > 0 {
		l.left.Store(int64(requests))
	}
	answer, err := l.handler.Handle(ctx, json.RawMessage(t.Body()))
	l.left.Store(-1_000_000)
	if s, ok := answer.(worker.Summary); ok && len(s.Remaining) > 0 {
		return fmt.Errorf("%v is left", s.Remaining)
	}
	return err
}

// perform delivers a task until it is done. Now and then the worker dies first, at
// any of its requests; whoever sees that ends its holds.
func (l *lab) perform(t task.Task) {
	l.t.Helper()
	for l.random.IntN(3) == 0 {
		_ = l.deliver(t, 1+l.random.IntN(80))
		for _, c := range t.Chunks() {
			l.must(l.store.EndHold(l.t.Context(), "good", c.Cell, ""))
		}
	}
	if err := l.deliver(t, 0); err != nil {
		l.t.Fatalf("%s: %v", t.Body(), err)
	}
}

func (l *lab) newTask() task.Task {
	l.runs++
	return task.Task{Generator: "good", Seed: 7, ChunkSize: chunkOfModel, Format: l.format,
		RunID: fmt.Sprintf("run-%04d", l.runs)}
}

func (l *lab) note(format string, args ...any) {
	l.history = append(l.history, fmt.Sprintf(format, args...))
}
