// Package local is the local stack: the queue, the bucket and the workers of
// the cloud on one machine. Queue and bucket are endpoints on loopback that any
// AWS SDK can use; workers are processes that ask a Lambda runtime API for their
// next invocation, so a worker cannot tell it from AWS.
//
// Everything is kept in one folder. A process of the stack may be killed at any
// moment: the next Up goes on where it was.
package local

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Names and numbers of the local stack. Visibility, timeout and receives are
// those of the cloud stack.
const (
	Bucket     = "vm-dataset"
	tasksQueue = "vm-dataset-tasks"
	dlqQueue   = "vm-dataset-dlq"
	accountID  = "000000000000"
	// region is none of AWS's: for those, the AWS CLI of version 1 sends SQS
	// requests to AWS whatever endpoint its environment names.
	region            = "local"
	accessKey         = "local"
	secretKey         = "local-placeholder-secret"
	DefaultVisibility = 960 * time.Second
	DefaultTimeout    = 900 * time.Second
	maxReceives       = 3
	retention         = 14 * 24 * time.Hour
)

// Config says how to run the local stack.
type Config struct {
	Dir        string           // where everything is kept
	Workers    int              // worker processes; 0 is one per CPU
	Visibility time.Duration    // of the task queue
	Timeout    time.Duration    // of one invocation
	Required   []string         // files that every sample must have beyond the generator's own
	Image      *Image           // whose workers are to run, in containers; nil for processes of this program
	Memory     int              // MB of such a container; 0 is DefaultMemory
	Tmp        int              // MB of its /tmp; 0 is DefaultTmp
	Say        func(msg string) // is told what a person may want to know; may be nil

	front  func(o stack.Outputs) stack.Outputs // tests put proxies in front of the endpoints that workers see
	behind func(worker int) time.Duration      // tests set a worker's clock back, as seen from here

	dockerLimit time.Duration // for tests; default dockerLimit
	retryDelays string        // for tests: stack.EnvRetryDelays; default this process's own
}

// Stack is a running local stack.
type Stack struct {
	config  Config
	outputs stack.Outputs
	lock    *os.File
	queue   *sqsserver.Server
	http    *http.Server
	s3      *s3server.Server
	store   *store.Store
	mapping *mapping
	ready   atomic.Int32 // worker processes that have asked for work
	failed  chan error
	context context.Context // of the workers
	stop    context.CancelFunc
	workers sync.WaitGroup
	down    sync.Once
}

// Folders and files below the stack's folder.
func objectsDir(dir string) string    { return filepath.Join(dir, "s3") }
func generatorsDir(dir string) string { return filepath.Join(dir, "generators") }
func outputsFile(dir string) string   { return filepath.Join(dir, "outputs.json") }

// SamplesDir is where the samples of a dataset in the local stack lie as plain files.
func SamplesDir(dir string, d task.Dataset) string {
	return filepath.Join(objectsDir(dir), Bucket, filepath.FromSlash(d.Prefix(task.DataKind)))
}

// Prepare finds the generators and makes the environments that those of these
// names need, or all.
func Prepare(ctx context.Context, dir, generators string, names []string, progress func(string)) (*generator.Index,
	error) {
	b := environment.Builder{Root: generators, Dir: generatorsDir(dir), Names: names, Progress: progress}
	return b.Build(ctx)
}

// Up starts the local stack. What was in flight when the last one ended, however
// it did, is given back to the queue at once.
func Up(ctx context.Context, c Config) (_ *Stack, err error) {
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return nil, err
	}
	if c.Workers == 0 {
		c.Workers = runtime.NumCPU()
	}
	c.Memory, c.Tmp = cmp.Or(c.Memory, DefaultMemory), cmp.Or(c.Tmp, DefaultTmp)
	if c.Timeout > c.Visibility {
		return nil, fmt.Errorf("the timeout of %s is longer than the visibility of %s: a task would be delivered again while it runs", c.Timeout, c.Visibility)
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := generator.Harden(); err != nil {
		return nil, err
	}
	s := &Stack{config: c, mapping: newMapping(), failed: make(chan error, 1)}
	s.context, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			_ = s.Down()
		}
	}()
	if s.lock, err = lockDir(ctx, c.Dir); err != nil {
		return nil, err
	}
	l, err := s.openQueue()
	if err != nil {
		return nil, err
	}
	s.http = &http.Server{Handler: s.lambdaAPI(s.queue), ReadHeaderTimeout: 10 * time.Second}
	if err := s.serveObjects(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	// Before anybody is served: what a client has just received must not be taken
	// for the last stack's.
	if err := s.recover(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	go func() { _ = s.http.Serve(l) }()
	if err := s.writeOutputs(); err != nil {
		return nil, err
	}
	for n := range c.Workers {
		w, err := newWorker(s, n)
		if err != nil {
			return nil, err
		}
		s.workers.Go(func() { w.loop(s.context) })
	}
	return s, nil
}

// lockDir makes sure that no other stack, and no process of one, uses the
// folder. Workers and gateway inherit the lock, so it is free only when the last
// of them is gone; those of a stack that was killed end within moments.
func lockDir(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	patience := time.Now().Add(10 * time.Second)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		pid := readPID(f)
		if pid > 0 && syscall.Kill(pid, 0) == nil || time.Now().After(patience) {
			f.Close()
			return nil, fmt.Errorf("a local stack is up in %s already (process %d)", dir, pid)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid()))); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

func readPID(f *os.File) int {
	text := make([]byte, 20)
	n, _ := f.ReadAt(text, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	return pid
}

// listen takes the port of the last time if it is free, so that what programs
// were told of the stack stays true.
func (s *Stack) listen(last string) (net.Listener, error) {
	if address, ok := strings.CutPrefix(last, "http://"); ok {
		if l, err := net.Listen("tcp", address); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// openQueue opens the queues, and the port where they are to be served.
func (s *Stack) openQueue() (_ net.Listener, err error) {
	before, _ := readOutputs(s.config.Dir)
	l, err := s.listen(before.SQSEndpoint)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	url := "http://" + l.Addr().String()
	s.queue, err = sqsserver.Open(filepath.Join(s.config.Dir, "queue"), sqsserver.Options{BaseURL: url, Region: region,
		AccountID: accountID})
	if err != nil {
		return nil, err
	}
	dlq, err := s.queue.CreateQueue(sqsserver.Queue{Name: dlqQueue, Retention: retention})
	if err != nil {
		return nil, err
	}
	tasks, err := s.queue.CreateQueue(sqsserver.Queue{Name: tasksQueue, Visibility: s.config.Visibility,
		Retention: retention, DeadLetter: dlqQueue, MaxReceives: maxReceives})
	if err != nil {
		return nil, err
	}
	arn := "arn:aws:sqs:" + region + ":" + accountID + ":"
	s.outputs = stack.Outputs{
		QueueURL: tasks, DLQURL: dlq, QueueARN: arn + tasksQueue, DLQARN: arn + dlqQueue, BucketName: Bucket,
		FunctionName: functionName, FunctionARN: "arn:aws:lambda:" + region + ":" + accountID + ":function:" + functionName,
		EventSourceMappingID: mappingID, Region: region, AccountID: accountID, Architecture: runtime.GOARCH,
		DataPrefix: task.DefaultDataset.Prefix(task.DataKind),
		Endpoints: stack.Endpoints{SQSEndpoint: url, LambdaEndpoint: url, S3Endpoint: before.S3Endpoint,
			AccessKeyID: accessKey, SecretAccessKey: secretKey, Workers: s.config.Workers},
	}
	if image := s.config.Image; image != nil {
		s.outputs.ImageURI, s.outputs.MemoryMB, s.outputs.Generators = image.URI, s.config.Memory, map[string]string{}
		for _, g := range image.Generators {
			s.outputs.Generators[g.Name] = g.Commit
		}
	}
	return l, nil
}

func (s *Stack) serveObjects(ctx context.Context) error {
	log, err := openLog(s.config.Dir, "s3")
	if err != nil {
		return err
	}
	start := func(address string) (*s3server.Server, error) {
		return s3server.Start(ctx, s3server.Config{
			Dir: objectsDir(s.config.Dir), Meta: filepath.Join(s.config.Dir, "object-metadata"), Address: address,
			Bucket: Bucket,
			Region: region, AccessKey: accessKey, SecretKey: secretKey, Inherit: s.lock,
		}, log)
	}
	last, _ := strings.CutPrefix(s.outputs.S3Endpoint, "http://")
	if last != "" {
		s.s3, err = start(last)
	}
	if last == "" || err != nil {
		for range 5 { // a port that is free when it is looked for may be taken when the gateway wants it
			if s.s3, err = start("127.0.0.1:0"); err == nil || ctx.Err() != nil {
				break
			}
		}
		if err != nil {
			return err
		}
	}
	s.outputs.S3Endpoint = s.s3.URL()
	s.store = store.New(s3.NewFromConfig(AWSConfig(s.outputs), store.ClientOptions), Bucket)
	go func() {
		<-s.s3.Done()
		s.fail(s.s3.Err())
	}()
	return nil
}

// AWSConfig is the configuration of a client of the local stack: its endpoints
// and placeholder credentials, never the user's.
func AWSConfig(o stack.Outputs) aws.Config {
	return aws.Config{
		Region: o.Region, Credentials: credentials.NewStaticCredentialsProvider(o.AccessKeyID, o.SecretAccessKey, ""),
		ConfigSources: []any{endpoints{o}}, HTTPClient: store.HTTPClient(nil), Retryer: store.LimitedRetries,
	}
}

// endpoints tells the SDK's clients where each service is.
type endpoints struct{ stack.Outputs }

// GetServiceBaseEndpoint implements what the SDK asks of its shared configuration.
func (e endpoints) GetServiceBaseEndpoint(_ context.Context, id string) (string, bool, error) {
	switch id {
	case "SQS":
		return e.SQSEndpoint, true, nil
	case "Lambda":
		return e.LambdaEndpoint, true, nil
	case "S3":
		return e.S3Endpoint, true, nil
	}
	return "", false, nil
}

// GetIgnoreConfiguredEndpoints implements what the SDK asks of its shared configuration.
func (endpoints) GetIgnoreConfiguredEndpoints(context.Context) (bool, bool, error) {
	return false, true, nil
}

// recover gives back what the last stack had in flight. None of its workers is
// alive, for we hold the lock; so nobody holds a cell.
func (s *Stack) recover(ctx context.Context) error {
	for _, name := range []string{tasksQueue, dlqQueue} {
		for _, d := range s.queue.InFlight(name) {
			if name == tasksQueue {
				if err := s.releaseCells(ctx, &d, ""); err != nil {
					return err
				}
			}
			if err := s.queue.Return(name, d.ReceiptHandle, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// releaseCells gives up the cells that the worker of a delivery held.
func (s *Stack) releaseCells(ctx context.Context, d *sqsserver.Delivery, requestID string) error {
	t, err := task.Parse([]byte(d.Body), d.MessageID)
	if err != nil {
		return nil // no task, no cells
	}
	st := s.store.In(t.Dataset)
	if t.ChunkSize == 0 {
		if t.ChunkSize, err = st.ChunkSize(ctx, t.Generator); err != nil {
			return err
		}
	}
	for _, c := range t.Chunks() {
		if err := st.EndHold(ctx, t.Generator, c.Cell, requestID); err != nil {
			return fmt.Errorf("release samples %s of %s: %w", c.Keep, t.Generator, err)
		}
	}
	return nil
}

func (s *Stack) writeOutputs() error {
	text, err := json.MarshalIndent(s.outputs, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(outputsFile(s.config.Dir), append(text, '\n'))
}

func readOutputs(dir string) (stack.Outputs, error) {
	text, err := os.ReadFile(outputsFile(dir))
	if err != nil {
		return stack.Outputs{}, err
	}
	return stack.Parse(text)
}

// ErrDown says that there is no local stack running.
var ErrDown = errors.New("the local stack is not up")

// Outputs returns the stack outputs of the local stack that runs in a folder, or
// ErrDown.
func Outputs(dir string) (stack.Outputs, error) {
	if _, err := PID(dir); err != nil {
		return stack.Outputs{}, err
	}
	o, err := readOutputs(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return o, fmt.Errorf("%w in %s", ErrDown, dir)
	}
	return o, err
}

// PID returns the process of the stack that runs in a folder, or ErrDown.
func PID(dir string) (int, error) {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return 0, fmt.Errorf("%w in %s", ErrDown, dir)
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return 0, fmt.Errorf("%w in %s", ErrDown, dir)
	}
	return readPID(f), nil
}

// Outputs returns the stack outputs.
func (s *Stack) Outputs() stack.Outputs { return s.outputs }

// Idle reports whether the task queue is empty and no worker is at work.
func (s *Stack) Idle() bool {
	visible, inFlight, delayed := s.queue.Counts(tasksQueue)
	return visible+inFlight+delayed == 0
}

// Settle waits until the stack is idle, for some seconds at most. What a task
// asked for may be committed, and the task not acknowledged yet: the next start
// would find it in the queue.
func (s *Stack) Settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); !s.Idle(); {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Stack) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

func (s *Stack) say(format string, args ...any) {
	if s.config.Say != nil {
		s.config.Say(fmt.Sprintf(format, args...))
	}
}

// Wait returns when ctx ends, with nil, or when a part of the stack fails for
// good, with why.
func (s *Stack) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// Failed delivers the error of a part of the stack that failed for good.
func (s *Stack) Failed() <-chan error { return s.failed }

// Down stops the stack. Tasks under way are stopped and given back to the queue.
func (s *Stack) Down() error {
	var err error
	s.down.Do(func() {
		s.stop()
		s.workers.Wait()
		if s.http != nil {
			err = errors.Join(err, s.http.Close())
		}
		if s.s3 != nil {
			err = errors.Join(err, s.s3.Close())
		}
		if s.queue != nil {
			err = errors.Join(err, s.queue.Close())
		}
		if s.lock != nil {
			err = errors.Join(err, s.lock.Close())
		}
	})
	return err
}

// openLog opens a log file below the stack's folder for appending. One that has
// grown past 16 MiB is kept as .old.
func openLog(dir, name string) (*os.File, error) {
	path := filepath.Join(dir, "logs", name+".log")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err == nil && info.Size() > 16<<20 {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}
