package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/rights"
	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/workers"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
)

type WorkerCmd struct {
	Workers int           `help:"Worker processes. Default: one per CPU." placeholder:"N"`
	Idle    time.Duration `help:"Stop when no worker has had a task for so long. Default: never." placeholder:"TIME"`
	Drain   bool          `help:"At the first SIGTERM or Ctrl-C finish the tasks in progress, instead of handing them back."`
	Timeout time.Duration `help:"How long a worker may take for a task before it is killed." default:"900s"`
	Policy  bool          `help:"Print the IAM policy that the workers need, and do nothing else."`
}

func (*WorkerCmd) Help() string {
	return `Takes tasks from the stack's queue on any machine, beside its function or instead of it, with the same worker. Needs the generators of the stack at the same commits, and AWS credentials where the AWS SDK looks for them. Log lines and metrics go to stdout, a JSON object a line.

SIGTERM or Ctrl-C: the workers take nothing new and hand their tasks back, for others to continue at once; what is committed is kept. With --drain they finish them first, and a second signal hands them back. After kill -9 or a power failure the tasks come back when the queue's visibility timeout has passed.

Examples:
  ops --stack dev worker
  ops --stack dev worker --workers 8 --idle 10m
  ops --stack dev worker --policy > policy.json`
}

func (c *WorkerCmd) Validate() error {
	switch {
	case c.Workers < 0:
		return ui.Usage("--workers is %d, it must be at least 1", c.Workers)
	case c.Idle < 0:
		return ui.Usage("--idle is %s, it must be more than 0", c.Idle)
	case c.Timeout < time.Second || c.Timeout > longestTask:
		return ui.Usage("--timeout is %s, it must be from 1s to %s", c.Timeout, longestTask)
	}
	return nil
}

const (
	longestTask = 11 * time.Hour // SQS hides a message for 12 h at most, however often that is extended
	// A worker hands its task back within a second or two: it kills its generators and sends a
	// message. What is tried when the bucket does not answer takes less than this.
	handBackTime = time.Minute
)

func (c *WorkerCmd) Run(ctx context.Context, o *Output, t *target.Target) error {
	if c.Policy {
		e := json.NewEncoder(o.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(rights.OfStack(t.Outputs))
	}
	c.Workers = cmp.Or(c.Workers, runtime.GOMAXPROCS(0))
	err := c.run(ctx, o, t)
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		o.Say("stopped")
		return nil
	}
	return err
}

func (c *WorkerCmd) run(ctx context.Context, o *Output, t *target.Target) error {
	generators, err := o.inventory().ForWorker(ctx, t)
	if err != nil {
		return err
	}
	config, err := t.AWSConfig(ctx)
	if err != nil {
		return err
	}
	queue, err := workers.OpenSQS(ctx, sqs.NewFromConfig(config), &t.Outputs, o.Say)
	if err != nil {
		return err
	}
	if err := sandbox.Harden(); err != nil { // its environment holds the credentials
		return err
	}
	if err := c.remark(ctx, o); err != nil {
		return err
	}
	working, handBack := context.WithCancelCause(context.WithoutCancel(ctx))
	defer handBack(nil)
	receiving, finish := context.WithCancel(working)
	defer finish()
	defer c.heed(o, finish, func() { handBack(nil) })()
	output := &workers.Lines{To: o.Stdout}
	pool := workers.New(workers.Config{Workers: c.Workers, Timeout: c.Timeout, FunctionARN: t.FunctionARN, Queue: queue,
		Start: func(_ int, runtimeAPI string) (*workers.Process, error) {
			cmd, err := workers.Command(c.Workers, c.environ(t, generators, runtimeAPI))
			if err != nil {
				return nil, err
			}
			cmd.Stdout, cmd.Stderr, cmd.WaitDelay = output.Of(), os.Stderr, time.Second
			return &workers.Process{Command: cmd}, nil
		},
		Say: o.Say, Fail: handBack, Logs: func(int) string { return "its lines above" }, Grace: handBackTime})
	o.Changing(t)
	o.Say("%s at work", ui.Plural(c.Workers, "worker"))
	if c.Idle > 0 {
		go c.stopIdle(receiving, pool, o, finish)
	}
	if err := pool.Run(working, receiving); err != nil {
		return err
	}
	if err := context.Cause(working); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// remark says what this system does not keep from generators.
func (c *WorkerCmd) remark(ctx context.Context, o *Output) error {
	kept, err := generator.KeepsNetwork(ctx)
	if err != nil {
		return err
	}
	const see = "('What generators see' in docs/WORKERS.md)"
	if !kept {
		o.Say("note: generators have this machine's network, because taking it away needs root or user namespaces: keep "+
			"them from its metadata service %s", see)
	}
	if sandbox.Landlock() == 0 {
		o.Say("note: generators can read what this user can, because the kernel has no Landlock, which Linux has since "+
			"5.19 %s", see)
	}
	return nil
}

// environ is the environment of a worker: this one's, in which the SDK finds its
// credentials, and what the stack decides. Generators get nothing of it.
func (c *WorkerCmd) environ(t *target.Target, generators, runtimeAPI string) []string {
	env := append(os.Environ(), workers.Environ(&t.Outputs)...)
	if t.Name == stack.Local {
		env = append(env, workers.Local(&t.Outputs)...)
	}
	if os.Getenv(stack.EnvGenerators) == "" { // it runs in no image
		env = append(env, stack.EnvImage+"=")
	}
	return append(env, stack.EnvGenerators+"="+generators, stack.EnvOwnMachine+"=1", "AWS_LAMBDA_RUNTIME_API="+runtimeAPI)
}

// heed calls finish or handBack at signals, until the function that it returns is called.
// After handBack, a further signal ends this process at once.
func (c *WorkerCmd) heed(o *Output, finish, handBack func()) (stop func()) {
	signals, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		draining := false
		for {
			select {
			case <-done:
				return
			case <-signals:
			}
			if c.Drain && !draining {
				draining = true
				o.Say("finishing the tasks in progress; a second signal hands them back")
				finish()
				continue
			}
			o.Say("handing the tasks in progress back")
			signal.Stop(signals)
			handBack()
			return
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}

func (c *WorkerCmd) stopIdle(ctx context.Context, pool *workers.Pool, o *Output, finish func()) {
	for pool.Idle() < c.Idle {
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(c.Idle-pool.Idle(), 10*time.Millisecond)):
		}
	}
	o.Say("no task for %s: stopping", ui.Span(c.Idle))
	finish()
}
