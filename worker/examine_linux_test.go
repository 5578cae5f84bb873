package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// A direct invocation tells what the worker's machine is like, without a task: its clock against the
// bucket's, which refuses the worker here, what a generator reaches, and who is not ready and why.
func TestExamine(t *testing.T) {
	t.Parallel()
	ahead := time.Duration(0)
	bucket := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusForbidden)
	}))
	defer bucket.Close()
	client := s3.New(s3.Options{BaseEndpoint: &bucket.URL, Region: "us-east-2", HTTPClient: store.HTTPClient(nil),
		UsePathStyle: true, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
		Retryer: store.UnlimitedRetries()}, store.ClientOptions)
	generators := install(t, "good")
	index, err := generator.LoadIndex(generators)
	if err != nil {
		t.Fatal(err)
	}
	index.Generators[0].Commit, index.Generators[0].Lock = "c1", "l1"
	index.Generators = append(index.Generators, generator.Generator{Name: "torn", Problem: "no index has numpy 9"})
	if err := index.Write(generators); err != nil {
		t.Fatal(err)
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		config worker.Config
		ahead  time.Duration
	}{
		{"as in Lambda", worker.Config{Generators: generators, Image: "r@sha256:1"}, 0},
		{"on a machine of its own", worker.Config{Generators: generators, OwnMachine: true}, -time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			ahead = test.ahead
			test.config.Bucket = "bucket"
			test.config.Folder = t.TempDir()
			h, err := worker.New(test.config, store.New(client, "bucket"), nil, &bytes.Buffer{})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			answer, err := h.Handle(ctx, json.RawMessage(worker.Examine))
			x, ok := answer.(*worker.Examination)
			if err != nil || !ok {
				t.Fatalf("%v, %v", answer, err)
			}
			if x.Kernel != strings.TrimSpace(string(kernel)) || x.CPUs < 1 || x.MemoryMB < 1 || x.User != os.Getuid() ||
				x.Image != test.config.Image || len(x.Generators) != 2 || x.Problem != "" {
				t.Errorf("%+v", x)
			}
			if want := []worker.Installed{{Name: "good", Commit: "c1", Lock: "l1"},
				{Name: "torn", Problem: "no index has numpy 9"}}; !slices.Equal(x.Generators, want) {
				t.Errorf("in the image: %v", x.Generators)
			}
			if off := time.Duration(aws.ToFloat64(x.ClockAhead) * float64(time.Second)); x.ClockAhead == nil ||
				(off-test.ahead).Abs() > 5*time.Second {
				t.Errorf("the bucket's clock is %s ahead, %s was expected", off, test.ahead)
			}
			if x.Sees == nil {
				t.Fatal("nothing was found out about the sandbox")
			}
			if x.Landlock > 0 && (len(x.Sees.Proc["environ"]) > 0 || len(x.Sees.Proc["mem"]) > 0 ||
				len(x.Sees.Proc["fd"]) > 0 || slices.Contains(x.Sees.Writable, "/tmp")) {
				t.Errorf("behind Landlock a generator reaches %+v", x.Sees)
			}
			if !slices.Contains(x.Sees.Proc["cmdline"], x.Worker) {
				t.Errorf("everybody may read a command line: %v", x.Sees.Proc["cmdline"])
			}
			if !test.config.OwnMachine && !x.Sees.Network {
				t.Error("in Lambda generators have the network")
			}
			if test.config.OwnMachine && os.Getuid() == 0 && x.Sees.Network {
				t.Error("root can take the network away")
			}
			entries, err := os.ReadDir(filepath.Join(test.config.Folder, "vm-dataset-worker-0"))
			if err != nil || len(entries) > 0 {
				t.Errorf("left in the temporary folder: %v, %v", entries, err)
			}
		})
	}
}
