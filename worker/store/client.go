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

// LoadConfig returns the configuration of every AWS client of the pipeline: the SDK's default chain (environment,
// shared files, roles) with a region, the pipeline's HTTP client, and UnlimitedRetries or LimitedRetries.
func LoadConfig(ctx context.Context, region string, retries func() aws.Retryer) (aws.Config, error) {
	c, err := config.LoadDefaultConfig(ctx, config.WithRegion(region), config.WithRetryer(retries))
	c.HTTPClient = HTTPClient(c.HTTPClient)
	return c, err
}

// UnlimitedRetries returns the retries of a worker: a request is tried until its context ends, at most 20 s after the
// last try. The SDK's quota is off: a hundred requests that are throttled at once exhaust it in half a second.
func UnlimitedRetries() aws.Retryer { return newRetryer(func(error) int { return math.MaxInt }) }

// LimitedRetries returns the retries of a command that a person waits for: it tries Tries times.
func LimitedRetries() aws.Retryer { return newRetryer(Tries) }

// Tries returns how often a command tries a request that fails with an error: 20 times, which takes two minutes of
// 503, and fails for one request in a million if half of all are refused. It is fewer where nobody answers, which
// takes 3 s if connections are refused and 90 s if the server is silent, and where an object cannot be read on.
func Tries(err error) int {
	switch network, _ := errors.AsType[*net.OpError](err); {
	case network != nil && network.Op == "dial":
		return 8
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return 3
	case errors.As(err, new(*brokenAnswer)):
		return 6
	}
	return 20
}

// retryer is the SDK's with other limits.
type retryer struct{ *retry.Standard }

func newRetryer(tries func(error) int) *retryer {
	backoff := retry.NewStandard()
	return &retryer{retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = math.MaxInt32
		o.RateLimiter = ratelimit.None
		o.Backoff = retry.BackoffDelayerFunc(func(attempt int, err error) (time.Duration, error) {
			// A small object that is not what its checksum says may be damaged on the way, not three times.
			if attempt >= tries(err) || errors.Is(err, ErrDamaged) && attempt >= 3 {
				return 0, err
			}
			return backoff.RetryDelay(attempt, err)
		})
		// S3 asks for another try where two conditional requests met: its answer shows which of them was first.
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

// ErrRefused says that a request was tried until its context ended, and what was wrong with it until then.
var ErrRefused = errors.New("until then it failed with")

// lastErrorID names the middleware that sees each try of a request.
const lastErrorID = "noteLastError"

// keepLastError adds to the error of a request whose time is up what the server had answered: the SDK does not.
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

// HTTPClient returns an HTTP client for AWS clients with the settings of the SDK's next, or its defaults if that is
// nil. It keeps as many connections open as a Store has requests in flight, and gives up a server that is silent for
// 30 s at any point of a request or an answer, however long these take in all. (A long poll of SQS takes 20 s.)
func HTTPClient(next aws.HTTPClient) aws.HTTPClient { return httpClient(next, 30*time.Second) }

func httpClient(next aws.HTTPClient, limit time.Duration) aws.HTTPClient {
	client, ok := next.(*awshttp.BuildableClient)
	if !ok {
		client = awshttp.NewBuildableClient()
	}
	// With 10 idle connections, the SDK's default, every further request would make its own: on AWS that is a TLS
	// handshake, three round trips and 1 ms of CPU. Meanwhile net/http begins another for every further one.
	transport := client.GetTransport()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost, transport.MaxConnsPerHost = 0, inFlight, inFlight
	transport.IdleConnTimeout = limit // by the wall clock: a worker that was frozen uses none that it had
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &watchedConn{conn, limit}, nil
	}
	return plainBodies{&http.Client{Transport: transport, CheckRedirect: redirect}}
}

// redirect follows what S3 redirects for a while, as the SDK's own client does.
func redirect(r *http.Request, _ []*http.Request) error {
	if code := r.Response.StatusCode; code == http.StatusTemporaryRedirect || code == http.StatusPermanentRedirect {
		return nil
	}
	return http.ErrUseLastResponse
}

// watchedConn ends a read or a write when the connection was silent for too long. What is written gives the reader
// new time: net/http reads from a connection also while it sends, and the server answers only then.
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

// plainBodies sends bodies without WriteTo. The SDK (smithy-go 1.28) closes a body once the answer's header is there.
// When net/http then checks whether it has more, the closed body's WriteTo returns io.EOF, which net/http takes for a
// failed request: it closes the connection, and an answer that is longer than one read is lost now and then.
type plainBodies struct{ *http.Client }

func (c plainBodies) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	response, err := c.Client.Do(r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.CloseIdleConnections() // they may be as dead: the next try makes a connection of its own
	}
	return response, err
}
