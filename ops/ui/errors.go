package ui

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/aws/smithy-go"
)

// Exit statuses. Usage errors end with kong's 80.
const (
	ExitFailed  = 1 // failed
	ExitProblem = 2 // ran and found a problem
	ExitUsage   = 80
)

// StatusError is an error with an exit status of its own. With an empty text it
// only sets the status: everything was printed.
type StatusError struct {
	status int
	text   string
}

func (e *StatusError) Error() string { return e.text }
func (e *StatusError) ExitCode() int { return e.status }

// Problem is the error of a command that ran and found a problem.
func Problem(format string, args ...any) error {
	return &StatusError{ExitProblem, fmt.Sprintf(format, args...)}
}

// ProblemIf is the error of a command that ran and perhaps found a problem: nil if it did not.
func ProblemIf(found bool, format string, args ...any) error {
	if !found {
		return nil
	}
	return Problem(format, args...)
}

// Usage is the error of flags that do not fit.
func Usage(format string, args ...any) error {
	return &StatusError{ExitUsage, fmt.Sprintf(format, args...)}
}

// Hint is an error with a hint what to do.
type Hint struct {
	error
	Way string
}

func (h *Hint) Unwrap() error { return h.error }

// WithHint adds a hint to an error.
func WithHint(err error, format string, args ...any) error {
	return &Hint{err, fmt.Sprintf(format, args...)}
}

// providerPrefix is the type that kong puts in front of the error of a provider.
var providerPrefix = regexp.MustCompile(`^(\*[a-z]+\.[A-Z][A-Za-z]+: )+`)

// Plain is an error's text for people: without kong's prefix, and of a failed AWS request
// the service, the operation and the reason alone.
func Plain(err error) string {
	text := providerPrefix.ReplaceAllString(err.Error(), "")
	var request *smithy.OperationError
	if !errors.As(err, &request) {
		return text
	}
	reason := request.Err
	var answer smithy.APIError
	var network *net.OpError
	switch {
	case errors.As(err, &answer):
		reason = fmt.Errorf("%s: %s", answer.ErrorCode(), answer.ErrorMessage())
	case errors.As(err, &network):
		reason = network
	default:
		for next := reason; next != nil; next = errors.Unwrap(next) {
			reason = next
		}
	}
	return strings.Replace(text, request.Error(), fmt.Sprintf("%s %s: %v", request.ServiceID, request.OperationName,
		reason), 1)
}
