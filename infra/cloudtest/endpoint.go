package cloudtest

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"time"
)

// functionPath is where Lambda's GetFunction asks.
var functionPath = regexp.MustCompile(`^/2015-03-31/functions/[^/]+$`)

// startEndpoint serves AWS's API to tools: moto, with those answers put right
// that moto gives otherwise than AWS.
func startEndpoint(moto string) (*http.Server, string, error) {
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
			if p.Request.Method != http.MethodGet || p.StatusCode != http.StatusOK ||
				!functionPath.MatchString(p.Request.URL.Path) {
				return nil
			}
			return resolveImage(p)
		},
	}
	mux := http.NewServeMux()
	mux.Handle("/", proxy)
	// moto does not know it. The numbers are those of an account that is not new.
	mux.HandleFunc("GET /2016-08-19/account-settings/{$}", accountSettings)
	mux.HandleFunc("GET /2016-08-19/account-settings", accountSettings)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.Serve(l) }()
	return s, "http://" + l.Addr().String(), nil
}

func accountSettings(rw http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(rw, `{"AccountLimit":{"ConcurrentExecutions":1000,"UnreservedConcurrentExecutions":1000}}`)
}

// resolveImage has a function run the image that its URI names by digest. moto
// makes a digest up.
func resolveImage(p *http.Response) error {
	var answer map[string]any
	if err := json.NewDecoder(p.Body).Decode(&answer); err != nil {
		return err
	}
	p.Body.Close()
	if code, ok := answer["Code"].(map[string]any); ok && code["ImageUri"] != nil {
		code["ResolvedImageUri"] = code["ImageUri"]
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	p.Body, p.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	p.Header.Set("Content-Length", strconv.Itoa(len(text)))
	return nil
}
