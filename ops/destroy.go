package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/daemon"
	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

type DestroyCmd struct{}

func (*DestroyCmd) Help() string {
	return `Says how many tasks are in the queue and in the DLQ, which are lost, asks, and runs 'pulumi destroy'. The bucket and the images stay, unless the stack was deployed with retainData false: the names that are printed are needed to find them again.

Examples:
  ops --stack dev destroy
  ops --stack dev destroy --yes`
}

func (*DestroyCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client) error {
	if t.Name == stack.Local {
		return ui.WithHint(errors.New("the local stack is none of Pulumi's"), "ops local down")
	}
	if o.Outputs != "" {
		return ui.Usage("--outputs names outputs and no stack of Pulumi: give --stack alone")
	}
	if err := dockerAnswers(ctx, o, t.Name); err != nil {
		return fmt.Errorf("pulumi destroy needs Docker, to forget the images: %w", err)
	}
	o.Changing(t)
	tasks, err := remaining(ctx, o, "queue", q.Depth)
	if err != nil {
		return err
	}
	dead, err := remaining(ctx, o, "DLQ", q.DLQDepth)
	if err != nil {
		return err
	}
	o.Say("%s waiting, %d with workers, %d in the DLQ", ui.Plural(tasks.Waiting+tasks.Delayed, "task"), tasks.InFlight,
		dead.Total())
	question := "Delete the stack " + t.Name
	if t.RetainData != nil && !*t.RetainData {
		o.Say("bucket %s, images %s: they are deleted, because the stack was deployed with retainData false; to keep "+
			"them: pulumi config set retainData true, then pulumi up", t.BucketName, t.RepositoryURL)
		question += " with ALL SAMPLES in " + t.BucketName
	} else {
		o.Say("bucket %s, images %s: they stay; to go on with the samples in another stack: pulumi config set adoptBucket "+
			"%[1]s", t.BucketName, t.RepositoryURL)
	}
	if n := tasks.Total() + dead.Total(); n > 0 {
		question = fmt.Sprintf("%s, and lose %s", question, ui.Plural(n, "task"))
	}
	if err := o.Confirm(question); err != nil {
		return err
	}
	path, err := exec.LookPath("pulumi")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, "destroy", "--stack", t.Name, "--yes", "--non-interactive")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it stops between two resources
	// A terminal's Ctrl-C comes by Cancel alone: two make Pulumi stop at once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Dir, cmd.Stdout, cmd.Stderr = o.Project, o.Stderr, o.Stderr
	cmd.Env = append(os.Environ(), "PULUMI_SKIP_UPDATE_CHECK=true")
	if err := cmd.Run(); err != nil {
		return ui.WithHint(fmt.Errorf("pulumi destroy: %w", err), "docs/AWS.md says what to do about its message")
	}
	return nil
}

// dockerAnswers refuses to begin without the daemon that Pulumi's Docker provider asks: where the stack's docker:host
// says, or else at DOCKER_HOST.
func dockerAnswers(ctx context.Context, o *Output, stack string) error {
	host := os.Getenv("DOCKER_HOST")
	set, err := target.Pulumi(ctx, o.Flags, "config", "get", "docker:host", "--stack", stack, "--non-interactive")
	if set := strings.TrimSpace(string(set)); err == nil && set != "" { // it fails where nothing is set
		host = set
	}
	_, err = daemon.Ask(ctx, host)
	return err
}

// remaining counts a queue. One that a destroy before this has deleted has no tasks.
func remaining(ctx context.Context, o *Output, what string,
	count func(context.Context) (queue.Depth, error)) (queue.Depth, error) {
	depth, err := count(ctx)
	if _, gone := errors.AsType[*types.QueueDoesNotExist](err); gone {
		o.Say("note: the %s is gone already", what)
		return queue.Depth{}, nil
	}
	return depth, err
}
