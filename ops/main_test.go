package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
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
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment/uvtest"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// TestMain lets the test binary be every program that the tests start: ops
// itself, and the processes of the local stack.
func TestMain(m *testing.M) {
	local.Main()
	// The processes are short, and most of them would collect garbage for a fifth of their time.
	if err := os.Setenv("GOGC", "400"); err != nil {
		panic(err)
	}
	// They wait for processes most of the time.
	if err := flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	testscript.Main(tests{m}, map[string]func(){"ops": main})
}

// tests is the process of the tests alone: it is short of CPU and not of memory. What commands take is measured.
type tests struct{ *testing.M }

func (t tests) Run() int {
	debug.SetGCPercent(400)
	return t.M.Run()
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
	client  *sqs.Client
	queue   *queue.Client
	dead    *queue.Client // sends to the DLQ
	store   *store.Store
	s3      *s3.Client
	objects string   // folder in which the objects lie as plain files
	outputs string   // file
	env     []string // that makes the SDK find it
	mu      sync.Mutex
	before  func(operation string, r *http.Request) (status int) // 0 lets the request pass
}

// newCloud starts the endpoints; they end with the test.
func newCloud(t testing.TB) *cloud {
	t.Helper()
	dir := s3test.Folder(t)
	c := &cloud{outputs: filepath.Join(dir, "outputs.json")}
	web := httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(web.Close)
	var err error
	if c.sqs, err = sqsserver.Open(filepath.Join(dir, "sqs"),
		sqsserver.Options{BaseURL: web.URL, MaxWait: 50 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.sqs.Close() })
	o := stack.Outputs{BucketName: testBucket, Region: "eu-west-1", AccountID: "123456789012"}
	if o.DLQURL, err = c.sqs.CreateQueue(sqsserver.Queue{Name: testDead, Retention: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if o.QueueURL, err = c.sqs.CreateQueue(sqsserver.Queue{Name: testTasks, Retention: time.Hour, DeadLetter: testDead,
		MaxReceives: 3}); err != nil {
		t.Fatal(err)
	}
	c.objects = filepath.Join(dir, "s3", testBucket)
	objects, err := s3server.Start(t.Context(), s3server.Config{Dir: filepath.Join(dir, "s3"),
		Meta:    filepath.Join(dir, "meta"),
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
	c.env = []string{"AWS_ENDPOINT_URL_SQS=" + web.URL, "AWS_ENDPOINT_URL_S3=" + objects.URL(), "AWS_ACCESS_KEY_ID=key",
		"AWS_SECRET_ACCESS_KEY=secret",
		"AWS_REGION=sa-east-1", // the stack's own must win, or the gateway refuses the signature
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull}
	key := credentials.NewStaticCredentialsProvider("key", "secret", "")
	client := sqs.New(sqs.Options{Region: o.Region, BaseEndpoint: &web.URL, Credentials: key,
		HTTPClient: store.HTTPClient(nil)})
	c.client = client
	c.queue, c.dead = queue.New(client, o.QueueURL, o.DLQURL), queue.New(client, o.DLQURL, o.DLQURL)
	c.s3 = s3.New(s3.Options{Region: o.Region, BaseEndpoint: aws.String(objects.URL()), Credentials: key,
		HTTPClient: store.HTTPClient(nil)}, store.ClientOptions)
	c.store = store.New(c.s3, testBucket)
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
func (c *cloud) take(ctx context.Context, name string) (bodies []string, err error) {
	for {
		if visible, _, _ := c.sqs.Counts(name); visible == 0 {
			return bodies, nil
		}
		d, err := c.sqs.Receive(ctx, name)
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, d.Body)
		if err := c.sqs.Delete(name, d.ReceiptHandle); err != nil {
			return nil, err
		}
	}
}

// commit stores a chunk that a run with this seed made, with a commit and a lock of its
// generator.
func (c *cloud) commit(ctx context.Context, generator, run, commit, lock string, r task.Range, seed,
	chunkSize int) error {
	receipt := store.Receipt{Generator: generator, RunID: run, Commit: commit, Lock: lock, CPUSeconds: float64(r.Len()),
		WallSeconds: float64(r.Len()), RunSeed: seed, ChunkSize: chunkSize, Start: r.Start, End: r.End, Format: task.Files,
		Domain: "d"}
	for i := r.Start; i < r.End; i++ {
		text := fmt.Sprint(generator, i)
		sum := sha256.Sum256([]byte(text))
		f := store.ReceiptFile{Name: "prompt.txt", Size: int64(len(text)), SHA256: hex.EncodeToString(sum[:])}
		receipt.Samples = append(receipt.Samples, store.ReceiptSample{Index: i, ID: task.SampleID("d", i), Fingerprint: text,
			Files: []store.ReceiptFile{f}})
		key := task.DefaultDataset.FileKey(generator, task.SampleID("d", i), f.Name)
		if _, err := c.s3.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(testBucket), Key: &key,
			Body: strings.NewReader(text)}); err != nil {
			return err
		}
	}
	return commitReceipt(ctx, c.store, receipt)
}

// makeGenerators makes folders that are found as generators.
func makeGenerators(t testing.TB, dir string, names ...string) {
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

// TestScripts plays the dialogues in testdata/script, where there is no stack,
// and those in testdata/cloud, where $OUT are the outputs of one.
func TestScripts(t *testing.T) {
	for _, folder := range []string{"script", "cloud"} {
		t.Run(folder, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir:                 filepath.Join("testdata", folder),
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
				Setup:               func(e *testscript.Env) error { return setUp(e, folder == "cloud") },
				Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "send": sendTo, "commit": commitRange,
					"take": takeFrom, "runs": countRuns, "up": waitUp, "repair": makeGood, "output": setOutput,
					"capture": capture, "until": until, "comeback": comeBack, "run": printRun, "flip": flip, "edit": editFile},
			})
		})
	}
}

// installer is what makes Python environments for the scripts.
var installer = sync.OnceValues(func() (uv struct{ bin, cache string }, err error) {
	uv.bin, uv.cache, err = uvtest.Bin()
	return uv, err
})

func setUp(e *testscript.Env, withCloud bool) error {
	t := e.T().(testing.TB)
	// Nothing of this machine may reach a script: no pulumi, no credentials.
	bin, _, _ := strings.Cut(e.Getenv("PATH"), string(os.PathListSeparator))
	uv, err := installer()
	if err != nil {
		return err
	}
	path := []string{bin, filepath.Join(e.WorkDir, "bin"), uv.bin, "/usr/bin", "/bin"}
	e.Setenv("PATH", strings.Join(path, string(os.PathListSeparator)))
	e.Setenv("UV_CACHE_DIR", uv.cache)
	e.Setenv("HOME", e.WorkDir)
	e.Setenv("GORACE", os.Getenv("GORACE")) // it says whether each command waits a second at its end
	e.Setenv("GOGC", os.Getenv("GOGC"))
	e.Setenv("LINES", "no\n\tjson")
	e.Setenv(stack.EnvRetryDelays, "0.01") // what fails is tried again at once
	makeGenerators(t, filepath.Join(e.WorkDir, "generators"), "maze-task", "sudoku-task", "chess-task")
	own, err := filepath.Abs(filepath.Join("..", "generators"))
	if err != nil {
		return err
	}
	e.Setenv("OWN", own)
	// Some that work, and some whose name makes them fail.
	source, err := os.ReadFile(filepath.Join("local", "testdata", "generate.py"))
	if err != nil {
		return err
	}
	for _, name := range []string{"real/lights", "broken/usage", "faulty/good", "faulty/restless", "faulty/few",
		"faulty/truncated", "faulty/link", "faulty/no-module",
		"mixed/lights", "mixed/restless", "mixed/dice", "small/pool-40", "small/pool-7", "hollow/blank", "filmed/frames",
		"alike/steady", "alike/lights", "even/lights", "even/frames"} {
		makeGenerators(t, e.WorkDir, name)
		if err := os.WriteFile(filepath.Join(e.WorkDir, name, "examples", "generate.py"), source, 0o644); err != nil {
			return err
		}
	}
	// Of GitHub there is one organisation, whose repositories a script makes.
	github := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/orgs/makers/repos" {
			http.Error(w, `{"message":"Not Found"}`, http.StatusNotFound)
			return
		}
		fmt.Fprint(w, `[{"name":"towers","full_name":"makers/towers","size":1,"license":{"spdx_id":"MIT"}},{"name":"website","full_name":"makers/website","size":1},
			{"name":"maze-task","full_name":"makers/maze-task","size":1},{"name":"form","full_name":"makers/form","size":1,"is_template":true}]`)
	}))
	t.Cleanup(github.Close)
	e.Setenv("GITHUB_API_URL", github.URL)
	e.Setenv("GITHUB_SERVER_URL", "file://"+filepath.Join(e.WorkDir, "github"))
	if !withCloud {
		return nil
	}
	c := newCloud(t)
	e.Values["cloud"] = c
	e.Setenv("OUT", c.outputs)
	e.Setenv("OBJECTS", c.objects)
	for _, pair := range c.env {
		name, value, _ := strings.Cut(pair, "=")
		e.Setenv(name, value)
	}
	return nil
}

// A sandbox is one before the AWS clients and the endpoints of the local stack are initialised: that would take longer
// than all else that it does.
func TestSandboxIsFirst(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^$")
	cmd.Env = []string{"VM_DATASET_SANDBOX={", "GODEBUG=inittrace=1"}
	trace, err := cmd.CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() == 0 || !bytes.Contains(trace, []byte("init os ")) {
		t.Fatalf("%v\n%s", err, trace)
	}
	for _, late := range []string{"net/http", "github.com/segmentio/kafka-go", "github.com/aws/aws-sdk-go-v2/service/s3"} {
		if bytes.Contains(trace, []byte("init "+late+" ")) {
			t.Errorf("%s is initialised before the sandbox starts", late)
		}
	}
}
