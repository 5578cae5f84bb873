package worker_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A shard that is replaced bit by bit, by chunks on a finer grid, is there as long
// as a receipt needs it, and no longer.
func TestShardStaysWhileItIsNeeded(t *testing.T) {
	b := newBench(t, 2, worker.Limits{}, map[string]string{"g": ""})
	do := func(x task.Task) {
		t.Helper()
		x.Generator, x.Format = "g", task.Tar
		ctx, cancel := invocation(t.Context(), fmt.Sprint(x.RunID, x.StartIndex))
		defer cancel()
		if _, err := b.Handle(ctx, json.RawMessage(x.Body())); err != nil {
			t.Fatal(err)
		}
	}
	// shards are the objects, each of which must be whole if a receipt names it.
	shards := func() (keys []string) {
		t.Helper()
		for o, err := range b.store.List(t.Context(), task.DataPrefix+"g/", "") {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, o.Key)
		}
		seen := map[int]bool{}
		for _, r := range b.receipts("g") {
			if !slices.Contains(keys, r.Shard.Key) {
				t.Fatalf("%s names %s, there are %v", r.Key(), r.Shard.Key, keys)
			}
			body, _, err := b.store.Get(t.Context(), r.Shard.Key)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, body)
			body.Close()
			if err != nil || n != r.Shard.Size {
				t.Errorf("%s has %d bytes, %v", r.Shard.Key, n, err)
			}
			for _, s := range r.Samples {
				if seen[s.Index] {
					t.Errorf("index %d is committed twice", s.Index)
				}
				seen[s.Index] = true
			}
		}
		if len(seen) != 12 {
			t.Errorf("%d samples are committed", len(seen))
		}
		return keys
	}
	do(task.Task{NumSamples: 12, Seed: 1, RunID: "r1", ChunkSize: 12})
	whole := shards()
	if len(whole) != 1 {
		t.Fatalf("stored %v", whole)
	}
	for _, start := range []int{3, 0, 9} {
		do(task.Task{StartIndex: start, NumSamples: 3, Seed: 2, RunID: "r2", ChunkSize: 3, Overwrite: true})
		if got := shards(); !slices.Contains(got, whole[0]) {
			t.Fatalf("after %d: %v", start, got)
		}
	}
	do(task.Task{NumSamples: 12, Seed: 2, RunID: "r2", ChunkSize: 3, Overwrite: true})
	if got := shards(); len(got) != 4 || slices.Contains(got, whole[0]) {
		t.Errorf("at the end: %v", got)
	}
}

// noisy adds a file of 6 MB to each sample, more than a shard sends in one part and
// other bytes each time.
const noisy = `
import atexit, glob
def noise():
    for folder in glob.glob(os.path.join(sys.argv[sys.argv.index("--output") + 1], "*", "*")):
        with open(os.path.join(folder, "noise.bin"), "wb") as f:
            f.write(os.urandom(6 << 20))
atexit.register(noise)
`

// doer is a way to the bucket.
type doer func(*http.Request) (*http.Response, error)

func (d doer) Do(r *http.Request) (*http.Response, error) { return d(r) }

// The bucket may complete an upload minutes after it was asked to. When the worker
// that asked was killed meanwhile, and another one has made the samples, also on
// another grid, what the other one has stored stays.
func TestLateShard(t *testing.T) {
	for _, size := range []int{2, 1} {
		t.Run(fmt.Sprintf("chunks of 2, then of %d", size), func(t *testing.T) {
			b := newBench(t, 1, worker.Limits{}, map[string]string{"noisy": noisy})
			x := task.Task{Generator: "noisy", NumSamples: 1, Seed: 1, ChunkSize: 2, Format: task.Tar}
			ctx, kill := invocation(t.Context(), "first")
			defer kill()
			wire := store.HTTPClient(nil)
			var late *http.Request
			client := s3.New(s3.Options{BaseEndpoint: &b.url, Region: "us-east-2", Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""), RetryMaxAttempts: 1,
				HTTPClient: doer(func(r *http.Request) (*http.Response, error) {
					switch {
					case late != nil: // it is dead
						return nil, context.Canceled
					case r.Method != http.MethodPost || r.URL.Query().Get("uploadId") == "":
						return wire.Do(r)
					}
					body, err := io.ReadAll(r.Body)
					if err != nil {
						t.Error(err)
					}
					late = r.Clone(context.Background())
					late.Body = io.NopCloser(bytes.NewReader(body))
					kill()
					return nil, context.Canceled
				})}, store.ClientOptions)
			first, err := worker.New(worker.Config{Bucket: "bucket", Generators: b.generators}, store.New(client, "bucket"), nil, b.log)
			if err != nil {
				t.Fatal(err)
			}
			defer first.Close()
			if _, err := first.Handle(ctx, json.RawMessage(x.Body())); err == nil || late == nil {
				t.Fatalf("the first worker: %v", err)
			}
			if err := b.store.ReleaseHeldBy(t.Context(), "noisy", x.Chunks()[0], ""); err != nil {
				t.Fatal(err)
			}
			x.ChunkSize = size
			ctx, cancel := invocation(t.Context(), "second")
			defer cancel()
			if _, err := b.Handle(ctx, json.RawMessage(x.Body())); err != nil {
				t.Fatalf("the second worker: %v", err)
			}
			answer, err := wire.Do(late)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				t.Fatalf("the late completion: %s", answer.Status)
			}
			r := b.receipts("noisy")[0]
			body, _, err := b.store.Get(t.Context(), r.Shard.Key)
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			hash := sha256.New()
			if _, err := io.Copy(hash, body); err != nil || hex.EncodeToString(hash.Sum(nil)) != r.Shard.SHA256 {
				t.Errorf("%s has the hash %.8x, its receipt says %.16s; %v", r.Shard.Key, hash.Sum(nil), r.Shard.SHA256, err)
			}
		})
	}
}
