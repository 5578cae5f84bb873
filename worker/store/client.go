package store

import (
	"context"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
)

// LoadConfig returns the configuration of every AWS client of the pipeline: the
// SDK's default chain (environment, shared files, roles) with a region.
func LoadConfig(ctx context.Context, region string) (aws.Config, error) {
	c, err := config.LoadDefaultConfig(ctx, config.WithRegion(region))
	c.HTTPClient = HTTPClient(c.HTTPClient)
	return c, err
}

// HTTPClient returns an HTTP client for AWS clients that sends through next, or
// through the SDK's own if that is nil. The SDK's keeps as many connections open as
// a Store has requests in flight.
//
// The SDK (smithy-go 1.28) closes a request's body once the answer's header is
// there. When net/http then looks whether the body has more, as it does after
// sending it, the closed body's WriteTo says io.EOF, which net/http takes for a
// failed request: it closes the connection while the answer is being read. An
// answer that is quick and longer than one read is lost that way now and then,
// and with an answer of ReceiveMessage the messages in it, until their
// visibility ends. Without WriteTo the end of a body is no error.
func HTTPClient(next aws.HTTPClient) aws.HTTPClient {
	if next == nil {
		next = awshttp.NewBuildableClient()
	}
	if client, ok := next.(*awshttp.BuildableClient); ok {
		// By default it keeps 10. Every further request of 32 would make its own: on
		// AWS that is a TLS handshake, three round trips and 1 ms of CPU.
		next = client.WithTransportOptions(func(t *http.Transport) { t.MaxIdleConnsPerHost = Parallel })
	}
	return plainBodies{next}
}

type plainBodies struct{ next aws.HTTPClient }

func (c plainBodies) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return c.next.Do(r)
}
