package worker

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// bucket is the model of a bucket: what the worker asks of S3, in memory. One
// request is executed at a time. TestBucketModel compares it with the gateway of
// the local stack.
type bucket struct {
	objects  map[string][]byte
	pageSize int
	ahead    time.Duration // its clock
	repaired map[int]bool  // indices of which receipts may be wrong for a while
}

type listing struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
	Contents              []listed
	CommonPrefixes        []folded
}

type folded struct{ Prefix string }

type listed struct {
	Key  string
	Size int
}

// do executes one request on /bucket/key.
func (b *bucket) do(r *http.Request, body []byte) *http.Response {
	key := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/bucket"), "/")
	switch {
	case r.Method == http.MethodGet && key == "":
		return b.list(r)
	case r.Method == http.MethodGet:
		data, there := b.objects[key]
		if !there {
			return b.answer(r, http.StatusNotFound, []byte(`<Error><Code>NoSuchKey</Code><Message>none</Message></Error>`))
		}
		return b.answer(r, http.StatusOK, data)
	case r.Method == http.MethodPut:
		if want := r.Header.Get("X-Amz-Checksum-Sha256"); want != "" {
			if sum := sha256.Sum256(body); base64.StdEncoding.EncodeToString(sum[:]) != want {
				return b.answer(r, http.StatusBadRequest, []byte(`<Error><Code>BadDigest</Code><Message>other bytes</Message></Error>`))
			}
		}
		if _, there := b.objects[key]; there && r.Header.Get("If-None-Match") == "*" {
			return b.answer(r, http.StatusPreconditionFailed, []byte(`<Error><Code>PreconditionFailed</Code><Message>there is one</Message></Error>`))
		}
		b.objects[key] = body
		return b.answer(r, http.StatusOK, nil)
	case r.Method == http.MethodDelete:
		delete(b.objects, key)
		return b.answer(r, http.StatusNoContent, nil)
	}
	return b.answer(r, http.StatusNotImplemented, []byte(fmt.Sprintf(`<Error><Code>NotImplemented</Code><Message>%s %s</Message></Error>`, r.Method, r.URL)))
}

func (b *bucket) list(r *http.Request) *http.Response {
	q := r.URL.Query()
	after := max(q.Get("start-after"), q.Get("continuation-token"))
	var page listing
	last := ""
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		rest, ok := strings.CutPrefix(key, q.Get("prefix"))
		if !ok || key <= after || last != "" && strings.HasPrefix(key, last) && q.Get("delimiter") != "" && strings.HasSuffix(last, "/") {
			continue
		}
		if len(page.Contents)+len(page.CommonPrefixes) == b.pageSize {
			page.IsTruncated, page.NextContinuationToken = true, last
			if strings.HasSuffix(last, "/") {
				page.NextContinuationToken += "~" // behind all that is in the folder
			}
			break
		}
		if folder, _, in := strings.Cut(rest, q.Get("delimiter")); in && q.Get("delimiter") != "" {
			last = q.Get("prefix") + folder + "/"
			page.CommonPrefixes = append(page.CommonPrefixes, folded{last})
			continue
		}
		last = key
		page.Contents = append(page.Contents, listed{key, len(b.objects[key])})
	}
	text, _ := xml.Marshal(page)
	return b.answer(r, http.StatusOK, text)
}

func (b *bucket) answer(r *http.Request, status int, body []byte) *http.Response {
	h := http.Header{"Date": {time.Now().Add(b.ahead).UTC().Format(http.TimeFormat)}, "Content-Length": {strconv.Itoa(len(body))}, "Content-Type": {"application/xml"}}
	if status == http.StatusNoContent {
		h.Del("Content-Length")
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r}
}
