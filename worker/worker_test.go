package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestMain(m *testing.M) {
	s3server.Main()
	dir, err := os.MkdirTemp("", "vm-dataset-test-")
	if err == nil {
		parallel := strconv.Itoa(3 * runtime.GOMAXPROCS(0)) // they wait most of the time
		// Of each property 40 cases; CI has two thousand of the protocol.
		err = errors.Join(os.Setenv("TMPDIR", dir), flag.Set("test.parallel", parallel), flag.Set("rapid.checks", "40"))
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// install makes an index with the test generator under some of its names.
func install(t *testing.T, names ...string) string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("..", "ops", "local", "testdata", "generate.py"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range names {
		path := filepath.Join(dir, "source", name, "examples", "generate.py")
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, source, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	b := environment.Builder{Root: filepath.Join(dir, "source"), Dir: filepath.Join(dir, "index")}
	if _, err := b.Build(t.Context()); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "index")
}

func invocation(ctx context.Context, id string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	return lambdacontext.NewContext(ctx, &lambdacontext.LambdaContext{AwsRequestID: id}), cancel
}

// A bare task can be invoked directly, without a queue.
func TestDirectInvocation(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	st := s3test.New(t).Store(nil)
	var out bytes.Buffer
	h, err := worker.New(worker.Config{Bucket: "bucket", Generators: install(t, "good", "crash"), Function: "f",
		Image: "r@sha256:1", Folder: folder}, st, nil, &out)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	handle := func(id, payload string) (any, error) {
		ctx, cancel := invocation(t.Context(), id)
		defer cancel()
		return h.Handle(ctx, json.RawMessage(payload))
	}
	got, err := handle("r-1", `{"type":"good","num_samples":30,"seed":5}`)
	want := worker.Summary{Generator: "good", Samples: 30, Committed: []string{"receipts/v1/good/00000000_00000019.json",
		"receipts/v1/good/00000020_00000029.json"}}
	if s, ok := got.(worker.Summary); err != nil || !ok || s.Samples != 30 || len(s.Committed) != 2 {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if receipts := s3test.Receipts(t, st, "good"); len(receipts) != 2 || receipts[0].Image != "r@sha256:1" {
		t.Errorf("receipts %+v", receipts)
	}
	if want := `"Samples":30,"Tasks":1,"_aws":{"CloudWatchMetrics":[{"Dimensions":[["function"],["function","generator"]]`; !strings.Contains(out.String(), want) || !strings.Contains(out.String(), `"function":"f"`) {
		t.Errorf("no metrics of the function: %s", out.String())
	}
	// The seed of a task without one is that of its request: the same again is done.
	again, err := handle("r-1", `{"type":"good","num_samples":30,"seed":5}`)
	if err != nil || !reflect.DeepEqual(again, worker.Summary{Generator: "good", Skipped: 30, Committed: []string{}}) {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	for payload, word := range map[string]string{
		`{"type":"good","num_samples":30,"seed":6}`: "conflict",
		`{"type":"goood","num_samples":1}`:          "did you mean good",
		`{"type":"good"}`:                           "num_samples is missing",
		`{"type":"crash","num_samples":1}`:          "no puzzle for seed",
	} {
		if got, err := handle("r-2", payload); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %+v, %v", payload, got, err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(folder, "vm-dataset-worker-0"))
	if err != nil || len(entries) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", entries, err)
	}
}

func TestConfigFromEnv(t *testing.T) {
	for _, test := range []struct {
		name string
		env  map[string]string
		want worker.Config
		err  string
	}{
		{"least", map[string]string{stack.EnvBucket: "b"}, worker.Config{Bucket: "b", Generators: stack.DefaultGenerators,
			Region: stack.DefaultRegion}, ""},
		{"all", map[string]string{
			stack.EnvBucket: "b", stack.EnvGenerators: "/g", stack.EnvQueueURL: "q", stack.EnvDLQURL: "d",
			stack.EnvRegion:   "eu-west-1",
			stack.EnvFunction: "f", stack.EnvImage: "r@sha256:1", stack.EnvRequiredFiles: "rubric.txt,metadata.json",
			stack.EnvRetryDelays: "0.5",
		}, worker.Config{Bucket: "b", Generators: "/g", QueueURL: "q", DLQURL: "d", Region: "eu-west-1", Function: "f",
			Image:    "r@sha256:1",
			Required: []string{"rubric.txt", "metadata.json"}, RetryDelays: 0.5}, ""},
		{"no bucket", nil, worker.Config{}, "OUTPUT_BUCKET is not set: it names the bucket the samples go to"},
		{"a path", map[string]string{stack.EnvBucket: "b", stack.EnvRequiredFiles: "rubric.txt,x/y"}, worker.Config{},
			`REQUIRED_FILES: "x/y" must be the name of a file, without '/', '\' and ','`},
		{"an empty name", map[string]string{stack.EnvBucket: "b", stack.EnvRequiredFiles: "rubric.txt,"}, worker.Config{},
			`REQUIRED_FILES: ""`},
		{"no retry would wait", map[string]string{stack.EnvBucket: "b", stack.EnvRetryDelays: "0"}, worker.Config{},
			`RETRY_DELAY_FACTOR is "0", it must be a number above 0 and at most 1`},
		{"longer waits", map[string]string{stack.EnvBucket: "b", stack.EnvRetryDelays: "1.1"}, worker.Config{},
			`RETRY_DELAY_FACTOR is "1.1"`},
		{"no number", map[string]string{stack.EnvBucket: "b", stack.EnvRetryDelays: "NaN"}, worker.Config{},
			`RETRY_DELAY_FACTOR is "NaN"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, name := range []string{stack.EnvBucket, stack.EnvGenerators, stack.EnvQueueURL, stack.EnvDLQURL,
				stack.EnvRegion, stack.EnvFunction, stack.EnvImage, stack.EnvRequiredFiles, stack.EnvRetryDelays} {
				t.Setenv(name, test.env[name])
			}
			got, err := worker.ConfigFromEnv()
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %s", err, test.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, test.want)
			}
		})
	}
}

// The worker does with moto's queue and bucket what it does with the local ones.
func TestAgainstMoto(t *testing.T) {
	endpoint := os.Getenv("MOTO_ENDPOINT")
	if endpoint == "" {
		t.Skip("MOTO_ENDPOINT is not set: no moto server to run against")
	}
	creds := credentials.NewStaticCredentialsProvider("a", "b", "")
	objects := s3.New(s3.Options{BaseEndpoint: &endpoint, Region: "us-east-2", HTTPClient: store.HTTPClient(nil),
		Credentials: creds}, store.ClientOptions)
	queues := sqs.New(sqs.Options{BaseEndpoint: &endpoint, Region: "us-east-2", HTTPClient: store.HTTPClient(nil),
		Credentials: creds})
	unique := fmt.Sprint(time.Now().UnixNano())
	bucket := "worker-" + unique
	if _, err := objects.CreateBucket(t.Context(),
		&s3.CreateBucketInput{Bucket: &bucket,
			CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: "us-east-2"}}); err != nil {
		t.Fatal(err)
	}
	queue := func(name string, attributes map[string]string) string {
		out, err := queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(name + unique),
			Attributes: attributes})
		if err != nil {
			t.Fatal(err)
		}
		return *out.QueueUrl
	}
	dlq := queue("dlq", nil)
	arn, err := queues.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &dlq,
		AttributeNames: []types.QueueAttributeName{"QueueArn"}})
	if err != nil {
		t.Fatal(err)
	}
	tasks := queue("tasks", map[string]string{"RedrivePolicy": fmt.Sprintf(
		`{"deadLetterTargetArn":%q,"maxReceiveCount":3}`, arn.Attributes["QueueArn"])})
	st := store.New(objects, bucket)
	h, err := worker.New(worker.Config{Bucket: bucket, Generators: install(t, "good", "restless", "crash"),
		QueueURL: tasks, DLQURL: dlq}, st, queues, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()

	// deliver sends a message and hands it to the worker as Lambda would.
	deliver := func(body string, receives string) events.SQSEventResponse {
		t.Helper()
		if _, err := queues.SendMessage(t.Context(),
			&sqs.SendMessageInput{QueueUrl: &tasks, MessageBody: &body}); err != nil {
			t.Fatal(err)
		}
		out, err := queues.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &tasks})
		if err != nil || len(out.Messages) != 1 {
			t.Fatalf("%v, %v", out, err)
		}
		m := out.Messages[0]
		payload, _ := json.Marshal(events.SQSEvent{Records: []events.SQSMessage{{MessageId: *m.MessageId,
			ReceiptHandle: *m.ReceiptHandle, Body: *m.Body,
			Attributes: map[string]string{"ApproximateReceiveCount": receives}}}})
		ctx, cancel := invocation(t.Context(), "r-"+*m.MessageId)
		defer cancel()
		got, err := h.Handle(ctx, payload)
		if err != nil {
			t.Fatal(err)
		}
		return got.(events.SQSEventResponse)
	}
	for name, format := range map[string]string{"good": "files", "restless": "tar"} {
		dataset := task.Dataset("as-" + format) // a dataset has one format
		body := fmt.Sprintf(`{"type":%q,"num_samples":25,"seed":1,"output_format":%q,"dataset":%q}`, name, format, dataset)
		if r := deliver(body, "1"); len(r.BatchItemFailures) > 0 {
			t.Errorf("%s: %+v", format, r)
		}
		receipts := s3test.Receipts(t, st.In(dataset), name)
		if len(receipts) != 2 {
			t.Errorf("%s: %d receipts", name, len(receipts))
		}
		for _, r := range receipts {
			for _, key := range r.Objects() {
				if _, err := st.Read(t.Context(), key); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if r := deliver(`{"type":"crash","num_samples":1,"seed":1}`, "1"); len(r.BatchItemFailures) != 1 {
		t.Errorf("a failure that may pass: %+v", r)
	}
	if r := deliver(`{"type":"crash","num_samples":1,"seed":2}`, "3"); len(r.BatchItemFailures) != 0 {
		t.Errorf("a failure at the last delivery: %+v", r)
	}
	if r := deliver(`{"type":"none such","num_samples":1}`, "1"); len(r.BatchItemFailures) != 0 {
		t.Errorf("an invalid task: %+v", r)
	}
	dead, err := queues.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &dlq, MaxNumberOfMessages: 10,
		MessageAttributeNames: []string{"All"}})
	if err != nil {
		t.Fatal(err)
	}
	causes := map[string]int{}
	for _, m := range dead.Messages {
		causes[aws.ToString(m.MessageAttributes[task.AttributeCause].StringValue)]++
	}
	if !reflect.DeepEqual(causes, map[string]int{"crashed": 1, "invalid_task": 1}) {
		t.Errorf("the DLQ has %v", causes)
	}
}
