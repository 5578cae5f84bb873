package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// receipts are those of a generator.
func (s *site) receipts(generator string) []store.Receipt {
	return s3test.Receipts(s, s.store, generator)
}

// output is what a process has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// atWork starts ops worker and waits until chunks of a generator are committed.
func (s *site) atWork(chunks int, generator string, args ...string) (cmd *exec.Cmd, out *output) {
	s.Helper()
	cmd, out = s.command(append([]string{"worker"}, args...)...), &output{}
	cmd.Stdout = out
	stderr := &output{}
	cmd.Stderr = stderr
	must(s, cmd.Start())
	s.Cleanup(func() {
		_ = cmd.Process.Kill() // an error if it has ended
		if s.Failed() {
			s.Logf("%s\n%s", stderr, out)
		}
	})
	for began := time.Now(); len(s.receipts(generator)) < chunks; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			s.Fatalf("no %d chunks are committed", chunks)
		}
	}
	return cmd, out
}

// A worker that is to stop hands its task back, as a message that others see at once and of which no
// delivery is counted. What is committed stays.
func TestWorkerHandsBack(t *testing.T) {
	t.Parallel()
	s := localSite(t, 3, "slower")
	s.submit("r", 20, 20, "slower")
	cmd, _ := s.atWork(2, "slower", "--workers", "1")
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	began := time.Now()
	must(t, cmd.Wait())
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s to hand the task back", took)
	}
	before := s.receipts("slower")
	waiting, all := s.depth()
	if waiting == 0 || waiting != all || len(before) == 10 {
		t.Fatalf("%d of %d tasks wait, %d of 10 chunks are committed", waiting, all, len(before))
	}
	s.ops("worker", "--idle", "1s")
	s.ops("verify", "--run", "r")
	kept := 0
	for _, now := range s.receipts("slower") {
		for _, r := range before {
			if now.Start == r.Start && now.RequestID == r.RequestID {
				kept++
			}
		}
	}
	if kept != len(before) {
		t.Errorf("%d of %d committed chunks stayed", kept, len(before))
	}
}

// A worker that drains makes its task to the end, however short a time the queue hides it, and takes no other.
func TestWorkerDrains(t *testing.T) {
	t.Parallel()
	s := localSite(t, 3, "slower")
	s.submit("r", 10, 10, "slower") // 8.5 s on one CPU
	cmd, out := s.atWork(0, "slower", "--workers", "2", "--drain", "--timeout", "60s")
	for began := time.Now(); !strings.Contains(out.String(), "task started"); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("it did not begin")
		}
	}
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	s.submit("later", 8, 4, "slower")
	must(t, cmd.Wait())
	if n := strings.Count(out.String(), `"msg":"task started"`); n != 1 {
		t.Errorf("%d tasks were begun", n)
	}
	for _, r := range s.receipts("slower") {
		if r.Receives != 1 || r.RunID != "r" {
			t.Errorf("chunk %d was made for run %s by delivery %d", r.Start, r.RunID, r.Receives)
		}
	}
	s.ops("verify", "--run", "r")
	if waiting, all := s.depth(); waiting != all || all == 0 {
		t.Errorf("%d of %d tasks wait", waiting, all)
	}
}

// A task that fails goes to the DLQ at its third delivery, with the attributes that it has from the function.
func TestWorkerMovesToDLQ(t *testing.T) {
	t.Parallel()
	s := localSite(t, 3, "crash")
	s.submit("r", 2, 2, "crash")
	s.ops("worker", "--workers", "1", "--idle", "4s")
	mine := s.dead()
	s.submit("r2", 2, 2, "crash")
	f, err := newFunction(s.generators, &s.Outputs, s.store, s.sqs)
	must(t, err)
	for _, all := s.depth(); all > 0; _, all = s.depth() {
		out, err := s.sqs.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &s.QueueURL, WaitTimeSeconds: 1,
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}})
		must(t, err)
		for _, m := range out.Messages {
			_, err := f.invoke(t.Context(), &m, shortTask)
			must(t, err)
			_, _ = s.sqs.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &s.QueueURL,
				ReceiptHandle: m.ReceiptHandle}) // an error if it is done with
		}
	}
	theirs := s.dead()
	if len(mine) != 1 || len(theirs) != 1 {
		t.Fatalf("%d and %d tasks are in the DLQ", len(mine), len(theirs))
	}
	for _, name := range []string{task.AttributeCause, task.AttributeReceives, task.AttributeDetail} {
		if mine[0][name] != theirs[0][name] || mine[0][name] == "" {
			t.Errorf("%s is %q, of the function %q", name, mine[0][name], theirs[0][name])
		}
	}
	if mine[0][task.AttributeReceives] != "3" {
		t.Errorf("moved at delivery %s", mine[0][task.AttributeReceives])
	}
}

// A machine without a generator leaves its tasks to others, and no delivery is counted; a task that nobody
// can do goes to the DLQ in the end.
func TestWorkerLeavesTasks(t *testing.T) {
	t.Parallel()
	s := localSite(t, 3, "good", "lights")
	s.submit("r", 4, 4, "good", "lights")
	whole := s.generators
	s.generators = filepath.Join(s.dir, "part")
	b := environment.Builder{Root: filepath.Join(s.dir, "generators"), Dir: s.generators, Python: "/usr/bin/python3",
		Names: []string{"good"}}
	_, err := b.Build(t.Context())
	must(t, err)
	s.ops("worker", "--workers", "1", "--idle", "4s")
	if n := len(s.receipts("good")); n != 2 {
		t.Errorf("%d chunks of good are committed", n)
	}
	if dead := s.dead(); len(dead) > 0 {
		t.Fatalf("in the DLQ: %v", dead)
	}
	s.generators = whole
	s.ops("worker", "--workers", "1", "--idle", "4s")
	s.ops("verify", "--run", "r")

	body := task.Task{Generator: "nobody", NumSamples: 1, Seed: 1}.Body()
	number, left := "Number", "29"
	_, err = s.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &s.QueueURL, MessageBody: &body,
		MessageAttributes: map[string]types.MessageAttributeValue{task.AttributeReceives: {DataType: &number,
			StringValue: &left}}})
	must(t, err)
	s.ops("worker", "--workers", "1", "--idle", "1s")
	if dead := s.dead(); len(dead) != 1 || dead[0][task.AttributeCause] != string(task.UnknownGenerator) {
		t.Errorf("in the DLQ: %v", dead)
	}
}

// spy is what a generator tries first: the files, the environments and the addresses that would show it the
// worker's credentials.
const spy = `
import os, socket, sys
found = [f"variable {name}" for name in os.environ if name.startswith("AWS_")]
for path in %q.split(), *(["/proc/%%s/environ" %% pid] for pid in os.listdir("/proc") if pid.isdigit()):
    for name in path:
        try:
            if b"KEY-OF-THE-TEST" in open(name, "rb").read():
                found.append(name)
        except OSError:
            pass
try:
    socket.create_connection(("127.0.0.1", %d), 5)
    found.append("network")
except OSError:
    pass
if found and "--help" not in sys.argv:
    raise ValueError(f"it sees {found}")
`

// Generators see nothing of the credentials that the SDK finds: in variables, in files of the user, and from
// the machine's metadata service, which everybody on the machine can ask.
func TestWorkerKeepsCredentials(t *testing.T) {
	t.Parallel()
	metadata, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer metadata.Close()
	s := localSite(t, 1, "good")
	file := filepath.Join(s.dir, ".aws", "credentials")
	entry := filepath.Join(s.dir, "generators", "good", "examples", "generate.py")
	source, err := os.ReadFile(entry)
	must(t, err)
	docstring, rest, _ := strings.Cut(string(source), "import argparse")
	code := fmt.Sprintf(spy, file, metadata.Addr().(*net.TCPAddr).Port)
	must(t, errors.Join(os.WriteFile(entry, []byte(docstring+code+"import argparse"+rest), 0o644),
		os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("[default]\naws_access_key_id = key\n"+
			"aws_secret_access_key = secret # KEY-OF-THE-TEST\n"), 0o600)))
	var env []string
	for _, variable := range s.env { // the file is the only source of the credentials
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, "AWS_ACCESS") && !strings.HasPrefix(name, "AWS_SECRET") &&
			name != "AWS_SHARED_CREDENTIALS_FILE" {
			env = append(env, variable)
		}
	}
	inVariables := append(s.env, "AWS_SESSION_NAME=KEY-OF-THE-TEST")
	for run, variables := range map[string][]string{"file": env, "variables": inVariables} {
		s.env = variables
		s.submit(run, 2, 2, "good")
		s.ops("worker", "--workers", "1", "--idle", "1s")
		if dead := s.dead(); len(dead) > 0 {
			t.Fatalf("with credentials in %s: %s", run, dead[0][task.AttributeDetail])
		}
		s.ops("verify", "--run", run)
		s.ops("dataset", "delete", "v1", "--yes")
	}
	// Where the machine is the stack's own, and nothing is to be had from the network, it is open.
	s.submit("function", 2, 2, "good")
	f, err := newFunction(s.generators, &s.Outputs, s.store, s.sqs)
	must(t, err)
	out, err := s.sqs.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &s.QueueURL,
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}})
	must(t, err)
	if _, err := f.invoke(t.Context(), &out.Messages[0], shortTask); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(f.log.String(), "it sees ['network']") {
		t.Errorf("the test finds nothing: %s", &f.log)
	}
}
