package local

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment/uvtest"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestMain(m *testing.M) {
	Main()
	if order := os.Getenv(stackVariable); order != "" {
		os.Exit(serveElsewhere(order))
	}
	// What fails is tried again after a second or two, and not after 10, 30 or 60.
	if err := errors.Join(os.Setenv(stack.EnvRetryDelays, "0.05"), uvtest.Setenv()); err != nil {
		panic(err)
	}
	// They wait for processes most of the time.
	if err := flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(shared())
	os.Exit(code)
}

// shared is a folder for what tests make once.
var shared = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "vm-dataset-test-")
	if err != nil {
		panic(err)
	}
	return dir
})

// The whole stack is killed while it works; the next one goes on.
func TestStackKilled(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	for round := range 3 {
		r, kill := upElsewhere(t, dir, 2)
		r.sendTask(task.Task{Generator: "slow", StartIndex: round * 10, NumSamples: 10, Seed: 1, ChunkSize: 2})
		receipts := filepath.Join(objectsDir(dir), Bucket, task.DefaultDataset.Prefix(task.ReceiptKind), "slow", "*.json")
		eventually(t, "a chunk is committed",
			func() bool { found, _ := filepath.Glob(receipts); return len(found) > round*5 })
		kill()
	}
	r := up(t, dir, Config{})
	r.idle()
	r.holds("slow", task.Range{Start: 0, End: 30})
	for _, receipt := range r.receipts("slow") {
		if receipt.Receives > 1 {
			t.Errorf("samples %s count %d deliveries, though the stack was at fault", receipt.Range(), receipt.Receives)
		}
	}
}

// What a client receives while a stack starts is the client's: it is not given
// back with what the last stack had in flight.
func TestNobodyIsServedBeforeRecovery(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	r, kill := upElsewhere(t, dir, 0)
	url := r.Outputs().DLQURL
	for n := range 50 { // the more there is to give back, the longer it takes
		if _, err := r.sqs.SendMessage(t.Context(),
			&sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String(strconv.Itoa(n))}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.sqs.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.sqs.SendMessage(t.Context(),
		&sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("waits")}); err != nil {
		t.Fatal(err)
	}
	kill()
	received := make(chan string)
	go func() {
		for {
			out, err := r.sqs.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, VisibilityTimeout: 60})
			if err == nil && len(out.Messages) == 1 || t.Context().Err() != nil {
				received <- aws.ToString(out.Messages[0].ReceiptHandle)
				return
			}
		}
	}()
	up(t, dir, Config{Workers: 1})
	handle := <-received
	if _, err := r.sqs.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &url,
		ReceiptHandle: &handle, VisibilityTimeout: 60}); err != nil {
		t.Errorf("received while the stack started: %v", err)
	}
}

// Only one stack may run in a folder, and the folder says which.
func TestOneStackPerFolder(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	if _, err := Outputs(dir); !errors.Is(err, ErrDown) {
		t.Errorf("before it is up: %v", err)
	}
	r := up(t, dir, Config{Workers: 1})
	if _, err := Up(t.Context(), Config{Dir: dir, Workers: 1, Timeout: time.Minute,
		Visibility: time.Minute}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second one: %v", err)
	}
	o, err := Outputs(dir)
	if err != nil || !reflect.DeepEqual(o, r.Outputs()) {
		t.Errorf("outputs %+v, %v", o, err)
	}
	for _, address := range []string{o.SQSEndpoint, o.S3Endpoint} {
		if u, err := url.Parse(address); err != nil || u.Hostname() != "127.0.0.1" {
			t.Errorf("it listens on %s", address)
		}
	}
	response, err := http.Get(o.S3Endpoint + "/" + Bucket)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusForbidden {
		t.Errorf("the bucket answers a stranger with %d: %s", response.StatusCode, body)
	}
	if err := r.Down(); err != nil {
		t.Fatal(err)
	}
	if _, err := Outputs(dir); !errors.Is(err, ErrDown) {
		t.Errorf("after it was up: %v", err)
	}
}

// Log lines have the same keys, and the metrics are CloudWatch's format.
func TestLogs(t *testing.T) {
	t.Parallel()
	r := up(t, folder(t), Config{Workers: 1})
	r.sendTask(task.Task{Generator: "good", NumSamples: 5, Seed: 1})
	r.idle()
	text, err := os.ReadFile(filepath.Join(r.dir, "logs", "worker-0.log"))
	if err != nil {
		t.Fatal(err)
	}
	lines, metrics := 0, 0
	for line := range bytes.Lines(text) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Errorf("no JSON: %s", line)
			continue
		}
		if embedded, ok := fields["_aws"].(map[string]any); ok {
			metrics++
			if embedded["Timestamp"] == nil || embedded["CloudWatchMetrics"] == nil {
				t.Errorf("metric %s", line)
			}
			continue
		}
		lines++
		for _, key := range []string{"time", "level", "msg", "request_id", "message_id", "receives", "dataset", "run_id",
			"generator", "start", "end"} {
			if _, ok := fields[key]; !ok {
				t.Errorf("%s lacks %s", line, key)
			}
		}
	}
	if lines < 3 || metrics < 1 {
		t.Errorf("%d lines, %d metrics:\n%s", lines, metrics, text)
	}
}
