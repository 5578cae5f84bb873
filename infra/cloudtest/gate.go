package cloudtest

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// gate stands between the function and moto, which lets everybody do everything:
// it lets through what the function's role allows. It knows the requests that
// the worker makes of S3 and SQS, and denies all others.
type gate struct {
	cloud    *Cloud
	policies []policy
	url      string
	server   *http.Server

	mu      sync.Mutex
	refused []string
}

// request is what IAM decides on.
type request struct {
	action, resource string
	context          map[string]string
}

func startGate(ctx context.Context, c *Cloud, role string) (*gate, error) {
	policies, err := rolePolicies(ctx, c, role)
	if err != nil {
		return nil, err
	}
	target, err := url.Parse(c.moto)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gate{cloud: c, policies: policies, url: "http://" + l.Addr().String()}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host
		},
		ModifyResponse: g.hideMissing,
	}
	g.server = &http.Server{ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
			for _, r := range g.requests(q) {
				if !g.admits(r) {
					deny(rw, q)
					return
				}
			}
			proxy.ServeHTTP(rw, q)
		})}
	go func() { _ = g.server.Serve(l) }()
	return g, nil
}

// admits decides on a request, and remembers what it refuses.
func (g *gate) admits(r request) bool {
	if allows(g.policies, r.action, r.resource, r.context) {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused = append(g.refused, r.action+" "+r.resource)
	return false
}

// denied returns what was refused since the start, or nil.
func (g *gate) denied() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.refused) == 0 {
		return nil
	}
	slices.Sort(g.refused)
	return fmt.Errorf("the function asked for what its role does not allow: %s",
		strings.Join(slices.Compact(g.refused), ", "))
}

const sqsTarget = "AmazonSQS."

// requests returns the actions and resources that an HTTP request asks for.
func (g *gate) requests(q *http.Request) []request {
	if operation, ok := strings.CutPrefix(q.Header.Get("X-Amz-Target"), sqsTarget); ok {
		var in struct{ QueueUrl string }
		body, _ := readBody(q)
		_ = json.Unmarshal(body, &in)
		return []request{{action: "sqs:" + strings.TrimSuffix(operation, "Batch"),
			resource: g.queueARN(q.Context(), in.QueueUrl)}}
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(q.URL.Path, "/"), "/")
	query := q.URL.Query()
	s3 := func(action, key string) request {
		return request{action: "s3:" + action, resource: "arn:aws:s3:::" + bucket + "/" + key}
	}
	switch {
	case key == "" && q.Method == http.MethodGet && query.Has("list-type"):
		return []request{{action: "s3:ListBucket", resource: "arn:aws:s3:::" + bucket,
			context: map[string]string{"s3:prefix": query.Get("prefix")}}}
	case key == "" && q.Method == http.MethodPost && query.Has("delete"):
		var in struct {
			Object []struct{ Key string }
		}
		body, _ := readBody(q)
		_ = xml.Unmarshal(body, &in)
		all := []request{}
		for _, o := range in.Object {
			all = append(all, s3("DeleteObject", o.Key))
		}
		return all
	case key != "" && (q.Method == http.MethodGet || q.Method == http.MethodHead):
		return []request{s3("GetObject", key)}
	case key != "" && (q.Method == http.MethodPut || q.Method == http.MethodPost):
		return []request{s3("PutObject", key)}
	case key != "" && q.Method == http.MethodDelete && query.Has("uploadId"):
		return []request{s3("AbortMultipartUpload", key)}
	case key != "" && q.Method == http.MethodDelete:
		return []request{s3("DeleteObject", key)}
	}
	return []request{{action: "unknown:" + q.Method, resource: q.URL.String()}}
}

func (g *gate) queueARN(ctx context.Context, url string) string {
	out, err := g.cloud.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url,
		AttributeNames: []types.QueueAttributeName{"QueueArn"}})
	if err != nil {
		return ""
	}
	return out.Attributes["QueueArn"]
}

// hideMissing answers 403 where S3 does: who may not list a bucket does not learn
// that an object is missing. S3 checks for a right to list without a prefix, as
// the request for an object has none.
func (g *gate) hideMissing(p *http.Response) error {
	q := p.Request
	bucket, key, _ := strings.Cut(strings.TrimPrefix(q.URL.Path, "/"), "/")
	if p.StatusCode != http.StatusNotFound || key == "" || q.Header.Get("X-Amz-Target") != "" ||
		allows(g.policies, "s3:ListBucket", "arn:aws:s3:::"+bucket, nil) {
		return nil
	}
	p.StatusCode, p.Status = http.StatusForbidden, "403 Forbidden"
	p.Body.Close()
	p.Body, p.ContentLength = io.NopCloser(strings.NewReader(accessDenied)), int64(len(accessDenied))
	p.Header.Set("Content-Length", fmt.Sprint(len(accessDenied)))
	return nil
}

const accessDenied = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

func deny(rw http.ResponseWriter, q *http.Request) {
	if q.Header.Get("X-Amz-Target") != "" {
		rw.Header().Set("X-Amzn-Errortype", "AccessDenied")
		rw.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(rw, `{"__type":"com.amazon.coral.service#AccessDeniedException","message":"not authorized"}`)
		return
	}
	rw.WriteHeader(http.StatusForbidden)
	_, _ = io.WriteString(rw, accessDenied)
}

// readBody reads a body and leaves it to be read again.
func readBody(q *http.Request) ([]byte, error) {
	body, err := io.ReadAll(q.Body)
	q.Body = io.NopCloser(bytes.NewReader(body))
	return body, err
}
