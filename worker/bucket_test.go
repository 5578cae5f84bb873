package worker

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"pgregory.net/rapid"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// parsed is a cell with the text that it was read from.
type parsed struct {
	text []byte
	cell *store.Cell
}

// bucket is the model of a bucket: what the worker asks of S3, in memory. One
// request is executed at a time. TestBucketModel compares it with the gateway of
// the local stack.
type bucket struct {
	objects  map[string][]byte
	pageSize int
	ahead    time.Duration        // its clock
	written  map[string]time.Time // by its clock
	unsure   map[place]bool       // samples that a test has damaged
	parsed   map[string]parsed    // cells by key: reading them again takes most of a check
}

// place is one sample of a dataset.
type place struct {
	dataset string
	index   int
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
	Key          string
	Size         int
	ETag         string
	LastModified time.Time
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
		answer := b.answer(r, http.StatusOK, data)
		answer.Header.Set("ETag", etag(data))
		answer.Header.Set("Last-Modified", b.modified(key).Format(http.TimeFormat))
		return answer
	case r.Method == http.MethodPut:
		if want := r.Header.Get("X-Amz-Checksum-Sha256"); want != "" {
			if sum := sha256.Sum256(body); base64.StdEncoding.EncodeToString(sum[:]) != want {
				return b.answer(r, http.StatusBadRequest,
					[]byte(`<Error><Code>BadDigest</Code><Message>other bytes</Message></Error>`))
			}
		}
		if _, there := b.objects[key]; there && r.Header.Get("If-None-Match") == "*" {
			return b.answer(r, http.StatusPreconditionFailed,
				[]byte(`<Error><Code>PreconditionFailed</Code><Message>there is one</Message></Error>`))
		}
		if tag := r.Header.Get("If-Match"); tag != "" {
			there, ok := b.objects[key]
			switch {
			case !ok:
				return b.answer(r, http.StatusNotFound, []byte(`<Error><Code>NoSuchKey</Code><Message>none</Message></Error>`))
			case etag(there) != tag:
				return b.answer(r, http.StatusPreconditionFailed,
					[]byte(`<Error><Code>PreconditionFailed</Code><Message>another</Message></Error>`))
			}
		}
		b.objects[key] = body
		if b.written == nil {
			b.written = map[string]time.Time{}
		}
		b.written[key] = b.now()
		answer := b.answer(r, http.StatusOK, nil)
		answer.Header.Set("ETag", etag(body))
		return answer
	case r.Method == http.MethodDelete:
		delete(b.objects, key)
		return b.answer(r, http.StatusNoContent, nil)
	}
	return b.answer(r, http.StatusNotImplemented,
		[]byte(fmt.Sprintf(`<Error><Code>NotImplemented</Code><Message>%s %s</Message></Error>`, r.Method, r.URL)))
}

func (b *bucket) now() time.Time { return time.Now().Add(b.ahead).UTC() }

// modified is when an object was written: a test may have put it there.
func (b *bucket) modified(key string) time.Time {
	if at, ok := b.written[key]; ok {
		return at
	}
	return b.now()
}

func etag(data []byte) string { return fmt.Sprintf(`"%x"`, md5.Sum(data)) }

func (b *bucket) list(r *http.Request) *http.Response {
	q := r.URL.Query()
	after := max(q.Get("start-after"), q.Get("continuation-token"))
	var page listing
	last := ""
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		rest, ok := strings.CutPrefix(key, q.Get("prefix"))
		if !ok || key <= after || last != "" && strings.HasPrefix(key, last) && q.Get("delimiter") != "" &&
			strings.HasSuffix(last, "/") {
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
		page.Contents = append(page.Contents, listed{key, len(b.objects[key]), etag(b.objects[key]), b.modified(key)})
	}
	text, _ := xml.Marshal(page)
	return b.answer(r, http.StatusOK, text)
}

func (b *bucket) answer(r *http.Request, status int, body []byte) *http.Response {
	h := http.Header{"Date": {b.now().Format(http.TimeFormat)}, "Content-Length": {strconv.Itoa(len(body))},
		"Content-Type": {"application/xml"}}
	if status == http.StatusNoContent {
		h.Del("Content-Length")
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1,
		ProtoMinor: 1, Header: h,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r}
}

// inMemory sends requests to the model.
type inMemory struct{ bucket *bucket }

func (m inMemory) Do(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	return m.bucket.do(r, body), nil
}

// The model answers as the gateway of the local stack does, to what the store
// asks of either.
func TestBucketModel(t *testing.T) {
	server := s3test.New(t)
	cases := 0
	rapid.Check(t, func(t *rapid.T) {
		cases++
		root := fmt.Sprintf("case-%d/", cases)
		model := &bucket{objects: map[string][]byte{}, pageSize: 1000}
		both := map[string]*s3.Client{"model": s3test.Client("http://bucket", inMemory{model}),
			"gateway": server.Client(nil)}
		key := func() *string { // none is another one's folder: the gateway keeps files
			return aws.String(root + rapid.SampledFrom([]string{"a", "a_1.tar", "a_1/x", "a_1/y", "a_2/x", "b"}).Draw(t, "key"))
		}
		for range rapid.IntRange(1, 20).Draw(t, "requests") {
			var ask func(c *s3.Client) string
			switch k := key(); rapid.IntRange(0, 3).Draw(t, "operation") {
			case 0:
				in := &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: k}
				text := rapid.StringMatching(`[xy]{0,3}`).Draw(t, "text")
				switch rapid.IntRange(0, 2).Draw(t, "condition") {
				case 1:
					in.IfNoneMatch = aws.String("*")
				case 2: // as it is, or as it might have been
					in.IfMatch = aws.String(etag([]byte(rapid.StringMatching(`[xy]{0,1}`).Draw(t, "match"))))
				}
				ask = func(c *s3.Client) string {
					in := *in
					in.Body = strings.NewReader(text)
					out, err := c.PutObject(context.Background(), &in)
					if err != nil {
						return said(err)
					}
					return aws.ToString(out.ETag)
				}
			case 1:
				ask = func(c *s3.Client) string {
					out, err := c.GetObject(context.Background(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: k})
					if err != nil {
						return said(err)
					}
					defer out.Body.Close()
					text, err := io.ReadAll(out.Body)
					// Its time tells, beside that of the answer, how old it is.
					age := time.Since(aws.ToTime(out.LastModified))
					return fmt.Sprintf("%s %v %s, new: %t", text, err, aws.ToString(out.ETag), age > -time.Minute &&
						age < 10*time.Minute)
				}
			case 2:
				ask = func(c *s3.Client) string {
					_, err := c.DeleteObject(context.Background(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: k})
					return said(err)
				}
			case 3:
				in := &s3.ListObjectsV2Input{Bucket: aws.String("bucket"),
					Prefix: aws.String(root + rapid.SampledFrom([]string{"", "a", "a_", "a_1/"}).Draw(t, "prefix"))}
				if rapid.Bool().Draw(t, "after") { // a folder's beginning at most, as the store asks
					in.StartAfter = aws.String(root + rapid.SampledFrom([]string{"a", "a_1", "a_2", "b"}).Draw(t, "start after"))
				}
				if rapid.Bool().Draw(t, "folders") {
					in.Delimiter = aws.String("/")
				}
				model.pageSize = rapid.IntRange(1, 4).Draw(t, "page size")
				in.MaxKeys = aws.Int32(int32(model.pageSize))
				ask = func(c *s3.Client) string {
					var list []string
					for pages := s3.NewListObjectsV2Paginator(c, in); pages.HasMorePages(); {
						page, err := pages.NextPage(context.Background())
						if err != nil {
							return said(err)
						}
						for _, o := range page.Contents {
							list = append(list, fmt.Sprint(aws.ToString(o.Key), aws.ToInt64(o.Size), aws.ToString(o.ETag)))
						}
						for _, f := range page.CommonPrefixes {
							list = append(list, aws.ToString(f.Prefix))
						}
					}
					slices.Sort(list)
					return fmt.Sprint(list)
				}
			}
			if model, gateway := ask(both["model"]), ask(both["gateway"]); model != gateway {
				t.Fatalf("the model says %s, the gateway %s", model, gateway)
			}
		}
	})
}

// said is the code of an answer that was an error.
func said(err error) string {
	var answer smithy.APIError
	if errors.As(err, &answer) {
		return answer.ErrorCode()
	}
	return fmt.Sprint(err)
}
