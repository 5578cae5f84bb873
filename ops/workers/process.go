package workers

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
)

// Variable makes a process a worker.
const Variable = "VM_DATASET_WORKER"

// Main becomes the worker that this process was started as, and does not return then. Every program that runs a pool
// must call it first.
func Main() {
	if _, ok := os.LookupEnv(Variable); !ok {
		return
	}
	const inherited = 3 // the local stack's lock
	syscall.CloseOnExec(inherited)
	if err := worker.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
	}
	os.Exit(1)
}

// Command returns this program itself as one of so many workers, which share the CPUs and the memory of the machine.
func Command(workers int, env []string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(env, Variable+"=1", CPUShare(workers),
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE="+strconv.FormatInt(worker.MachineMemory()/int64(workers)>>20, 10))
	return cmd, nil
}

// CPUShare is the variable that gives one of so many workers its share of the CPUs.
func CPUShare(workers int) string {
	return "GOMAXPROCS=" + strconv.Itoa(max(1, runtime.GOMAXPROCS(0)/workers))
}

// Environ returns the variables of a worker that the stack decides.
func Environ(o *stack.Outputs) []string {
	return []string{
		stack.EnvAlive + "=1",
		stack.EnvBucket + "=" + o.BucketName, stack.EnvQueueURL + "=" + o.QueueURL, stack.EnvDLQURL + "=" + o.DLQURL,
		stack.EnvRegion + "=" + o.Region, stack.EnvFunction + "=" + o.FunctionName,
		stack.EnvRequiredFiles + "=" + strings.Join(o.RequiredFiles, ","),
	}
}

// Local returns the variables that lead a worker to the local stack's endpoints, and keep
// it from the user's own settings.
func Local(o *stack.Outputs) []string {
	return []string{
		"AWS_ENDPOINT_URL_SQS=" + o.SQSEndpoint, "AWS_ENDPOINT_URL_S3=" + o.S3Endpoint,
		"AWS_ACCESS_KEY_ID=" + o.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + o.SecretAccessKey,
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
	}
}

// Process is a worker process, or the client of a container of one.
type Process struct {
	Command *exec.Cmd
	Log     *os.File                    // that its output goes to, closed once it has it; may be nil
	Asked   func(after time.Duration)   // called when it asks for work the first time; may be nil
	End     func(ended <-chan struct{}) // tries to end it before it is killed; may be nil

	began time.Time
	asked bool           // it has asked for work
	alive io.WriteCloser // its standard input
	done  chan struct{}
}

func (p *Process) start() (err error) {
	if p.Log != nil {
		defer p.Log.Close()
		p.Command.Stdout, p.Command.Stderr = p.Log, p.Log
	}
	p.Command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this process to handle
	if p.alive, err = p.Command.StdinPipe(); err != nil {
		return err
	}
	p.began, p.done = time.Now(), make(chan struct{})
	if err := p.Command.Start(); err != nil {
		return err
	}
	go func() {
		_ = p.Command.Wait()
		close(p.done)
	}()
	return nil
}

// stop asks the process to hand back what it works on: see stack.EnvAlive.
func (p *Process) stop() { _, _ = p.alive.Write([]byte("stop\n")) }

// end ends the process and returns when it is gone.
func (p *Process) end() {
	_ = p.alive.Close() // this also ends a container that is still being created
	select {
	case <-p.done:
		return
	default:
	}
	if p.End != nil {
		p.End(p.done)
	}
	_ = p.Command.Process.Kill()
	<-p.done
}

// instance runs one worker process after the other and serves them the Lambda
// runtime API, from which they get their work.
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
type instance struct {
	pool    *Pool
	number  int
	address string           // of the runtime API, with a secret
	idle    chan struct{}    // the process has asked for its next invocation
	next    chan *invocation // and gets it here
	mu      sync.Mutex
	current *invocation
}

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

// newInstance serves a runtime API until ctx ends.
func newInstance(ctx context.Context, group *sync.WaitGroup, p *Pool, number int) (*instance, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	secret := "/" + rand.Text() // else every user of the machine could take tasks, and answer that they are done
	w := &instance{pool: p, number: number, address: l.Addr().String() + secret, idle: make(chan struct{}),
		next: make(chan *invocation)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+secret+"/2018-06-01/runtime/invocation/next", w.serveNext)
	mux.HandleFunc("POST "+secret+"/2018-06-01/runtime/invocation/{id}/response",
		func(rw http.ResponseWriter, r *http.Request) { w.serveAnswer(rw, r, false) })
	mux.HandleFunc("POST "+secret+"/2018-06-01/runtime/invocation/{id}/error",
		func(rw http.ResponseWriter, r *http.Request) { w.serveAnswer(rw, r, true) })
	mux.HandleFunc("POST "+secret+"/2018-06-01/runtime/init/error",
		func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusAccepted) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	group.Go(func() { _ = server.Serve(l) })
	context.AfterFunc(ctx, func() { _ = server.Close() })
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
		deadline := inv.deadline
		if behind := w.pool.config.Behind; behind != nil {
			deadline = deadline.Add(behind(w.number)) // by the worker's clock
		}
		h := rw.Header()
		h.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(deadline.UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", w.pool.config.FunctionARN)
		h.Set("Content-Type", "application/json")
		_, _ = rw.Write(inv.payload)
	case <-r.Context().Done():
	}
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

// Lines passes the output of several processes on in whole lines.
type Lines struct {
	mu sync.Mutex
	To io.Writer
}

// Of returns the writer of one process.
func (l *Lines) Of() io.Writer { return &lineWriter{to: l} }

type lineWriter struct {
	to   *Lines
	rest []byte // of a line that has not ended
}

func (w *lineWriter) Write(p []byte) (int, error) {
	end := bytes.LastIndexByte(p, '\n') + 1
	if end == 0 {
		w.rest = append(w.rest, p...)
		return len(p), nil
	}
	w.to.mu.Lock()
	defer w.to.mu.Unlock()
	_, err := w.to.To.Write(append(w.rest, p[:end]...))
	w.rest = append([]byte(nil), p[end:]...)
	return len(p), err
}
