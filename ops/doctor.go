package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/aws/smithy-go"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// DoctorCmd checks a stack.
type DoctorCmd struct{}

// Help is the long help.
func (*DoctorCmd) Help() string {
	return `Checks, a line each, what tasks need on their way: that Pulumi knows the stack, that the credentials are of its account, that queue and DLQ can be reached and are tied together, that the bucket can be written, that the function is active, runs the stack's image and fits the queue's times, that the image is of the kind that Lambda takes, that the workers are not paused, that the account has room for as many of them as the stack may start, that the logs are there, and that the generators in the image are those in the local folder. For the local stack: Python, generators and their environments, room on the disk, queue, bucket and workers. A line that is no "ok" says what to do.

It writes one object to the bucket and deletes it again; it changes nothing else. Exit status 2 if there is a problem.

Examples:
  ops --stack dev doctor
  ops --stack local doctor --json`
}

// Finding is what one check found.
type Finding struct {
	Check string `json:"check"`
	State string `json:"state"` // ok, problem, or skipped where it could not be found out
	Says  string `json:"says"`
	Try   string `json:"try,omitempty"`
}

// check is one check: what is well, or what is not and, as a hint, the way out.
type check struct {
	name string
	run  func(ctx context.Context) (says string, err error)
}

// skipped is the error of a check that could not be made, for a reason that is
// another check's problem or none.
type skipped string

func (s skipped) Error() string { return string(s) }

// checkTimeout bounds one check: a service that cannot be reached is tried
// again and again by the SDK.
const checkTimeout = 20 * time.Second

// Run makes the checks.
func (*DoctorCmd) Run(ctx context.Context, o *Output) error {
	var findings []Finding
	var err error
	if o.Stack == stack.Local {
		findings, err = examineLocal(ctx, o)
	} else {
		findings, err = examineCloud(ctx, o)
	}
	if err != nil {
		return err
	}
	problems := 0
	for _, f := range findings {
		if f.State == "problem" {
			problems++
		}
	}
	if err := o.Print(findings, func(w io.Writer) {
		for _, f := range findings {
			way := ""
			if f.Try != "" {
				way = " (try: " + f.Try + ")"
			}
			fmt.Fprintf(w, "%s\t%s\t%s%s\n", f.State, f.Check, f.Says, way)
		}
	}); err != nil || problems == 0 {
		return err
	}
	return ui.Problem("doctor found %s", ui.Plural(problems, "problem"))
}

// examine makes checks side by side and returns what they found, in their order.
func examine(ctx context.Context, checks []check) ([]Finding, error) {
	findings := make([]Finding, len(checks))
	var group sync.WaitGroup
	for i, c := range checks {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, checkTimeout)
			defer cancel()
			says, err := c.run(ctx)
			findings[i] = finding(c.name, says, err)
		})
	}
	group.Wait()
	return findings, ctx.Err()
}

func finding(name, says string, err error) Finding {
	if err == nil {
		return Finding{Check: name, State: "ok", Says: says}
	}
	if s, ok := errors.AsType[skipped](err); ok {
		return Finding{Check: name, State: "skipped", Says: string(s)}
	}
	f := Finding{Check: name, State: "problem", Says: ui.Cut(ui.Plain(err), 400)}
	if h, ok := errors.AsType[*ui.Hint](err); ok {
		f.Try = h.Way
	} else {
		f.Try = cure(err)
	}
	return f
}

// cure is the way out of a request that failed.
func cure(err error) string {
	if answer, ok := errors.AsType[smithy.APIError](err); ok {
		switch code := answer.ErrorCode(); code {
		case "AccessDenied", "AccessDeniedException", "AccessDeniedFault", "UnauthorizedOperation", "Forbidden":
			return "other credentials (AWS_PROFILE), or a policy that allows it"
		case "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch":
			return "aws sso login, or other credentials (AWS_PROFILE)"
		case "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NoSuchBucket", "ResourceNotFoundException", "RepositoryNotFoundException", "ImageNotFoundException", "NotFound":
			return "pulumi up --refresh makes again what is gone"
		}
	}
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, context.DeadlineExceeded) {
		return "look at the network, a proxy, and AWS_ENDPOINT_URL"
	}
	return ""
}
