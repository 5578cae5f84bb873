// Package ui is the output of commands: data and messages, questions, progress, errors
// with hints and exit statuses, and numbers as text.
package ui

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/aws/smithy-go"
	"github.com/mattn/go-isatty"
)

// Output is where commands write: data to stdout, messages to stderr.
type Output struct {
	*Style
	Stdout   io.Writer // data
	Stderr   io.Writer
	stdin    io.Reader
	Terminal bool // stderr is a terminal
	mu       sync.Mutex
	bar      bool // a progress bar is on the current line
	shown    time.Time
}

// Style is the flags of output and questions.
type Style struct {
	JSON bool `help:"Print data as JSON."`
	Yes  bool `help:"Do what would be asked about without asking." short:"y"`
}

// New returns the output of this process.
func New(s *Style) *Output {
	return &Output{
		Style: s, Stdout: os.Stdout, Stderr: os.Stderr, stdin: os.Stdin, Terminal: isatty.IsTerminal(os.Stderr.Fd()),
	}
}

// Print prints data: as JSON with --json, else as table writes it.
func (o *Output) Print(v any, table func(w io.Writer)) error {
	o.Clear()
	if o.JSON {
		e := json.NewEncoder(o.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(o.Stdout, 0, 8, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// PrintLine prints data: as JSON with --json, else as this line.
func (o *Output) PrintLine(v any, format string, args ...any) error {
	return o.Print(v, func(w io.Writer) { fmt.Fprintf(w, format+"\n", args...) })
}

// Say prints a line for people.
func (o *Output) Say(format string, args ...any) {
	o.Clear()
	fmt.Fprintf(o.Stderr, format+"\n", args...)
}

// Changing prints what is about to be changed.
func (o *Output) Changing(t fmt.Stringer) { o.Say("%s", t) }

// Confirm asks before something that cannot be undone. Without a terminal it refuses.
func (o *Output) Confirm(question string) error {
	if o.Yes {
		return nil
	}
	o.Clear()
	in, ok := o.stdin.(*os.File)
	if !ok || !isatty.IsTerminal(in.Fd()) {
		return WithHint(fmt.Errorf("%s: there is no terminal to confirm it", question), "the same command with --yes")
	}
	fmt.Fprintf(o.Stderr, "%s? [y/N] ", question)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(line)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

// Progress shows progress: a bar on a terminal, else a line every few seconds.
func (o *Output) Progress(what string, done, total int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if !o.Terminal {
		if done < total && now.Sub(o.shown) < 5*time.Second {
			return
		}
		o.shown = now
		fmt.Fprintf(o.Stderr, "%s %s of %s\n", what, Count(done), Count(total))
		return
	}
	if done < total && now.Sub(o.shown) < 100*time.Millisecond {
		return
	}
	o.shown, o.bar = now, true
	const width = 30
	full := width
	if total > 0 {
		full = width * min(done, total) / total // totals may be estimates
	}
	fmt.Fprintf(o.Stderr, "\r\033[K%s %s%s %s of %s", what, strings.Repeat("█", full), strings.Repeat("░", width-full),
		Count(done), Count(total))
}

// Clear ends the line of a progress bar.
func (o *Output) Clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bar {
		fmt.Fprintln(o.Stderr)
		o.bar = false
	}
}

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
