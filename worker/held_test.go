package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// outside is the bucket of a world as somebody sees it who is no worker of it.
func (w *world) outside() *store.Store { return outside(inMemory{w.bucket}) }

func outside(to aws.HTTPClient) *store.Store {
	return store.New(s3.New(s3.Options{BaseEndpoint: aws.String("http://bucket"), Region: "us-east-2", HTTPClient: to,
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}, store.ClientOptions), "bucket")
}

// inWorld runs a test in a world of its own.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Parallel()
	dir := memoryDir(t)
	modelIndex(t, dir)
	synctest.Test(t, func(t *testing.T) {
		w, err := newWorld(dir, 1000, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.stop(t)
		test(t, w)
	})
}

// failures are the failure reports in the bucket.
func (b *bucket) failures() (keys []string) {
	for key := range b.objects {
		if strings.HasPrefix(key, task.FailureKind) {
			keys = append(keys, key)
		}
	}
	return keys
}

// pin puts the manifest of a dataset as a submit does.
func (w *world) pin(t interface{ Fatal(...any) }, m task.Manifest) {
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	w.bucket.objects[m.Dataset.ManifestKey()] = text
}

// A task whose chunk another worker holds for longer than its deliveries last is
// sent on. It has not failed, so nothing of it is in the DLQ.
func TestHeldBeyondTheLastDelivery(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.pin(t, task.NewManifest("", 2, task.Files))
		x := task.Task{Generator: "model", NumSamples: 5, ChunkSize: 5, Seed: 2, RunID: "r1", Format: task.Files}
		holder := store.Holder{RequestID: "somebody", Deadline: time.Now().Add(time.Hour)}
		if _, err := w.outside().Take(t.Context(), "model", x.Range(), holder, nil); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		w.send(x)
		w.calm(t.Context(), t)
		if dead, _, _ := w.queue.Counts("dead"); dead > 0 {
			t.Errorf("%d messages are in the DLQ", dead)
		}
		if list := w.bucket.receipts(); len(list) != 1 || len(list[0].Samples) != 5 {
			t.Errorf("receipts: %+v", list)
		}
		if keys := w.bucket.failures(); keys != nil {
			t.Errorf("failure reports: %v", keys)
		}
		if took := time.Since(began); took < time.Hour || took > 90*time.Minute {
			t.Errorf("it took %s", took)
		}
	})
}

// distant is a bucket that answers after a while.
type distant struct {
	inMemory
	latency time.Duration
	mu      sync.Mutex
}

func (d *distant) Do(r *http.Request) (*http.Response, error) {
	time.Sleep(d.latency)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inMemory.Do(r)
}

// While one chunk is being made, the next one is taken: CPUs do not wait for a
// bucket that answers after 50 ms.
func TestCPUsDoNotWaitForCells(t *testing.T) {
	for _, cpus := range []int{1, 3} {
		t.Run(fmt.Sprint(cpus), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.config.CPUs = cpus
				const chunks, takes = 12, 3 * time.Second
				h, err := New(w.config, outside(&distant{inMemory: inMemory{w.bucket}, latency: 50 * time.Millisecond}), nil,
					io.Discard)
				if err != nil {
					t.Fatal(err)
				}
				defer h.Close()
				var mu sync.Mutex
				var first, last time.Time
				h.generate = func(_ context.Context, r generator.Request) (generator.Result, error) {
					began := time.Now()
					time.Sleep(takes)
					mu.Lock()
					defer mu.Unlock()
					if first.IsZero() || began.Before(first) {
						first = began
					}
					last = time.Now()
					result := generator.Result{Output: filepath.Join(r.Scratch, "output")}
					return result, writeModel(result.Output, r.Samples, "any")
				}
				ctx, cancel := context.WithTimeout(lambdacontext.NewContext(t.Context(),
					&lambdacontext.LambdaContext{AwsRequestID: "a"}), 15*time.Minute)
				defer cancel()
				x := task.Task{Generator: "model", NumSamples: chunks, ChunkSize: 1, Seed: 1, Format: task.Files}
				if _, err := h.Handle(ctx, []byte(x.Body())); err != nil {
					t.Fatal(err)
				}
				if n := len(w.bucket.receipts()); n != chunks {
					t.Errorf("%d receipts", n)
				}
				busy := chunks / time.Duration(cpus) * takes
				if idle := last.Sub(first) - busy; idle > 10*time.Millisecond {
					t.Errorf("of %s the CPUs waited for %s", last.Sub(first), idle)
				}
			})
		})
	}
}

// Where only one generator fits into the memory at a time, one cell is held beside
// the one that is being made: another worker could take the others. What has waited
// for a CPU until time was up is given back.
func TestNoMoreIsHeldThanIsSoonMade(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.config.CPUs = 3
		const chunks = 8
		near := &distant{inMemory: inMemory{w.bucket}}
		h, err := New(w.config, outside(near), nil, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		h.guard.Memory = 4 << 30
		h.usage.add(kind{generator: "model", samples: 1}, extremes{memory: 4 << 30})
		held := func() (n int) {
			near.mu.Lock()
			defer near.mu.Unlock()
			for _, c := range w.bucket.cells() {
				if c.Holder != nil {
					n++
				}
			}
			return n
		}
		ran := 0
		h.generate = func(ctx context.Context, r generator.Request) (generator.Result, error) {
			time.Sleep(5 * time.Second) // all else waits by now
			if n := held(); n > 2 {
				t.Errorf("%d cells are held", n)
			}
			if ran++; ran == 5 {
				<-ctx.Done()
				return generator.Result{}, &generator.Failure{Cause: task.TimedOut}
			}
			result := generator.Result{Output: filepath.Join(r.Scratch, "output")}
			return result, writeModel(result.Output, r.Samples, "any")
		}
		ctx, cancel := context.WithTimeout(lambdacontext.NewContext(t.Context(),
			&lambdacontext.LambdaContext{AwsRequestID: "a"}), 15*time.Minute)
		defer cancel()
		x := task.Task{Generator: "model", NumSamples: chunks, ChunkSize: 1, Seed: 1, Format: task.Files}
		got, err := h.Handle(ctx, []byte(x.Body()))
		if s, ok := got.(Summary); err != nil || !ok || s.Samples != 4 ||
			!slices.Equal(s.Remaining, []task.Range{{Start: 4, End: 8}}) || ran != 5 {
			t.Errorf("%+v, %v, %d were run", got, err, ran)
		}
		if n := held(); n > 0 {
			t.Errorf("%d cells are still held", n)
		}
	})
}

// writeModel writes samples as the generator of a world does.
func writeModel(output string, samples int, prompt string) error {
	for i := range samples {
		folder := filepath.Join(output, "model_task", fmt.Sprintf("model_%04d", i))
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, "prompt.txt"), fmt.Appendf(nil, prompt, i), 0o600); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, "first_frame.png"), pixel, 0o600); err != nil {
			return err
		}
	}
	return nil
}
