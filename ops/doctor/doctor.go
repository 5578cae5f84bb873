// Package doctor checks that a stack can do its work.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/aws/smithy-go"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// Finding is what one check found.
type Finding struct {
	Check string `json:"check"`
	State string `json:"state"` // ok, problem, or skipped where it could not be found out
	Says  string `json:"says"`
	Try   string `json:"try,omitempty"`
}

// check is one check. run returns what is well, or an error with a hint.
type check struct {
	name string
	run  func(ctx context.Context) (says string, err error)
}

// skipped is the error of a check that could not be made, for a reason that is another check's problem or none.
type skipped string

func (s skipped) Error() string { return string(s) }

// wrong is the result of a check that found a problem, and the way out.
func wrong(way, format string, args ...any) (string, error) {
	return "", ui.WithHint(fmt.Errorf(format, args...), "%s", way)
}

// checkTimeout bounds one check: a service that cannot be reached is tried again and again by the SDK.
const checkTimeout = 20 * time.Second

// examine runs checks concurrently and returns their findings in order.
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

func cure(err error) string {
	if answer, ok := errors.AsType[smithy.APIError](err); ok {
		switch code := answer.ErrorCode(); code {
		case "AccessDenied", "AccessDeniedException", "AccessDeniedFault", "UnauthorizedOperation", "Forbidden":
			return "other credentials (AWS_PROFILE), or a policy that allows it"
		case "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException",
			"SignatureDoesNotMatch":
			return "aws sso login, or other credentials (AWS_PROFILE)"
		case "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NoSuchBucket", "ResourceNotFoundException",
			"RepositoryNotFoundException", "ImageNotFoundException", "NotFound":
			return "pulumi up --refresh makes again what is gone"
		}
	}
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, context.DeadlineExceeded) {
		return "check the network, a proxy, and AWS_ENDPOINT_URL"
	}
	return ""
}
