package cloudtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Where Lambda's GetFunction, GetEventSourceMapping and ListEventSourceMappings ask.
var (
	functionPath = regexp.MustCompile(`^/2015-03-31/functions/[^/]+$`)
	mappingPath  = regexp.MustCompile(`^/2015-03-31/event-source-mappings/[^/]*$`)
)

// startEndpoint serves AWS's API to tools: moto, with those answers put right
// that moto gives otherwise than AWS.
func startEndpoint(c *Cloud, moto string) (*http.Server, string, error) {
	target, err := url.Parse(moto)
	if err != nil {
		return nil, "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host
		},
		ModifyResponse: func(p *http.Response) error {
			switch path := p.Request.URL.Path; {
			case p.Request.Method != http.MethodGet || p.StatusCode != http.StatusOK:
			case functionPath.MatchString(path):
				return rewrite(p, c.resolveImage)
			case mappingPath.MatchString(path):
				return rewrite(p, c.keepAlias)
			}
			return nil
		},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, q *http.Request) {
		if q.Header.Get("X-Amz-Target") == subscribersTarget {
			c.tellSubscribers(rw, q)
			return
		}
		proxy.ServeHTTP(rw, q)
	})
	accountSettings := func(rw http.ResponseWriter, _ *http.Request) { // moto does not know it
		_, _ = fmt.Fprintf(rw, `{"AccountLimit":{"ConcurrentExecutions":%[1]d,"UnreservedConcurrentExecutions":%[1]d}}`,
			c.quota.Load())
	}
	mux.HandleFunc("GET /2016-08-19/account-settings/{$}", accountSettings)
	mux.HandleFunc("GET /2016-08-19/account-settings", accountSettings)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.Serve(l) }()
	return s, "http://" + l.Addr().String(), nil
}

// resolveImage has a function run the image that its URI names by digest: moto makes
// a digest up, and a version has the image with which it was published.
func (c *Cloud) resolveImage(answer map[string]any) {
	code, ok := answer["Code"].(map[string]any)
	if !ok || code["ImageUri"] == nil {
		return
	}
	if f, ok := answer["Configuration"].(map[string]any); ok {
		if image, ok := c.kept.Load(versionImage(fmt.Sprint(f["FunctionName"]), fmt.Sprint(f["Version"]))); ok {
			code["ImageUri"] = image
		}
	}
	code["ResolvedImageUri"] = code["ImageUri"]
}

// keepAlias has mappings start what they were made for.
func (c *Cloud) keepAlias(answer map[string]any) {
	list, _ := answer["EventSourceMappings"].([]any)
	for _, v := range append(list, answer) {
		mapping, _ := v.(map[string]any)
		function, ok := c.kept.Load(functionOf(fmt.Sprint(mapping["UUID"])))
		if ok && strings.HasPrefix(function.(string), "arn:") {
			mapping["FunctionArn"] = function
		}
	}
}

// rewrite changes an answer.
func rewrite(p *http.Response, change func(answer map[string]any)) error {
	var answer map[string]any
	if err := json.NewDecoder(p.Body).Decode(&answer); err != nil {
		return err
	}
	p.Body.Close()
	change(answer)
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	p.Body, p.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	p.Header.Set("Content-Length", strconv.Itoa(len(text)))
	return nil
}
