package local

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// workerVariable makes a process a worker of the local stack.
const workerVariable = "VM_DATASET_WORKER"

// lockDescriptor is where a worker inherits the stack's lock.
const lockDescriptor = 3

// Main runs the part of the local stack that this process was started as (a worker,
// the S3 gateway, or the sandbox of a generator) and does not return then. Every
// program that calls Up must call it first.
func Main() {
	generator.Main()
	s3server.Main()
	if _, ok := os.LookupEnv(workerVariable); !ok {
		return
	}
	syscall.CloseOnExec(lockDescriptor)
	if err := worker.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
	}
	os.Exit(1)
}

// instance runs one worker process after the other and serves them the Lambda
// runtime API, from which they get their work.
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
type instance struct {
	stack   *Stack
	number  int
	address string
	idle    chan struct{}    // the process has asked for its next invocation
	next    chan *invocation // and gets it here
	ready   bool             // the process has asked for work since it was started
	mu      sync.Mutex
	current *invocation
}

// invocation is one message being worked on.
type invocation struct {
	id       string
	payload  []byte
	deadline time.Time
	answer   chan answer
}

type answer struct {
	failed bool // of the function itself
	body   []byte
}

func newWorker(s *Stack, number int) (*instance, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &instance{stack: s, number: number, address: l.Addr().String(), idle: make(chan struct{}),
		next: make(chan *invocation)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", w.serveNext)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response",
		func(rw http.ResponseWriter, r *http.Request) { w.serveAnswer(rw, r, false) })
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error",
		func(rw http.ResponseWriter, r *http.Request) { w.serveAnswer(rw, r, true) })
	mux.HandleFunc("POST /2018-06-01/runtime/init/error",
		func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusAccepted) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	s.workers.Go(func() { _ = server.Serve(l) })
	context.AfterFunc(s.context, func() { _ = server.Close() })
	return w, nil
}

func (w *instance) serveNext(rw http.ResponseWriter, r *http.Request) {
	select {
	case w.idle <- struct{}{}:
	case <-r.Context().Done():
		return
	}
	select {
	case inv := <-w.next:
		h := rw.Header()
		h.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(w.deadline(inv).UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", w.stack.outputs.FunctionARN)
		h.Set("Content-Type", "application/json")
		_, _ = rw.Write(inv.payload)
	case <-r.Context().Done():
	}
}

// deadline returns the deadline of an invocation by the worker's clock.
func (w *instance) deadline(inv *invocation) time.Time {
	if behind := w.stack.config.behind; behind != nil {
		return inv.deadline.Add(behind(w.number))
	}
	return inv.deadline
}

func (w *instance) serveAnswer(rw http.ResponseWriter, r *http.Request, failed bool) {
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, 6<<20)) // Lambda's own limit
	w.mu.Lock()
	inv := w.current
	w.mu.Unlock()
	if err != nil || inv == nil || inv.id != r.PathValue("id") {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	select {
	case inv.answer <- answer{failed, body}:
	default:
	}
	rw.WriteHeader(http.StatusAccepted)
}

// process is a running worker process, or the client of a container of one.
type process struct {
	cmd       *exec.Cmd
	container string // its name, or ""
	began     time.Time
	asked     bool // it has asked for work
	alive     io.Closer
	done      chan struct{}
}

// end ends a process. Docker has dockerLimit to answer "docker kill", and as long
// to end the container. Then its client is killed; the container ends by itself,
// because its standard input is closed.
func (w *instance) end(p *process) {
	_ = p.alive.Close() // this also ends a container that is still being created
	select {
	case <-p.done:
		return
	default:
	}
	if p.container == "" {
		_ = p.cmd.Process.Kill()
		<-p.done
		return
	}
	limit := cmp.Or(w.stack.config.dockerLimit, dockerLimit)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_, err := docker(ctx, "kill", p.container)
	select {
	case <-p.done:
		return
	case <-time.After(limit):
	}
	w.stack.say("the container %s did not end in %s (docker kill: %v); its client is killed", p.container, 2*limit, err)
	_ = p.cmd.Process.Kill()
	<-p.done
}

// dockerLimit is how long to wait for Docker. A kill takes a tenth of a second: a
// daemon that takes 10 s hangs.
const dockerLimit = 10 * time.Second

func (w *instance) start() (*process, error) {
	dir := w.stack.config.Dir
	log, err := openLog(dir, fmt.Sprintf("worker-%d", w.number))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	o := w.stack.outputs
	if front := w.stack.config.front; front != nil {
		o = front(o)
	}
	env := []string{
		stack.EnvAlive + "=1",
		"GOMAXPROCS=" + strconv.Itoa(max(1, runtime.NumCPU()/w.stack.config.Workers)), // the workers share the CPUs
		stack.EnvBucket + "=" + o.BucketName, stack.EnvQueueURL + "=" + o.QueueURL, stack.EnvDLQURL + "=" + o.DLQURL,
		stack.EnvRegion + "=" + o.Region,
		stack.EnvRequiredFiles + "=" + strings.Join(w.stack.config.Required, ","),
		"AWS_ENDPOINT_URL_SQS=" + o.SQSEndpoint, "AWS_ENDPOINT_URL_S3=" + o.S3Endpoint,
		"AWS_ACCESS_KEY_ID=" + o.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + o.SecretAccessKey,
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_LAMBDA_RUNTIME_API=" + w.address, stack.EnvFunction + "=" + o.FunctionName,
		stack.EnvRetryDelays + "=" + cmp.Or(w.stack.config.retryDelays, os.Getenv(stack.EnvRetryDelays)),
	}
	p := &process{done: make(chan struct{})}
	var cmd *exec.Cmd
	if image := w.stack.config.Image; image != nil {
		p.container = "vm-dataset-worker-" + sqsserver.NewID()
		cmd = image.command(p.container, w.stack.config, env)
	} else if cmd, err = w.command(env); err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{w.stack.lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the stack to handle
	alive, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.cmd, p.alive, p.began = cmd, alive, time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// command is this program itself, as a worker.
func (w *instance) command(env []string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	scratch := filepath.Join(w.stack.config.Dir, "scratch", strconv.Itoa(w.number))
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(env, workerVariable+"=1", stack.EnvGenerators+"="+generatorsDir(w.stack.config.Dir),
		// The workers share the memory as they do the CPUs.
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE="+strconv.FormatInt(worker.MachineMemory()/int64(w.stack.config.Workers)>>20, 10),
		"PATH="+os.Getenv("PATH"), "HOME="+scratch, "TMPDIR="+scratch)
	return cmd, nil
}

// maxFailedStarts is how often in a row a worker may exit before it asks for work;
// then the stack fails.
const maxFailedStarts = 5

// loop keeps a worker process running and gives it one message at a time, until ctx ends.
func (w *instance) loop(ctx context.Context) {
	for failedStarts := 0; ctx.Err() == nil; failedStarts++ {
		if failedStarts == maxFailedStarts {
			w.stack.fail(fmt.Errorf("worker %d ends as soon as it is started: see %s", w.number,
				filepath.Join(w.stack.config.Dir, "logs", fmt.Sprintf("worker-%d.log", w.number))))
			return
		}
		p, err := w.start()
		if err != nil {
			w.stack.fail(fmt.Errorf("start worker %d: %w", w.number, err))
			return
		}
		for w.serveOne(ctx, p) {
		}
		if p.asked { // it can start, whatever ended it later
			failedStarts = -1
		}
		w.end(p)
		w.setReady(false)
	}
}

func (w *instance) setReady(ready bool) {
	if w.ready == ready {
		return
	}
	if w.ready = ready; ready {
		w.stack.ready.Add(1)
	} else {
		w.stack.ready.Add(-1)
	}
}

// serveOne waits until the process is idle and gives it a message. It returns when
// the message is done, and reports whether the process can take another one.
func (w *instance) serveOne(ctx context.Context, p *process) bool {
	select {
	case <-w.idle:
		if !p.asked && p.container != "" {
			w.stack.say("worker %d asked for work %.1f s after the start of its container", w.number,
				time.Since(p.began).Seconds())
		}
		p.asked = true
		w.setReady(true)
	case <-p.done:
		return false
	case <-ctx.Done():
		return false
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-waiting.Done():
		}
	}()
	d, err := w.stack.mapping.receive(waiting, w.stack.queue)
	if err != nil {
		if ctx.Err() == nil && waiting.Err() == nil { // a full disk: it may have room later
			w.stack.say("receive a task: %v", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
		return false
	}
	inv := &invocation{id: sqsserver.NewID(), deadline: time.Now().Add(w.stack.config.Timeout),
		answer: make(chan answer, 1)}
	inv.payload, err = json.Marshal(events.SQSEvent{Records: []events.SQSMessage{record(d, w.stack.outputs)}})
	if err != nil {
		w.stack.fail(err)
		return false
	}
	w.mu.Lock()
	w.current = inv
	w.mu.Unlock()
	select {
	case w.next <- inv:
	case <-p.done:
		w.giveBack(d, inv, false)
		return false
	case <-ctx.Done():
		w.giveBack(d, inv, false)
		return false
	}
	timeout := time.NewTimer(w.stack.config.Timeout)
	defer timeout.Stop()
	select {
	case a := <-inv.answer:
		w.acknowledge(d, a)
		return true
	case <-p.done:
		select {
		case a := <-inv.answer: // it answered before it ended
			w.acknowledge(d, a)
		default:
			w.stack.say("worker %d was killed: its task is delivered again", w.number)
			w.giveBack(d, inv, true)
		}
		return false
	case <-timeout.C:
		w.end(p)
		w.stack.say("worker %d was still at work after %s and was killed: its task is delivered again", w.number,
			w.stack.config.Timeout)
		w.giveBack(d, inv, true)
		return false
	case <-ctx.Done():
		w.end(p)
		w.giveBack(d, inv, false)
		return false
	}
}

// acknowledge treats a message as Lambda's event source mapping does: one that
// succeeded is deleted, one that failed is delivered again after its visibility
// timeout, which the worker may have changed.
func (w *instance) acknowledge(d *sqsserver.Delivery, a answer) {
	var response events.SQSEventResponse
	if a.failed || json.Unmarshal(a.body, &response) != nil {
		return
	}
	for _, f := range response.BatchItemFailures {
		if f.ItemIdentifier == d.MessageID || f.ItemIdentifier == "" {
			return
		}
	}
	if err := w.stack.queue.Delete(tasksQueue, d.ReceiptHandle); err != nil {
		w.stack.say("delete a finished task: %v (it is delivered again and found done)", err)
	}
}

// giveBack returns the message of a dead worker, and the cells it held, at once. The
// receive does not count if the stack itself stopped the worker.
func (w *instance) giveBack(d *sqsserver.Delivery, inv *invocation, counts bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.stack.releaseCells(ctx, d, inv.id); err != nil {
		w.stack.say("%v (the next start does it)", err)
	}
	if err := w.stack.queue.Return(tasksQueue, d.ReceiptHandle, counts); err != nil {
		w.stack.say("give a task back: %v (it comes back after its visibility timeout)", err)
	}
}

// record is a message as it stands in a Lambda event.
func record(d *sqsserver.Delivery, o stack.Outputs) events.SQSMessage {
	m := events.SQSMessage{
		MessageId: d.MessageID, ReceiptHandle: d.ReceiptHandle, Body: d.Body, Md5OfBody: d.MD5(), Attributes: d.Attributes,
		MessageAttributes: map[string]events.SQSMessageAttribute{}, EventSource: "aws:sqs", EventSourceARN: o.QueueARN,
		AWSRegion: o.Region,
	}
	for name, a := range d.MessageAttributes {
		m.MessageAttributes[name] = events.SQSMessageAttribute{StringValue: a.StringValue, BinaryValue: a.BinaryValue,
			DataType: a.DataType}
	}
	return m
}
