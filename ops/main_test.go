package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// TestMain lets the test binary be every program that the tests start: ops
// itself, and the processes of the local stack.
func TestMain(m *testing.M) {
	local.Main()
	testscript.Main(m, map[string]func(){"ops": main})
}

const (
	testBucket = "vm-test"
	testTasks  = "tasks"
	testDead   = "dead"
)

// cloud is a deployed stack as ops sees one: a queue, a bucket and a file of
// stack outputs. There are no workers.
type cloud struct {
	sqs     *sqsserver.Server
	queue   *queue.Client
	store   *store.Store
	outputs string   // file
	env     []string // that makes the SDK find it
	mu      sync.Mutex
	before  func(operation string, r *http.Request) (status int) // 0 lets the request pass
}

// newCloud starts the endpoints; they end with the test.
func newCloud(t testing.TB) *cloud {
	t.Helper()
	dir := t.TempDir()
	c := &cloud{outputs: filepath.Join(dir, "outputs.json")}
	web := httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(web.Close)
	var err error
	if c.sqs, err = sqsserver.Open(filepath.Join(dir, "sqs"), sqsserver.Options{BaseURL: web.URL}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.sqs.Close() })
	o := stack.Outputs{BucketName: testBucket, Region: "eu-west-1", AccountID: "123456789012"}
	if o.DLQURL, err = c.sqs.CreateQueue(sqsserver.Queue{Name: testDead, Retention: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if o.QueueURL, err = c.sqs.CreateQueue(sqsserver.Queue{Name: testTasks, Retention: time.Hour, DeadLetter: testDead, MaxReceives: 3}); err != nil {
		t.Fatal(err)
	}
	objects, err := s3server.Start(t.Context(), s3server.Config{Dir: filepath.Join(dir, "s3"), Meta: filepath.Join(dir, "meta"),
		Address: "127.0.0.1:0", Bucket: testBucket, Region: o.Region, AccessKey: "key", SecretKey: "secret"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = objects.Close() })
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.outputs, text, 0o644); err != nil {
		t.Fatal(err)
	}
	c.env = []string{"AWS_ENDPOINT_URL_SQS=" + web.URL, "AWS_ENDPOINT_URL_S3=" + objects.URL(), "AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret",
		"AWS_REGION=sa-east-1", // the stack's own must win, or the gateway refuses the signature
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull}
	key := credentials.NewStaticCredentialsProvider("key", "secret", "")
	c.queue = queue.New(sqs.New(sqs.Options{Region: o.Region, BaseEndpoint: &web.URL, Credentials: key}), o.QueueURL, o.DLQURL)
	c.store = store.New(s3.New(s3.Options{Region: o.Region, BaseEndpoint: aws.String(objects.URL()), Credentials: key}, store.ClientOptions), testBucket)
	return c
}

func (c *cloud) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	c.mu.Lock()
	before := c.before
	c.mu.Unlock()
	if before != nil {
		if status := before(operation, r); status != 0 {
			http.Error(w, `{"__type":"InternalError"}`, status)
			return
		}
	}
	c.sqs.ServeHTTP(w, r)
}

func (c *cloud) intercept(before func(operation string, r *http.Request) int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before = before
}

// take removes and returns every message that can be received from a queue.
func (c *cloud) take(t testing.TB, name string) []string {
	t.Helper()
	var bodies []string
	for {
		if visible, _, _ := c.sqs.Counts(name); visible == 0 {
			return bodies
		}
		d, err := c.sqs.Receive(t.Context(), name)
		if err != nil || d == nil {
			t.Fatalf("receive from %s: %v, %v", name, d, err)
		}
		bodies = append(bodies, d.Body)
		if err := c.sqs.Delete(name, d.ReceiptHandle); err != nil {
			t.Fatal(err)
		}
	}
}

// commit writes the receipt of a chunk that a run with this seed made.
func (c *cloud) commit(t testing.TB, generator string, r task.Range, seed, chunkSize int) {
	t.Helper()
	receipt := store.Receipt{Generator: generator, RunID: "earlier", RunSeed: seed, ChunkSize: chunkSize, Start: r.Start, End: r.End, Claim: 1, Format: task.Files}
	for i := r.Start; i < r.End; i++ {
		receipt.Samples = append(receipt.Samples, store.Described(sample.Sample{Index: i, ID: task.SampleID("d", i), Fingerprint: fmt.Sprint(i)}))
	}
	if err := c.store.PutReceipt(t.Context(), receipt); err != nil {
		t.Fatal(err)
	}
}

// generators makes folders that are found as generators.
func generators(t testing.TB, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		folder := filepath.Join(dir, name, "examples")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "generate.py"), []byte("print('hello')\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestScripts plays the dialogues in testdata/script. Scripts that begin with
// the word cloud in a comment's first line get one; see newCloud.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			// Nothing of the machine may reach a script: no pulumi, no credentials,
			// no selected stack.
			e.Setenv("PATH", filepath.SplitList(e.Getenv("PATH"))[0]+string(os.PathListSeparator)+e.WorkDir+"/bin"+string(os.PathListSeparator)+"/usr/bin:/bin")
			e.Setenv("OPS_STACK", "")
			e.Setenv("HOME", e.WorkDir)
			generators(e.T().(testing.TB), filepath.Join(e.WorkDir, "generators"), "maze-task", "sudoku-task", "chess-task")
			if !strings.HasPrefix(filepath.Base(e.WorkDir), "script-cloud") {
				return nil
			}
			c := newCloud(e.T().(testing.TB))
			e.Values["cloud"] = c
			e.Setenv("OUT", c.outputs)
			for _, pair := range c.env {
				name, value, _ := strings.Cut(pair, "=")
				e.Setenv(name, value)
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status": expectStatus,
			"send":   func(ts *testscript.TestScript, neg bool, args []string) { sendTo(ts, args) },
			"commit": commitRange,
			"holds":  holds,
		},
	})
}

// expectStatus runs ops and compares its exit status: status 80 ops ...
func expectStatus(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		var exit interface{ ExitCode() int }
		if e, ok := err.(interface{ ExitCode() int }); ok {
			exit = e
			got = exit.ExitCode()
		} else {
			ts.Check(err)
		}
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// sendTo puts a message into a queue: send dead BODY [attribute=value ...]
func sendTo(ts *testscript.TestScript, args []string) {
	c := ts.Value("cloud").(*cloud)
	attributes := map[string]queue.Attribute{}
	for _, pair := range args[2:] {
		name, value, _ := strings.Cut(pair, "=")
		attributes[name] = queue.Attribute{Type: "String", Text: value}
	}
	client := c.queue
	if args[0] == testDead {
		client = c.queue.ToDLQ()
	}
	ts.Check(client.SendMessage(ts.Context(), args[1], attributes))
}
