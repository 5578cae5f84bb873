package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/runs"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type LocalCmd struct {
	Run_   LocalRunCmd    `cmd:"" name:"run" help:"Make and verify samples with one command."`
	Up     LocalUpCmd     `cmd:"" help:"Start the local stack; Ctrl-C stops it."`
	Down   LocalDownCmd   `cmd:"" help:"Stop the local stack."`
	Status LocalStatusCmd `cmd:"" help:"Show whether the local stack is up, and its queues."`
}

type workerFlags struct {
	Workers    int           `help:"Worker processes. Default: one per CPU." placeholder:"N"`
	Visibility time.Duration `help:"How long a task is hidden while a worker has it." default:"${local_visibility}"`
	Timeout    time.Duration `help:"How long a worker may take for a task before it is killed." default:"${local_timeout}"`
	Require    []string      `help:"Files that every sample must have in addition to the generator's own: rubric.txt, for example." placeholder:"FILE"`
	Image      string        `help:"Run the workers in containers of this image, with the limits of AWS Lambda. Linux only; needs Docker, and no Python." placeholder:"REF"`
	Memory     int           `help:"Memory of each container in MB." default:"${local_memory}" placeholder:"MB"`
	Tmp        int           `help:"Size of /tmp in each container in MB." default:"${local_tmp}" placeholder:"MB"`
}

// find returns the image and the generators that a run can use: those in the image, or those on this machine.
func (w *workerFlags) find(ctx context.Context, o *Output, chosen ...string) (*local.Image, []generator.Generator,
	error) {
	if w.Image == "" {
		list, err := o.inventory().Prepare(ctx, &target.Target{Name: stack.Local}, chosen...)
		return nil, list, err
	}
	image, err := local.FindImage(ctx, w.Image)
	if errors.Is(err, local.ErrNoImage) {
		return nil, nil, ui.WithHint(err, "docker build -t %s . in the checkout, or docker pull %[1]s", w.Image)
	}
	if err != nil {
		return nil, nil, err
	}
	return image, image.Generators, nil
}

func (w *workerFlags) Validate() error {
	switch {
	case w.Workers < 0:
		return ui.Usage("--workers is %d, it must be at least 1", w.Workers)
	case w.Timeout < time.Second:
		return ui.Usage("--timeout is %s, it must be at least 1s", w.Timeout)
	case w.Memory < 128 || w.Memory > 10240:
		return ui.Usage("--memory is %d, it must be from 128 to 10240, as on AWS Lambda", w.Memory)
	case w.Visibility < w.Timeout || w.Visibility > 12*time.Hour:
		return ui.Usage("--visibility is %s, it must be from the timeout of %s to 12h", w.Visibility, w.Timeout)
	}
	for _, file := range w.Require {
		if err := task.CheckFile(file); err != nil {
			return ui.Usage("--require %v", err)
		}
	}
	return between("--tmp", &w.Tmp, 1, 10240)
}

func (w *workerFlags) up(ctx context.Context, o *Output, image *local.Image) (*local.Stack, *target.Target, error) {
	s, err := local.Up(ctx, local.Config{Dir: o.LocalDir, Workers: w.Workers, Visibility: w.Visibility, Timeout: w.Timeout,
		Required: w.Require, Image: image, Memory: w.Memory, Tmp: w.Tmp, Say: func(m string) { o.Say("%s", m) }})
	if err != nil {
		return nil, nil, err
	}
	return s, &target.Target{Outputs: s.Outputs(), Name: stack.Local}, nil
}

type LocalUpCmd struct{ workerFlags }

func (*LocalUpCmd) Help() string {
	return `Queue, bucket and workers of the cloud on this machine, at addresses that any AWS tool can use. It continues where it stopped, even after a crash. While it runs, samples are plain files below the local folder.

Examples:
  ops local up --workers 4
  ops local up --image 123456789012.dkr.ecr.us-east-2.amazonaws.com/vm-dataset@sha256:...
  eval "$(ops --stack local info --env)" && aws s3 ls s3://$BUCKET/`
}

func (c *LocalUpCmd) Run(ctx context.Context, o *Output) error {
	image, _, err := c.find(ctx, o)
	if err != nil {
		return err
	}
	s, t, err := c.up(ctx, o, image)
	if err != nil {
		return err
	}
	o.Changing(t)
	o.Say("the local stack is up")
	o.Say("  queue    %s", t.QueueURL)
	o.Say("  bucket   %s at %s", t.BucketName, t.S3Endpoint)
	o.Say("  samples  %s", ui.FromHere(local.SamplesDir(o.LocalDir, task.DefaultDataset)))
	address, stopUI := serveBeside(ctx, o, t)
	defer stopUI()
	o.Say("  ui       %s", address)
	o.Say("next, in another terminal: ops --stack local submit --all --samples 20")
	err = s.Wait(ctx)
	if err == nil {
		o.Say("stopping: tasks in progress go back to the queue")
	}
	return errors.Join(err, s.Down())
}

type LocalDownCmd struct{}

func (*LocalDownCmd) Help() string {
	return `Stops it as Ctrl-C does: tasks in progress go back to the queue. Queue, samples and environments are kept, and 'ops local up' continues.

Examples:
  ops local down
  ops --local-dir /data/vm-dataset local down`
}

func (*LocalDownCmd) Run(ctx context.Context, o *Output) error {
	pid, err := local.PID(o.LocalDir)
	if errors.Is(err, local.ErrDown) {
		o.Say("the local stack is not up")
		return nil
	}
	if err != nil {
		return err
	}
	if outputs, err := local.Outputs(o.LocalDir); err == nil {
		o.Changing(&target.Target{Outputs: outputs, Name: stack.Local})
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop process %d: %w", pid, err)
	}
	for wait := time.NewTicker(50 * time.Millisecond); ; {
		if _, err := local.PID(o.LocalDir); err != nil {
			o.Say("the local stack is down; everything is kept in %s", o.LocalDir)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wait.C:
		}
	}
}

type LocalStatusCmd struct{}

// LocalStatus is what status prints.
type LocalStatus struct {
	Up      bool         `json:"up"`
	PID     int          `json:"pid,omitempty"`
	Dir     string       `json:"dir"`
	Samples string       `json:"samples"` // folder
	Queue   *queue.Depth `json:"queue,omitempty"`
	DLQ     *queue.Depth `json:"dlq,omitempty"`
}

func (*LocalStatusCmd) Help() string {
	return `Exit status 0: it is up. 2: it is not.

Examples:
  ops local status
  ops local status --json`
}

func (*LocalStatusCmd) Run(ctx context.Context, o *Output) error {
	s := LocalStatus{Dir: o.LocalDir, Samples: local.SamplesDir(o.LocalDir, task.DefaultDataset)}
	outputs, err := local.Outputs(o.LocalDir)
	if err != nil && !errors.Is(err, local.ErrDown) {
		return err
	}
	if s.Up = err == nil; s.Up {
		s.PID, _ = local.PID(o.LocalDir)
		q, err := (&target.Target{Outputs: outputs, Name: stack.Local}).Queue(ctx)
		if err != nil {
			return err
		}
		depth, err := q.Depth(ctx)
		if err != nil {
			return err
		}
		dlq, err := q.DLQDepth(ctx)
		if err != nil {
			return err
		}
		s.Queue, s.DLQ = &depth, &dlq
	}
	err = o.Print(s, func(w io.Writer) {
		if !s.Up {
			fmt.Fprintf(w, "the local stack is not up; its files are in %s\n", s.Dir)
			return
		}
		fmt.Fprintf(w, "up\tprocess %d\nqueue\t%d waiting, %d in flight, %d delayed\ndlq\t%d\nsamples\t%s\n", s.PID,
			s.Queue.Waiting, s.Queue.InFlight, s.Queue.Delayed, s.DLQ.Total(), s.Samples)
	})
	return cmp.Or(err, ui.ProblemIf(!s.Up, ""))
}

type LocalRunCmd struct {
	wanted
	inDataset
	workerFlags
}

func (*LocalRunCmd) Help() string {
	return `Makes the Python environments, starts the local stack, submits, watches, verifies and stops. Committed samples are not made again, so the same command with more samples extends a dataset. After Ctrl-C, the same command continues.

Examples:
  ops local run --all --samples 20
  ops local run --generator maze-task-data-generator --samples 1000 --workers 8 --format tar`
}

func (c *LocalRunCmd) Validate() error {
	return errors.Join(c.wanted.check(), c.workerFlags.Validate())
}

// LocalResult is what run prints as JSON.
type LocalResult struct {
	*dataset.Report
	SamplesDir string  `json:"samples_dir"`
	Seconds    float64 `json:"seconds"`
}

func (c *LocalRunCmd) Run(ctx context.Context, o *Output) (err error) {
	began := time.Now()
	image, list, err := c.find(ctx, o, c.named()...)
	if err != nil {
		return err
	}
	chosen, err := c.choose(o, list)
	if err != nil {
		return err
	}
	sayPools(o, chosen, c.Start+c.Samples)
	s, t, err := c.up(ctx, o, image)
	if err != nil {
		return err
	}
	t.Dataset = task.Dataset(c.Dataset)
	defer func() { err = errors.Join(err, s.Down()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case err := <-s.Failed():
			cancel(err)
		case <-ctx.Done():
		}
	}()
	q, err := t.Queue(ctx)
	if err != nil {
		return err
	}
	st, err := t.Store(ctx)
	if err != nil {
		return err
	}
	if err := o.inventory().KeepLocks(ctx, st, chosen); err != nil {
		return err
	}
	report, err := c.makeAndVerify(ctx, o, t, q, st, chosen)
	s.Settle(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if errors.Is(err, context.Canceled) {
		return ui.WithHint(err, "the same command: it continues")
	}
	if err != nil {
		return err
	}
	result := LocalResult{report, local.SamplesDir(o.LocalDir, t.Dataset), time.Since(began).Seconds()}
	if err := o.Print(result, func(w io.Writer) {
		printReport(w, report)
		fmt.Fprintf(w, "samples: %s\n", ui.FromHere(result.SamplesDir))
		fmt.Fprintf(w, "took %s\n", ui.Span(time.Since(began)))
	}); err != nil {
		return err
	}
	if report.Complete {
		return nil
	}
	return ui.WithHint(ui.Problem(""), "ops local up, and in another terminal: ops --stack local dlq list")
}

func (c *LocalRunCmd) makeAndVerify(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store,
	chosen []generator.Generator) (*dataset.Report, error) {
	o.Changing(t)
	costs, order := knownCosts(o), c.runOrder()
	run := order.New(chosen, costs)
	if _, err := order.Pin(ctx, st, &run, true); err != nil {
		return nil, err
	}
	order.Cut(&run, costs, t.Setting())
	run, err := dataset.Narrow(ctx, st, run)
	if err != nil {
		return nil, err
	}
	c.sayCommitted(o, run)
	if len(run.Plan()) > 0 {
		if err := (&runs.Sender{Target: t, Queue: q, Store: st, Out: o.Output}).Make(ctx, run); err != nil {
			return nil, err
		}
	} else {
		run.ID = "" // there is no such run
	}
	return (&dataset.Checker{Store: st}).Run(ctx, run)
}
