// Package local is the local stack: the queue, the bucket and the workers of the cloud on one machine. Queue and bucket
// are endpoints on loopback that any AWS SDK can use; workers are processes that ask a Lambda runtime API for their
// next invocation, so a worker cannot tell it from AWS.
//
// Everything is kept in one folder. A process of the stack may be killed at any
// moment: the next Up goes on where it was.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/workers"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Names and numbers of the local stack. Visibility, timeout and receives are those of the cloud stack.
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

// Config configures the local stack.
type Config struct {
	Dir        string           // holds everything
	Workers    int              // worker processes; 0 is one per CPU
	Visibility time.Duration    // of the task queue
	Timeout    time.Duration    // of one invocation
	Required   []string         // files that every sample must have beyond the generator's own
	Image      *Image           // whose workers are to run, in containers; nil for processes of this program
	Memory     int              // MB of such a container; 0 is DefaultMemory
	Tmp        int              // MB of its /tmp; 0 is DefaultTmp
	Say        func(msg string) // reports progress to a person; may be nil

	front  func(o stack.Outputs) stack.Outputs // for tests: the endpoints that workers see, behind proxies
	behind func(worker int) time.Duration      // for tests: how far a worker's clock is behind

	dockerLimit time.Duration // for tests; default dockerLimit
	retryDelays string        // for tests: stack.EnvRetryDelays; default this process's own
}

// Stack is a running local stack.
type Stack struct {
	config  Config
	outputs stack.Outputs
	lock    *os.File
	queue   *sqsserver.Server
	s3      *s3server.Server
	store   *store.Store
	mapping *mapping
	pool    *workers.Pool
	failed  chan error
	context context.Context // of the workers
	stop    context.CancelFunc
	workers sync.WaitGroup
	ends    []func() error // of its parts, in the order in which they were opened
	down    sync.Once
}

// Prepare finds the generators below a folder and makes the environments of those named, or of all if names is nil.
func Prepare(ctx context.Context, dir, generators string, names []string, progress func(string)) (*generator.Index,
	error) {
	b := environment.Builder{Root: generators, Dir: generatorsDir(dir), Names: names, Progress: progress}
	return b.Build(ctx)
}

// Up starts the local stack. Messages that were in flight when the last one ended,
// however it ended, are visible again at once.
func Up(ctx context.Context, c Config) (_ *Stack, err error) {
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return nil, err
	}
	if c.Workers == 0 {
		c.Workers = runtime.NumCPU()
	}
	c.Memory, c.Tmp = cmp.Or(c.Memory, DefaultMemory), cmp.Or(c.Tmp, DefaultTmp)
	if c.Timeout > c.Visibility {
		return nil, fmt.Errorf("the timeout of %s is longer than the visibility of %s: a task would be delivered again "+
			"while it runs", c.Timeout, c.Visibility)
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := sandbox.Harden(); err != nil {
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
	s.ends = append(s.ends, s.lock.Close)
	l, err := s.openQueue()
	if err != nil {
		return nil, err
	}
	s.pool = workers.New(workers.Config{Workers: c.Workers, Timeout: c.Timeout, FunctionARN: s.outputs.FunctionARN,
		Queue: taskQueue{s}, Start: s.startWorker, Say: s.say, Fail: s.fail, Behind: c.behind,
		Logs: func(n int) string { return filepath.Join(c.Dir, "logs", workerName(n)+".log") }})
	web := &http.Server{Handler: s.lambdaAPI(s.queue), ReadHeaderTimeout: 10 * time.Second}
	if err := s.serveObjects(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	// Before the first client is served: what it receives must not be returned as if the last stack had received it.
	if err := s.reopen(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s.ends = append(s.ends, web.Close)
	go func() { _ = web.Serve(l) }()
	if err := s.writeOutputs(); err != nil {
		return nil, err
	}
	s.workers.Go(func() {
		if err := s.pool.Run(s.context, s.context); err != nil {
			s.fail(err)
		}
	})
	return s, nil
}

// reopen returns the messages that the last stack's own workers had, and their cells, at once: this stack has the lock,
// so none of them is alive. What other programs have received comes back by its visibility.
func (s *Stack) reopen(ctx context.Context) error {
	for _, d := range s.queue.InFlight(tasksQueue) {
		if !d.Own {
			continue
		}
		if err := s.releaseCells(ctx, d.Body, d.MessageId, workers.RequestID(d.ReceiptHandle)); err != nil {
			return err
		}
		if err := s.queue.Return(tasksQueue, d.ReceiptHandle, false); err != nil {
			return err
		}
	}
	return nil
}

// releaseCells ends the holds that a request has on the cells of a task.
func (s *Stack) releaseCells(ctx context.Context, body, messageID, requestID string) error {
	t, err := task.Parse([]byte(body), messageID)
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

// Outputs returns the outputs of the stack, as Outputs(dir) reads them.
func (s *Stack) Outputs() stack.Outputs { return s.outputs }

// Idle reports whether the task queue is empty and no worker is at work.
func (s *Stack) Idle() bool {
	visible, inFlight, delayed := s.queue.Counts(tasksQueue)
	return visible+inFlight+delayed == 0
}

// Settle waits until the stack is idle, for 10 s at most. A task whose samples are committed may not be acknowledged
// yet, and would be delivered again after the next start.
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

// Wait returns nil when ctx ends, or the error of a part of the stack that failed for good.
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
		for _, end := range slices.Backward(s.ends) {
			err = errors.Join(err, end())
		}
	})
	return err
}

// listen takes the last stack's port if it is free, so that clients' URLs stay valid.
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
	s.ends = append(s.ends, s.queue.Close)
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
		DataPrefix: task.DefaultDataset.Prefix(task.DataKind), RequiredFiles: s.config.Required,
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
			Bucket: Bucket, Region: region, AccessKey: accessKey, SecretKey: secretKey, Inherit: s.lock,
		}, log)
	}
	const anyPort = "127.0.0.1:0"
	last, _ := strings.CutPrefix(s.outputs.S3Endpoint, "http://")
	if s.s3, err = start(cmp.Or(last, anyPort)); err != nil && last != "" {
		s.s3, err = start(anyPort)
	}
	if err != nil {
		return err
	}
	s.ends = append(s.ends, s.s3.Close)
	s.outputs.S3Endpoint = s.s3.URL()
	s.store = BucketStore(s.outputs)
	go func() {
		<-s.s3.Done()
		s.fail(s.s3.Err())
	}()
	return nil
}

// AWSConfig returns the configuration for clients of the local queue and function, which
// are one server: its endpoint and placeholder credentials, never the user's.
func AWSConfig(o stack.Outputs) aws.Config {
	return aws.Config{
		Region: o.Region, Credentials: credentials.NewStaticCredentialsProvider(o.AccessKeyID, o.SecretAccessKey, ""),
		BaseEndpoint: &o.SQSEndpoint, HTTPClient: store.HTTPClient(nil), Retryer: store.LimitedRetries,
	}
}

// BucketStore returns the store of the default dataset in the local bucket.
func BucketStore(o stack.Outputs) *store.Store {
	c := AWSConfig(o)
	c.BaseEndpoint = &o.S3Endpoint
	return store.New(s3.NewFromConfig(c, store.ClientOptions), o.BucketName)
}
