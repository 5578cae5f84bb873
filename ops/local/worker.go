package local

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/workers"
)

// Main runs the part of the local stack that this process was started as (a worker, the S3 gateway, or the sandbox of a
// generator) and does not return then. Every program that calls Up must call it first.
func Main() {
	s3server.Main()
	workers.Main()
}

func workerName(number int) string { return fmt.Sprintf("worker-%d", number) }

// startWorker makes the process of a worker: this program itself, or a container.
func (s *Stack) startWorker(number int, runtimeAPI string) (*workers.Process, error) {
	log, err := openLog(s.config.Dir, workerName(number))
	if err != nil {
		return nil, err
	}
	p := &workers.Process{Log: log}
	o := s.outputs
	if front := s.config.front; front != nil {
		o = front(o)
	}
	env := append(workers.Environ(&o), workers.Local(&o)...)
	env = append(env, "AWS_LAMBDA_RUNTIME_API="+runtimeAPI,
		stack.EnvRetryDelays+"="+cmp.Or(s.config.retryDelays, os.Getenv(stack.EnvRetryDelays)))
	if image := s.config.Image; image != nil {
		name := "vm-dataset-worker-" + sqsserver.NewID()
		p.Command = image.command(name, s.config, append(env, workers.CPUShare(s.config.Workers)))
		p.End = func(ended <-chan struct{}) { s.endContainer(name, ended) }
		p.Asked = func(after time.Duration) {
			s.say("worker %d asked for work %.1f s after the start of its container", number, after.Seconds())
		}
	} else {
		scratch := filepath.Join(s.config.Dir, "scratch", strconv.Itoa(number))
		err := os.MkdirAll(scratch, 0o700)
		if err == nil {
			p.Command, err = workers.Command(s.config.Workers, append(env, stack.EnvGenerators+"="+generatorsDir(s.config.Dir),
				"PATH="+os.Getenv("PATH"), "HOME="+scratch, "TMPDIR="+scratch))
		}
		if err != nil {
			log.Close()
			return nil, err
		}
	}
	p.Command.ExtraFiles = []*os.File{s.lock}
	return p, nil
}

// dockerLimit is how long to wait for Docker. A kill takes a tenth of a second: a daemon that takes 10 s hangs.
const dockerLimit = 10 * time.Second

// endContainer ends a container. Docker has dockerLimit to answer "docker kill", and as long to end the container. Then
// its client is killed; the container ends by itself, because its standard input is closed.
func (s *Stack) endContainer(name string, ended <-chan struct{}) {
	limit := cmp.Or(s.config.dockerLimit, dockerLimit)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_, err := docker(ctx, "kill", name)
	select {
	case <-ended:
	case <-time.After(limit):
		s.say("the container %s did not end in %s (docker kill: %v); its client is killed", name, 2*limit, err)
	}
}

// taskQueue is the stack's task queue, as its own workers use it.
type taskQueue struct{ *Stack }

// Receive receives a message, now or when the mapping is enabled again.
func (q taskQueue) Receive(ctx context.Context) (*events.SQSMessage, error) {
	d, err := q.mapping.receive(ctx, q.queue)
	if d == nil {
		return nil, err
	}
	return &d.SQSMessage, nil
}

// Keep does nothing: a task is hidden for longer than its worker may take.
func (q taskQueue) Keep(context.Context, *events.SQSMessage) {}

// Delete deletes a message that is done with.
func (q taskQueue) Delete(m *events.SQSMessage) error {
	return q.queue.Delete(tasksQueue, m.ReceiptHandle)
}

// Return returns the message of a dead worker, and the cells it held, at once. The
// receive counts only if the worker died by itself.
func (q taskQueue) Return(m *events.SQSMessage, requestID string, end workers.End) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if end != workers.NotBegun {
		if err := q.releaseCells(ctx, m.Body, m.MessageId, requestID); err != nil {
			q.say("%v (the next start does it)", err)
		}
	}
	if err := q.queue.Return(tasksQueue, m.ReceiptHandle, end == workers.Died); err != nil {
		q.say("give a task back: %v (it comes back after its visibility timeout)", err)
	}
}
