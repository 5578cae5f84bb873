package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/middleware"
)

// LoadConfig returns the configuration of every AWS client of the pipeline: the
// SDK's default chain (environment, shared files, roles) with a region, the
// pipeline's HTTP client and its retries, which are UnlimitedRetries or
// LimitedRetries.
func LoadConfig(ctx context.Context, region string, retries func() aws.Retryer) (aws.Config, error) {
	c, err := config.LoadDefaultConfig(ctx, config.WithRegion(region), config.WithRetryer(retries))
	c.HTTPClient = HTTPClient(c.HTTPClient)
	return c, err
}

// UnlimitedRetries returns the retries of a worker: a request that another one may
// replace is tried until its context ends. What a worker stores took minutes to
// make, so nothing but the end of its invocation is a reason to give it up.
//
// The SDK waits up to 1 s after the first 503 and up to twice as long after each
// further one, at most 20 s. Its quota is off: a client's requests share it, and a
// hundred that are throttled at once exhaust it in half a second.
func UnlimitedRetries() aws.Retryer {
	return newRetryer(func(error) int { return math.MaxInt })
}

// LimitedRetries returns the retries of a command that a person waits for: it tries
// Tries times.
func LimitedRetries() aws.Retryer { return newRetryer(Tries) }

// maxTries takes two minutes where everything is answered with 503. Of a million
// requests one fails if half of all are refused.
const maxTries = 20

// Tries returns how often a command tries a request that fails with an error: fewer
// times where nobody answers, which takes 3 s if connections are refused, and 90 s
// if the server is silent, and where an object cannot be read to its end, however large.
func Tries(err error) int {
	switch network, _ := errors.AsType[*net.OpError](err); {
	case network != nil && network.Op == "dial":
		return 8
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return 3
	case errors.As(err, new(*brokenAnswer)):
		return 6
	}
	return maxTries
}

// damagedTries is how often an object is read that is not what its checksum says.
const damagedTries = 3

// retryer is the SDK's with other limits.
type retryer struct{ *retry.Standard }

func newRetryer(tries func(error) int) *retryer {
	backoff := retry.NewStandard()
	return &retryer{retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = math.MaxInt32
		o.RateLimiter = ratelimit.None
		o.Backoff = retry.BackoffDelayerFunc(func(attempt int, err error) (time.Duration, error) {
			// A small object that is not what its checksum says may be damaged on the way, not for ever.
			if attempt >= tries(err) || errors.Is(err, ErrDamaged) && attempt >= damagedTries {
				return 0, err
			}
			return backoff.RetryDelay(attempt, err)
		})
		// S3 asks for another try where two conditional requests met, and then the
		// answer shows which of them was first.
		conflicts := map[string]struct{}{"ConditionalRequestConflict": {}, "OperationAborted": {}}
		o.Retryables = append(o.Retryables, retry.RetryableErrorCode{Codes: conflicts},
			// An answer that was cut off: the SDK takes it for one that cannot be read.
			retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
				if errors.Is(err, io.ErrUnexpectedEOF) {
					return aws.TrueTernary
				}
				return aws.UnknownTernary
			}))
	})}
}

// ErrRefused says that a request was tried until its context ended, and what was
// wrong with it until then.
var ErrRefused = errors.New("until then it failed with")

// lastErrorID names the middleware that sees each try of a request.
const lastErrorID = "noteLastError"

// keepLastError adds to the error of a request whose time is up what the server had
// answered until then: the SDK only says that the time is up.
func keepLastError(stack *middleware.Stack) error {
	var last error
	try := after(lastErrorID, func(ctx context.Context, _ any, _ middleware.Metadata, err error) error {
		if err != nil && ctx.Err() == nil {
			last = err
		}
		return err
	})
	all := after("addLastError", func(ctx context.Context, _ any, _ middleware.Metadata, err error) error {
		if err != nil && ctx.Err() != nil && last != nil {
			return fmt.Errorf("%w; %w: %w", err, ErrRefused, last)
		}
		return err
	})
	return errors.Join(stack.Finalize.Insert(try, "Retry", middleware.After),
		stack.Finalize.Insert(all, "Retry", middleware.Before))
}

// after is a middleware that decides about the error of what is below it.
func after(id string, decide func(ctx context.Context, result any, data middleware.Metadata,
	err error) error) middleware.FinalizeMiddleware {
	return middleware.FinalizeMiddlewareFunc(id, func(ctx context.Context, in middleware.FinalizeInput,
		next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		out, data, err := next.HandleFinalize(ctx, in)
		return out, data, decide(ctx, out.Result, data, err)
	})
}

// silence is how long a connection may neither take nor give a byte while a request
// is on it, or idle before it is closed. A long poll of SQS takes 20 s.
const silence = 30 * time.Second

// HTTPClient returns an HTTP client for AWS clients that sends through next, or
// through the SDK's own if that is nil. The SDK's keeps as many connections open as
// a Store has requests in flight, and gives up a server that is silent for 30 s:
// before it answers, in the middle of an answer, or in the middle of a request that
// it does not read on. How long a body takes in all does not matter.
//
// The SDK (smithy-go 1.28) closes a request's body once the answer's header is
// there. When net/http then checks whether the body has more, as it does after
// sending it, the closed body's WriteTo returns io.EOF, which net/http takes for a
// failed request: it closes the connection while the answer is being read. An
// answer that is quick and longer than one read is lost that way now and then,
// and with an answer of ReceiveMessage the messages in it, until their
// visibility ends. Without WriteTo the end of a body is no error.
func HTTPClient(next aws.HTTPClient) aws.HTTPClient { return httpClient(next, silence) }

func httpClient(next aws.HTTPClient, limit time.Duration) aws.HTTPClient {
	if next == nil {
		next = awshttp.NewBuildableClient()
	}
	client, ok := next.(*awshttp.BuildableClient)
	if !ok {
		return plainBodies{next, func() {}}
	}
	// With 10 idle connections, the SDK's default, every further request would make its
	// own: on AWS that is a TLS handshake, three round trips and 1 ms of CPU.
	transport := client.GetTransport()
	// While a connection is made, net/http begins another one for every further request.
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost, transport.MaxConnsPerHost = 0, inFlight, inFlight
	// By the wall clock: a worker that was frozen for longer uses none of the
	// connections that it had.
	transport.IdleConnTimeout = limit
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &watchedConn{conn, limit}, nil
	}
	return plainBodies{&http.Client{Transport: transport, CheckRedirect: redirect}, transport.CloseIdleConnections}
}

// redirect follows what S3 redirects for a while, as the SDK's own client does.
func redirect(r *http.Request, _ []*http.Request) error {
	if code := r.Response.StatusCode; code == http.StatusTemporaryRedirect || code == http.StatusPermanentRedirect {
		return nil
	}
	return http.ErrUseLastResponse
}

// watchedConn ends a read or a write when the connection was silent for too long.
// What is written gives the reader new time: net/http reads from a connection while
// it is idle and while it sends, and the server answers only then.
type watchedConn struct {
	net.Conn
	limit time.Duration
}

func (c *watchedConn) Read(p []byte) (int, error)  { return c.watch(c.Conn.Read, p) }
func (c *watchedConn) Write(p []byte) (int, error) { return c.watch(c.Conn.Write, p) }

func (c *watchedConn) watch(do func([]byte) (int, error), p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	n, err := do(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%s was silent for %s: %w", c.RemoteAddr(), c.limit, err)
	}
	return n, err
}

type plainBodies struct {
	next      aws.HTTPClient
	closeIdle func()
}

func (c plainBodies) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	response, err := c.next.Do(r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.closeIdle() // they may be as dead: the next try makes a connection of its own
	}
	return response, err
}
