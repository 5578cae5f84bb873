package cloudtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logstypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// RunFunction plays Lambda for one event source mapping until ctx ends: one
// container of the function's image, with the function's environment and limits
// and no more rights than its role gives, works on the messages that the mapping
// takes from its queue. What it prints goes to the function's log group.
//
// It does not kill an invocation at its timeout and has one container whatever
// the maximum concurrency.
func (c *Cloud) RunFunction(ctx context.Context, mapping string) error {
	m, err := c.lambda.GetEventSourceMapping(ctx, &lambda.GetEventSourceMappingInput{UUID: &mapping})
	if err != nil {
		return err
	}
	f, err := c.lambda.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: m.FunctionArn})
	if err != nil {
		return err
	}
	queue := *m.EventSourceArn
	url, err := c.sqs.GetQueueUrl(ctx,
		&sqs.GetQueueUrlInput{QueueName: aws.String(queue[strings.LastIndex(queue, ":")+1:])})
	if err != nil {
		return err
	}
	g, err := startGate(ctx, c, *f.Configuration.Role)
	if err != nil {
		return err
	}
	defer g.server.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	api := &runtimeAPI{cloud: c, mapping: mapping, queueURL: *url.QueueUrl, function: *f.Configuration.FunctionArn,
		timeout: time.Duration(*f.Configuration.Timeout) * time.Second}
	server := &http.Server{Handler: api.handler(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }()
	defer server.Close()

	memory := strconv.Itoa(int(*f.Configuration.MemorySize))
	variables := map[string]string{
		"AWS_LAMBDA_RUNTIME_API": l.Addr().String(), "AWS_LAMBDA_FUNCTION_NAME": *f.Configuration.FunctionName,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": memory,
		"AWS_REGION":                      c.Region, "AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": secretKey,
		"AWS_ENDPOINT_URL": g.url,
	}
	for name, v := range f.Configuration.Environment.Variables {
		variables[name] = v
	}
	// Lambda's conditions: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
	args := []string{
		"run", "--rm", "--interactive", "--network=host", "--user=993:990", "--read-only", "--ipc=none", "--pids-limit=1024",
		"--ulimit=nofile=1024:1024",
		"--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=" + memory + "m", "--memory-swap=" + memory + "m",
		fmt.Sprintf("--tmpfs=/tmp:exec,mode=1777,size=%dm", *f.Configuration.EphemeralStorage.Size),
	}
	for name, v := range variables {
		args = append(args, "--env="+name+"="+v)
	}
	// The image comes from the registry, as Lambda's does: with a login of its own.
	login, err := dockerLogin(c.registry.address, registryUser, c.registry.login())
	if err != nil {
		return err
	}
	defer os.RemoveAll(login)
	image := aws.ToString(f.Code.ImageUri)
	if err := c.docker(ctx, login, "pull", "--quiet", image); err != nil {
		return err
	}
	cmd := exec.Command(c.dockerPath, append(args, image)...)
	log := &logStream{ctx: context.WithoutCancel(ctx), cloud: c, gate: g, name: "cloudtest/[$LATEST]" +
		strings.ToLower(rand.Text())}
	if v, ok := c.kept.Load(logGroupOf(*f.Configuration.FunctionName)); ok {
		log.group = v.(string)
	}
	if err := log.open(); err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	alive, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return errors.Join(errors.New("the function ended by itself"), err)
	case <-ctx.Done():
	}
	_ = cmd.Process.Signal(os.Interrupt) // docker run passes it on
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		<-ended
	}
	alive.Close()
	return g.denied()
}

// runtimeAPI is what the container asks for its next invocation.
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
type runtimeAPI struct {
	cloud                       *Cloud
	mapping, queueURL, function string
	timeout                     time.Duration

	mu      sync.Mutex
	current map[string]string // message id -> receipt handle, of the invocation under way
	number  int
}

func (a *runtimeAPI) handler() http.Handler {
	const root = "/2018-06-01/runtime/"
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+root+"invocation/next", func(rw http.ResponseWriter, q *http.Request) {
		event, err := a.receive(q.Context())
		if err != nil {
			rw.WriteHeader(http.StatusInternalServerError)
			return
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.number++
		a.current = map[string]string{}
		for _, r := range event.Records {
			a.current[r.MessageId] = r.ReceiptHandle
		}
		h := rw.Header()
		h.Set("Lambda-Runtime-Aws-Request-Id", fmt.Sprintf("00000000-0000-4000-8000-%012d", a.number))
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(a.timeout).UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", a.function)
		_ = json.NewEncoder(rw).Encode(event)
	})
	mux.HandleFunc("POST "+root+"invocation/{id}/response", func(rw http.ResponseWriter, q *http.Request) {
		var answer events.SQSEventResponse
		if err := json.NewDecoder(q.Body).Decode(&answer); err != nil {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		a.settle(q.Context(), answer)
		rw.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("POST "+root+"invocation/{id}/error",
		func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusAccepted) })
	mux.HandleFunc("POST "+root+"init/error",
		func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusAccepted) })
	return mux
}

// receive waits for messages while the mapping is enabled.
func (a *runtimeAPI) receive(ctx context.Context) (events.SQSEvent, error) {
	var event events.SQSEvent
	for {
		m, err := a.cloud.lambda.GetEventSourceMapping(ctx, &lambda.GetEventSourceMappingInput{UUID: &a.mapping})
		if err != nil {
			return event, err
		}
		if aws.ToString(m.State) != "Enabled" {
			select {
			case <-ctx.Done():
				return event, ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		out, err := a.cloud.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &a.queueURL, MaxNumberOfMessages: aws.ToInt32(m.BatchSize), WaitTimeSeconds: 1,
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}, MessageAttributeNames: []string{"All"},
		})
		if err != nil {
			return event, err
		}
		for _, m := range out.Messages {
			r := events.SQSMessage{
				MessageId: *m.MessageId, ReceiptHandle: *m.ReceiptHandle, Body: *m.Body, Md5OfBody: aws.ToString(m.MD5OfBody),
				Attributes:        m.Attributes,
				MessageAttributes: map[string]events.SQSMessageAttribute{}, EventSource: "aws:sqs", AWSRegion: a.cloud.Region,
			}
			for name, v := range m.MessageAttributes {
				r.MessageAttributes[name] = events.SQSMessageAttribute{StringValue: v.StringValue, BinaryValue: v.BinaryValue,
					DataType: aws.ToString(v.DataType)}
			}
			event.Records = append(event.Records, r)
		}
		if len(event.Records) > 0 {
			return event, nil
		}
	}
}

// settle deletes what succeeded, as the event source mapping does.
func (a *runtimeAPI) settle(ctx context.Context, answer events.SQSEventResponse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range answer.BatchItemFailures {
		if f.ItemIdentifier == "" {
			return
		}
		delete(a.current, f.ItemIdentifier)
	}
	for _, receipt := range a.current {
		_, _ = a.cloud.sqs.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &a.queueURL, ReceiptHandle: &receipt})
	}
	a.current = nil
}

// logStream sends lines to a log group, as Lambda does with what a function
// prints and in the name of the function's role.
type logStream struct {
	ctx         context.Context
	cloud       *Cloud
	gate        *gate
	group, name string
	rest        []byte // of a line that has not ended
}

func (s *logStream) open() error {
	if !s.admitted("logs:CreateLogStream") {
		return nil // Lambda runs the function all the same
	}
	_, err := s.cloud.logs.CreateLogStream(s.ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &s.group,
		LogStreamName: &s.name})
	return err
}

func (s *logStream) admitted(action string) bool {
	return s.gate.admits(request{action: action, resource: "arn:aws:logs:" + s.cloud.Region + ":" + s.cloud.Account +
		":log-group:" + s.group + ":log-stream:" + s.name})
}

// Write implements io.Writer. exec.Cmd calls it from one goroutine.
func (s *logStream) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	var events []logstypes.InputLogEvent
	for {
		line, rest, ok := bytes.Cut(s.rest, []byte("\n"))
		if !ok {
			break
		}
		s.rest = rest
		if len(line) > 0 {
			events = append(events, logstypes.InputLogEvent{Message: aws.String(string(line)),
				Timestamp: aws.Int64(time.Now().UnixMilli())})
		}
	}
	if len(events) == 0 || !s.admitted("logs:PutLogEvents") {
		return len(p), nil
	}
	_, err := s.cloud.logs.PutLogEvents(s.ctx, &cloudwatchlogs.PutLogEventsInput{LogGroupName: &s.group,
		LogStreamName: &s.name, LogEvents: events})
	return len(p), err
}
