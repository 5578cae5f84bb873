package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Times of the model. A request that nobody waits for any more may still be
// executed for as long as lateness.
const (
	modelTimeout  = 60 * time.Second
	modelHidden   = 70 * time.Second
	modelLateness = 5 * time.Second
	modelComplete = 10 * time.Minute // of a shard: S3 may take minutes to complete an upload in parts
)

// world is a queue, a bucket and some workers in a bubble of testing/synctest.
// Each request of a worker waits until the test executes it, so the test decides
// about every interleaving. Time moves only when the test says so.
type world struct {
	bucket *bucket
	queue  *sqsserver.Server
	config Config
	mu     sync.Mutex
	calls  []*call
	alive  []*player
	serial int
	nonce  int
	told   []string
	strays map[string]bool    // keys that were written when nobody waited for them any more
	broken error              // the invariant that was seen broken first
	faults func(c *call) fate // of calls while it is calm
	kept   int                // how many deletions of messages are still to be lost
}

// player is one worker with one message.
type player struct {
	id       int
	handler  *Handler
	message  *sqsserver.Delivery
	deadline time.Time
	cancel   context.CancelFunc
	dead     bool
	done     chan struct{}
	failed   bool // the message is not done with
}

// call is a request, or a run of the generator, that waits to be executed.
type call struct {
	by      *player
	name    string
	run     func() *http.Response
	answer  chan *http.Response // nil is a connection that broke
	changes bool                // it may change the bucket or the queue
	until   time.Time           // when it is lost for good, if nobody waits for the answer
}

// lost is when a call that nobody waits for any more is lost for good.
func (c *call) lost() time.Time {
	if strings.Contains(c.name, ".tar.gz") && strings.HasPrefix(c.name, http.MethodPut) {
		return time.Now().Add(modelComplete)
	}
	return time.Now().Add(modelLateness)
}

// modelIndex writes down the generator of a world.
func modelIndex(t interface{ Fatal(...any) }, dir string) {
	index, err := json.Marshal(generator.Index{Generators: []generator.Generator{{
		Name: "model", Dir: dir, Entry: "generate.py", Python: "/usr/bin/python3", Flags: generator.Flags{Output: "--output",
			Seed: true}, Traits: generator.Traits{Videoless: true},
	}}})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, generator.IndexFile), index, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(dir string, pageSize int, ahead time.Duration) (*world, error) {
	w := &world{faults: func(*call) fate { return executed }, strays: map[string]bool{},
		bucket: &bucket{objects: map[string][]byte{}, parsed: map[string]parsed{}, pageSize: pageSize, ahead: ahead}}
	var err error
	if w.queue, err = sqsserver.Open(filepath.Join(dir, "queue"),
		sqsserver.Options{BaseURL: "http://127.0.0.1"}); err != nil {
		return nil, err
	}
	// two chunks at a time, on every machine
	w.config = Config{Bucket: "bucket", Generators: dir, Region: "us-east-2", CPUs: 2, Folder: dir}
	if w.config.DLQURL, err = w.queue.CreateQueue(sqsserver.Queue{Name: "dead"}); err != nil {
		return nil, err
	}
	w.config.QueueURL, err = w.queue.CreateQueue(sqsserver.Queue{Name: "tasks", Visibility: modelHidden,
		DeadLetter: "dead", MaxReceives: 3})
	return w, err
}

// close ends what is left of a world, and tells what happened if the test failed.
func (w *world) stop(t interface {
	Failed() bool
	Logf(string, ...any)
}) {
	for len(w.alive) > 0 {
		w.kill(w.alive[0])
	}
	_ = w.queue.Close()
	if t.Failed() {
		t.Logf("%s", strings.Join(w.told, "\n"))
	}
}

func (w *world) log(format string, args ...any) {
	w.told = append(w.told, fmt.Sprintf("%s ", time.Now().Format("04:05.000"))+fmt.Sprintf(format, args...))
}

// ask makes a call and waits for its answer.
func (w *world) ask(ctx context.Context, p *player, name string, changes bool,
	run func() *http.Response) (*http.Response, error) {
	w.mu.Lock()
	if p.dead {
		w.mu.Unlock()
		return nil, errDead
	}
	c := &call{by: p, name: name, run: run, changes: changes, answer: make(chan *http.Response, 1)}
	w.calls = append(w.calls, c)
	w.mu.Unlock()
	select {
	case answer := <-c.answer:
		w.mu.Lock()
		defer w.mu.Unlock()
		switch {
		case p.dead:
			return nil, errDead
		case answer == nil:
			return nil, errors.New("connection reset by peer")
		}
		return answer, nil
	case <-ctx.Done():
		w.mu.Lock()
		c.until = c.lost()
		w.mu.Unlock()
		return nil, ctx.Err()
	}
}

// errDead is what is left of a worker that was killed gets to hear.
var errDead = errors.New("this worker is dead")

// client sends the requests of a player.
type client struct {
	world  *world
	player *player
	answer func(r *http.Request, body []byte) *http.Response
}

func (c client) Do(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	name := r.Method + " " + r.URL.RequestURI()
	if _, operation, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "."); ok {
		name = operation
	}
	return c.world.ask(r.Context(), c.player, name, r.Method != http.MethodGet,
		func() *http.Response { return c.answer(r, body) })
}

// retries are few and at fixed intervals: what is random would not repeat.
func retries(o *retry.StandardOptions) {
	o.MaxAttempts = 3
	o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 100 * time.Millisecond, nil })
	o.Retryables = []retry.IsErrorRetryable{retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
		return aws.BoolTernary(!errors.Is(err, errDead) && strings.Contains(err.Error(), "connection reset"))
	})}
}

// play gives a new worker the next message.
func (w *world) play(ctx context.Context, timeout time.Duration) error {
	brief, stop := context.WithTimeout(ctx, time.Millisecond) // the queue may find that it goes to the DLQ instead
	defer stop()
	message, err := w.queue.Receive(brief, "tasks")
	if message == nil || err != nil {
		return nil //nolint:nilerr // it is the end of the wait
	}
	w.serial++
	p := &player{id: w.serial, message: message, deadline: time.Now().Add(timeout), done: make(chan struct{})}
	creds := credentials.NewStaticCredentialsProvider("a", "b", "")
	objects := s3.New(s3.Options{BaseEndpoint: aws.String("http://bucket"), Region: "us-east-2", Credentials: creds,
		HTTPClient: client{w, p, w.bucket.do}}, store.ClientOptions,
		func(o *s3.Options) { o.Retryer = retry.NewStandard(retries) })
	queues := sqs.New(sqs.Options{BaseEndpoint: aws.String("http://127.0.0.1"), Region: "us-east-2", Credentials: creds,
		HTTPClient: client{w, p, w.serveQueue}, Retryer: retry.NewStandard(retries)})
	if p.handler, err = New(w.config, store.New(objects, "bucket"), queues, io.Discard); err != nil {
		return err
	}
	p.handler.generate = func(ctx context.Context, r generator.Request) (generator.Result,
		error) {
		return w.generate(ctx, p, r)
	}
	payload, err := json.Marshal(events.SQSEvent{Records: []events.SQSMessage{{
		MessageId: message.MessageId, ReceiptHandle: message.ReceiptHandle, Body: message.Body,
		Attributes: message.Attributes, MessageAttributes: attributes(message),
	}}})
	if err != nil {
		return err
	}
	running, cancel := context.WithDeadline(lambdacontext.NewContext(ctx,
		&lambdacontext.LambdaContext{AwsRequestID: fmt.Sprintf("request-%d", p.id)}), p.deadline)
	p.cancel = cancel
	w.alive = append(w.alive, p)
	w.log("worker %d gets %s (delivery %d)", p.id, message.Body, message.Receives)
	go func() {
		defer close(p.done)
		answer, err := p.handler.Handle(running, payload)
		response, ok := answer.(events.SQSEventResponse)
		p.failed = err != nil || !ok || len(response.BatchItemFailures) > 0
		_ = p.handler.Close()
	}()
	return nil
}

func attributes(d *sqsserver.Delivery) map[string]events.SQSMessageAttribute {
	all := map[string]events.SQSMessageAttribute{}
	for name, a := range d.MessageAttributes {
		all[name] = events.SQSMessageAttribute{DataType: a.DataType, StringValue: a.StringValue}
	}
	return all
}

func (w *world) serveQueue(r *http.Request, body []byte) *http.Response {
	r = r.Clone(context.Background())
	r.Body, r.Host = io.NopCloser(bytes.NewReader(body)), r.URL.Host
	recorder := httptest.NewRecorder()
	w.queue.ServeHTTP(recorder, r)
	response := recorder.Result()
	response.Request = r
	return response
}

// kill ends a worker as the platform does. What it had sent is on the way.
func (w *world) kill(p *player) {
	w.mu.Lock()
	p.dead = true
	for _, c := range w.calls {
		if c.by == p && c.until.IsZero() {
			c.until = c.lost()
			c.answer <- nil
		}
	}
	w.mu.Unlock()
	p.cancel()
	w.alive = slices.DeleteFunc(w.alive, func(other *player) bool { return other == p })
	w.log("worker %d is killed", p.id)
	<-p.done
}

// rest waits until every worker waits for something, ends those whose time is
// up, and does with the messages of the others what the platform does.
func (w *world) rest() {
	synctest.Wait()
	for _, p := range slices.Clone(w.alive) {
		select {
		case <-p.done:
			p.cancel()
			w.alive = slices.DeleteFunc(w.alive, func(other *player) bool { return other == p })
			w.log("worker %d is done, the message goes on: %v", p.id, p.failed)
			switch {
			case !p.failed && w.kept > 0:
				w.kept--
			case !p.failed:
				_ = w.queue.Delete("tasks", p.message.ReceiptHandle)
			}
		default:
			if !time.Now().Before(p.deadline) {
				w.kill(p)
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = slices.DeleteFunc(w.calls, func(c *call) bool { return !c.until.IsZero() && time.Now().After(c.until) })
	slices.SortStableFunc(w.calls, func(a, b *call) int {
		if d := a.by.id - b.by.id; d != 0 {
			return d
		}
		return strings.Compare(a.name, b.name)
	})
}

// waiting are the calls of living workers, or those of dead ones that change something.
func (w *world) waiting(living bool) []*call {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []*call
	for _, c := range w.calls {
		if c.until.IsZero() == living && (living || c.changes) {
			list = append(list, c)
		}
	}
	return list
}

// What may become of a call.
type fate int

const (
	executed fate = iota
	refused       // the connection broke before
	unheard       // the connection broke after
)

// end decides a call.
func (w *world) end(c *call, f fate) {
	w.mu.Lock()
	w.calls = slices.DeleteFunc(w.calls, func(other *call) bool { return other == c })
	w.mu.Unlock()
	var answer *http.Response
	if f != refused {
		answer = c.run()
		if _, key, ok := strings.Cut(c.name, "/bucket/"); ok && !c.until.IsZero() {
			key, _, _ = strings.Cut(key, "?")
			w.strays[key] = true
		}
		if c.changes && w.broken == nil {
			if w.broken = w.bucket.truthful(); w.broken != nil {
				w.log("BROKEN: %v", w.broken)
			}
		}
	}
	status := "refused"
	if answer != nil {
		status = fmt.Sprint(answer.StatusCode)
	}
	w.log("worker %d: %s: %s%s", c.by.id, c.name, status, map[bool]string{true: ", too late to be heard",
		false: ""}[!c.until.IsZero() || f == unheard])
	if f == unheard {
		answer = nil
	}
	if c.until.IsZero() {
		c.answer <- answer
	}
}

// generate stands for a generator: quick, without a process, with other bytes
// each time. Some seeds make it crash.
func (w *world) generate(ctx context.Context, p *player, r generator.Request) (generator.Result, error) {
	result := generator.Result{Command: []string{"model"}, Output: filepath.Join(r.Scratch, "output")}
	answer, err := w.ask(ctx, p, fmt.Sprintf("generate %d at %d", r.Samples, r.StartIndex), false,
		func() *http.Response { return &http.Response{StatusCode: http.StatusOK} })
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return result, &generator.Failure{Cause: task.TimedOut, Detail: "its time was up"}
	case ctx.Err() != nil:
		return result, ctx.Err()
	case err != nil || answer == nil:
		return result, &generator.Failure{Cause: task.OutOfMemory, Detail: "it was killed"}
	case crashes(r.Seed):
		return result, &generator.Failure{Cause: task.Crashed, Detail: "an unlucky seed"}
	}
	w.mu.Lock()
	w.nonce++
	nonce := w.nonce
	w.mu.Unlock()
	return result, writeModel(result.Output, r.Samples, fmt.Sprintf("seed %d offset %%d nonce %d", r.Seed, nonce))
}

func crashes(seed int) bool { return seed%4 == 1 }

// pixel is a picture.
var pixel = []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU" +
	"\x00\x00\x00\nIDATx\x9cc\xf8\x0f\x00\x01\x01\x01\x00\xb18\xf6\x14\x00\x00\x00\x00IEND\xaeB`\x82")

func (w *world) send(x task.Task) {
	request := fmt.Sprintf(`{"QueueUrl":%q,"MessageBody":%q}`, w.config.QueueURL, x.Body())
	w.post("SendMessage", request)
	w.log("sent %s", x.Body())
}

// post asks the queue for something past every worker.
func (w *world) post(operation, body string) {
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", strings.NewReader(body))
	r.Header.Set("X-Amz-Target", "AmazonSQS."+operation)
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	recorder := httptest.NewRecorder()
	w.queue.ServeHTTP(recorder, r)
	if recorder.Code != http.StatusOK {
		panic(recorder.Body.String())
	}
}
