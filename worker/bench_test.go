package worker_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// bench is a worker in this process with a bucket, and generators that do
// something before they do all right.
type bench struct {
	*worker.Handler
	t          *testing.T
	store      *store.Store
	url        string // of the bucket's server
	generators string // their folder
	log        *logBuffer
	cpus       int
}

// logBuffer is what a worker logs.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// failed counts the tries that failed for a cause, as the log has them.
func (b *bench) failed(cause task.Cause) (n int) {
	b.log.mu.Lock()
	defer b.log.mu.Unlock()
	for lines := bufio.NewScanner(bytes.NewReader(b.log.text.Bytes())); lines.Scan(); {
		var line struct{ Msg, Cause string }
		if err := json.Unmarshal(lines.Bytes(), &line); err == nil && line.Msg == "generator failed" &&
			line.Cause == string(cause) {
			n++
		}
	}
	return n
}

// prelude is what all of them know.
const prelude = `
import os, sys, time
seed = int(sys.argv[sys.argv.index("--seed") + 1])
`

// newBench returns a bench whose worker is configured so.
func newBench(t *testing.T, c worker.Config, does map[string]string) *bench {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("..", "ops", "local", "testdata", "generate.py"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, body := range does {
		path := filepath.Join(dir, "source", name, "examples", "generate.py")
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
			os.WriteFile(path, []byte(prelude+body+"\n"+string(source)), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	builder := environment.Builder{Root: filepath.Join(dir, "source"), Dir: filepath.Join(dir, "index")}
	if _, err := builder.Build(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := s3test.New(t)
	b := &bench{t: t, cpus: c.CPUs, store: server.Store(nil), log: &logBuffer{}, url: server.URL,
		generators: builder.Dir}
	c.Bucket, c.Generators = "bucket", builder.Dir
	b.Handler, err = worker.New(c, b.store, nil, b.log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// do invokes the worker with a task. The invocation ends after a time.
func (b *bench) do(x task.Task, after time.Duration) (worker.Summary, error) {
	b.t.Helper()
	x.Format = task.Files
	if err := x.Validate(); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), after)
	defer cancel()
	got, err := b.Handle(lambdacontext.NewContext(ctx,
		&lambdacontext.LambdaContext{AwsRequestID: fmt.Sprintf("r-%d", time.Now().UnixNano())}), json.RawMessage(x.Body()))
	s, _ := got.(worker.Summary)
	return s, err
}

func (b *bench) receipts(name string) []store.Receipt {
	b.t.Helper()
	list := s3test.Receipts(b.t, b.store, name)
	slices.SortFunc(list, func(a, b store.Receipt) int { return a.Start - b.Start })
	return list
}
