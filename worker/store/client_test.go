package store_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// slowWrites returns from the write of a body only when the answer is being
// read, as a busy machine does.
type slowWrites struct {
	net.Conn
	answered <-chan struct{}
}

func (c slowWrites) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if bytes.HasPrefix(p, []byte("the body")) {
		<-c.answered
	}
	return n, err
}

// reading says when the answer is read for the first time, and gives the other
// side time to close the connection.
type reading struct {
	io.ReadCloser
	once func()
}

func (r reading) Read(p []byte) (int, error) {
	r.once()
	return r.ReadCloser.Read(p)
}

type doer func(*http.Request) (*http.Response, error)

func (d doer) Do(r *http.Request) (*http.Response, error) { return d(r) }

// An answer that is quicker than the request's own end is read to its end.
func TestQuickAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/xml")
		_, _ = io.WriteString(w, "<Error><Code>Whole</Code><Message>"+strings.Repeat("x", 20_000)+"</Message></Error>")
	}))
	defer server.Close()
	answered := make(chan struct{})
	network := awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) {
		tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, address)
			return slowWrites{c, answered}, err
		}
	})
	slow := doer(func(r *http.Request) (*http.Response, error) {
		response, err := network.Do(r)
		if err == nil {
			response.StatusCode = http.StatusBadRequest // its body is read whole
			response.Body = reading{response.Body, sync.OnceFunc(func() {
				close(answered)
				time.Sleep(50 * time.Millisecond)
			})}
		}
		return response, err
	})
	client := s3.New(s3.Options{BaseEndpoint: &server.URL, Region: "us-east-2", HTTPClient: store.HTTPClient(slow),
		RetryMaxAttempts: 1,
		Credentials:      credentials.NewStaticCredentialsProvider("a", "b", ""), UsePathStyle: true})
	bucket, key := "b", "k"
	_, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key,
		Body: strings.NewReader("the body")})
	if err == nil || !strings.Contains(err.Error(), "Whole") {
		t.Errorf("the answer was lost: %.300v", err)
	}
}
