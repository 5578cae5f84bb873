// Package store keeps what the pipeline makes in the bucket: samples as objects
// or shards, and the cells and failure reports that say what is complete. Workers and the CLI reach the bucket
// through it alone.
package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

var (
	// ErrExists says that an object which may be written only once is there, or that
	// somebody else has changed one since it was read.
	ErrExists = errors.New("exists already")
	// ErrNotFound says that there is no such object.
	ErrNotFound = errors.New("not found")
	// ErrDamaged says that an object is there and is not what was written.
	ErrDamaged = errors.New("it is not what was written there")
)

// Error says what the bucket did not do. Errors of other origin (the disk, an
// ended context) are returned as they are.
type Error struct {
	Op  string
	Key string
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Key, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Parallel is how many requests one call keeps in flight: enough to hide 30 ms
// of latency behind a chunk's hundred files, few enough for Lambda's 1,024 open
// files.
const Parallel = 32

// inFlight is how many objects a Store puts or deletes at once, whatever the number
// of calls, and how many connections there are: those of as many chunks as Lambda
// has CPUs. A large task has more chunks to store when the bucket is slow, and each
// object that is put has a file open.
const inFlight = 6 * Parallel

// Store is one dataset in a bucket. It is safe for concurrent use.
type Store struct {
	client  *s3.Client
	bucket  string
	dataset task.Dataset
	slots   chan struct{} // of what is in flight
	buffers *sync.Pool    // *[]byte, of shards that were sent
}

// New returns the store of the default dataset in a bucket. Give the client
// ClientOptions.
func New(client *s3.Client, bucket string) *Store {
	return &Store{client: client, bucket: bucket, slots: make(chan struct{}, inFlight), buffers: &sync.Pool{}}
}

// In returns the store of a dataset in the same bucket.
func (s *Store) In(d task.Dataset) *Store {
	other := *s
	other.dataset = d
	return &other
}

// Dataset returns the name of the store's dataset.
func (s *Store) Dataset() task.Dataset { return s.dataset }

// ClientOptions sets what every S3 client of the pipeline needs: retries without
// the SDK's quota, LimitedRetries unless the configuration has others of this
// package, and path-style addresses where an endpoint of its own is configured,
// which has no name per bucket.
func ClientOptions(o *s3.Options) {
	o.UsePathStyle = o.BaseEndpoint != nil
	if _, ours := o.Retryer.(*retryer); !ours {
		o.Retryer = LimitedRetries()
	}
	o.APIOptions = append(o.APIOptions, tellRefusal)
	// As in a configuration that is loaded: one made by hand checks nothing that is read.
	if o.ResponseChecksumValidation == aws.ResponseChecksumValidationUnset {
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
	}
	if o.RequestChecksumCalculation == aws.RequestChecksumCalculationUnset {
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
	}
	o.DisableLogOutputChecksumValidationSkipped = true // a shard uploaded in parts has no checksum of the whole
}

// Bucket returns the bucket's name.
func (s *Store) Bucket() string { return s.bucket }

// Probe writes, reads and deletes an object, to find out whether these
// credentials can. No reader of the bucket takes it for anything.
func (s *Store) Probe(ctx context.Context, id string) error {
	key := task.ManifestKind + "_probe/" + id // no dataset has such a name
	if err := s.put(ctx, key, []byte(id)); err != nil {
		return err
	}
	back, err := s.read(ctx, key)
	if err == nil && string(back.text) != id {
		err = fmt.Errorf("read %s: it is %q, %q was written", key, back.text, id)
	}
	return errors.Join(err, s.Delete(ctx, []string{key}))
}

// Object is one object of the bucket.
type Object struct {
	Key    string `json:"key"`
	Size   int64  `json:"size"`             // bytes
	SHA256 string `json:"sha256,omitempty"` // hexadecimal

	Modified time.Time `json:"-"` // by the store's clock, of one that was listed or read
	etag     string
}

// fail wraps an error of a request. What the context's end caused stays
// recognisable by errors.Is.
func fail(op, key string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Key: key, Err: err}
}

func status(err error) int {
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

// put stores a small object.
func (s *Store) put(ctx context.Context, key string, text []byte) error {
	_, err := s.putObject(ctx, sum(text), smallObject(key, text))
	return fail("put", key, err)
}

func smallObject(key string, text []byte) *s3.PutObjectInput {
	return &s3.PutObjectInput{Key: &key, Body: bytes.NewReader(text), ContentType: aws.String(contentType(key))}
}

func sum(text []byte) []byte {
	hash := sha256.Sum256(text)
	return hash[:]
}

// refused reports whether a conditional put was answered that its condition does not
// hold, or that another put came between.
func refused(err error) bool {
	code := status(err)
	return code == http.StatusPreconditionFailed || code == http.StatusConflict || code == http.StatusNotFound
}

// swap stores a small object in the place of the one with an ETag, or where there is
// none. It fails with ErrExists if another is there, and returns that.
//
// The answer can be lost and the request sent again, by us or by the SDK: then the
// second one finds what the first has written. So a refusal is resolved by reading: if
// our own bytes are there, the put has succeeded. For that no two puts may be alike.
func (s *Store) swap(ctx context.Context, key string, text []byte, etag string) (content, error) {
	in := smallObject(key, text)
	if etag == "" {
		in.IfNoneMatch = aws.String("*")
	} else {
		in.IfMatch = &etag
	}
	own := content{Object: Object{Key: key, Size: int64(len(text))}, text: text}
	var err error
	if own.etag, err = s.putObject(ctx, sum(text), in); err == nil {
		return own, nil
	}
	there, readErr := s.read(ctx, key)
	switch {
	case readErr == nil && bytes.Equal(there.text, text):
		return there, nil
	case readErr == nil && refused(err):
		return there, fmt.Errorf("%s: %w", key, ErrExists)
	case errors.Is(readErr, ErrDamaged):
		return there, readErr
	}
	return content{}, fail("put", key, err)
}

// putObject puts an object whose SHA-256 is known. The store refuses bytes that do
// not fit it. It is signed, too: the SDK would read the body once more for that,
// and over TLS leave it out.
func (s *Store) putObject(ctx context.Context, sum []byte, in *s3.PutObjectInput) (etag string, err error) {
	in.Bucket, in.ChecksumSHA256 = &s.bucket, aws.String(base64.StdEncoding.EncodeToString(sum))
	out, err := s.client.PutObject(ctx, in, s3.WithAPIOptions(func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("payloadHash",
			func(ctx context.Context, in middleware.InitializeInput,
				next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				return next.HandleInitialize(v4.SetPayloadHash(ctx, hex.EncodeToString(sum)), in)
			}), middleware.Before)
	}))
	if err != nil {
		return "", err
	}
	return aws.ToString(out.ETag), nil
}

// damagedTries is how often a small object is read that is not what its checksum
// says: it may be damaged on the way.
const damagedTries = 3

// content is a small object as it was read.
type content struct {
	Object
	text []byte
	now  time.Time // of the answer, by the store's clock
}

// read returns a small object, checked against the store's checksum, or
// ErrNotFound or ErrDamaged. The SDK tries a request again, not the reading of its
// answer, which may be cut off: that is as any other error of the network.
func (s *Store) read(ctx context.Context, key string) (content, error) {
	retries := s.client.Options().Retryer
	for try := 1; ; try++ {
		body, o, err := s.get(ctx, key)
		if err != nil {
			return content{}, err
		}
		o.text, err = io.ReadAll(body)
		body.Close()
		if err == nil {
			return o, nil
		}
		// all of it came, so the checksum is wrong: the SDK has no type for that
		damaged := ctx.Err() == nil && int64(len(o.text)) == o.Size
		if damaged && try >= damagedTries {
			return content{}, fail("read", key, ErrDamaged)
		}
		if ctx.Err() != nil || !damaged && (!retries.IsErrorRetryable(err) || try >= retries.MaxAttempts()) {
			return content{}, fail("read", key, err)
		}
		delay, last := retries.RetryDelay(try, err)
		if last != nil {
			return content{}, fail("read", key, err)
		}
		select {
		case <-ctx.Done():
			return content{}, fail("read", key, fmt.Errorf("%w; %w: %w", ctx.Err(), ErrRefused, err))
		case <-time.After(delay):
		}
	}
}

func (s *Store) readJSON(ctx context.Context, key string, to any) error {
	o, err := s.read(ctx, key)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(o.text, to); err != nil {
		return fail("read", key, fmt.Errorf("%w: %w", ErrDamaged, err))
	}
	return nil
}

// changeJSON changes a small object, whoever else does so at the same time. what
// is called with what is there, or nil, until it returns nil, which leaves it so, or
// until what it returns is stored.
func changeJSON[T any](ctx context.Context, s *Store, key string, what func(there *T) (*T, error)) error {
	const tries = 20
	for try := 1; ; try++ {
		o, err := s.read(ctx, key)
		var there *T
		if err == nil {
			there = new(T)
			if err := json.Unmarshal(o.text, there); err != nil {
				return fail("read", key, fmt.Errorf("%w: %w", ErrDamaged, err))
			}
		} else if absent, err := s.absent(ctx, key, err); !absent {
			return err
		}
		next, err := what(there)
		if err != nil || next == nil {
			return err
		}
		text, err := json.MarshalIndent(next, "", "  ")
		if err != nil {
			return err
		}
		_, err = s.swap(ctx, key, text, o.etag)
		if !errors.Is(err, ErrExists) || try == tries {
			return err
		}
	}
}

// absent reports whether an error of reading an object means that it is not there.
// S3 answers 403, and not 404, to who may list only below some prefixes, as a
// worker may: then a listing tells.
func (s *Store) absent(ctx context.Context, key string, err error) (bool, error) {
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	if status(err) != http.StatusForbidden {
		return false, err
	}
	for o, e := range s.List(ctx, key, "") {
		if e != nil || o.Key == key {
			return false, err
		}
	}
	return true, nil
}

// Get opens an object, or returns ErrNotFound. The size is the store's word. What
// is read is not checked: the caller has a hash of its own.
func (s *Store) Get(ctx context.Context, key string) (io.ReadCloser, Object, error) {
	body, o, err := s.get(ctx, key,
		func(o *s3.Options) { o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired })
	return body, o.Object, err
}

func (s *Store) get(ctx context.Context, key string, options ...func(*s3.Options)) (io.ReadCloser, content, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: &key}, options...)
	if err != nil {
		var none *types.NoSuchKey
		if errors.As(err, &none) || status(err) == http.StatusNotFound {
			return nil, content{}, fmt.Errorf("%s: %w", key, ErrNotFound)
		}
		return nil, content{}, fail("get", key, err)
	}
	o := content{Object: Object{Key: key, Size: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified),
		etag: aws.ToString(out.ETag)}, now: time.Now()}
	if t, ok := awsmiddleware.GetServerTime(out.ResultMetadata); ok { // a bucket of somebody's own may have no Date
		o.now = t
	}
	return out.Body, o, nil
}

// Head asks for an object without reading it, or returns ErrNotFound. The hash is
// what the store checked when the object was put; it is empty for one that came
// in parts.
func (s *Store) Head(ctx context.Context, key string) (Object, error) {
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: &key,
		ChecksumMode: types.ChecksumModeEnabled})
	if err != nil {
		if status(err) == http.StatusNotFound {
			return Object{}, fmt.Errorf("%s: %w", key, ErrNotFound)
		}
		return Object{}, fail("head", key, err)
	}
	o := Object{Key: key, Size: aws.ToInt64(out.ContentLength)}
	if sum, err := base64.StdEncoding.DecodeString(aws.ToString(out.ChecksumSHA256)); err == nil &&
		len(sum) == sha256.Size {
		o.SHA256 = hex.EncodeToString(sum)
	}
	return o, nil
}

// List returns the objects below a prefix in the order of their keys, those
// after a key if one is given. It asks for 1,000 at a time.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for page, err := range s.pages(ctx, prefix, after) {
			if err != nil {
				yield(Object{}, err)
				return
			}
			for _, o := range page.Contents {
				if !yield(Object{Key: aws.ToString(o.Key), Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified),
					etag: aws.ToString(o.ETag)}, nil) {
					return
				}
			}
		}
	}
}

func (s *Store) pages(ctx context.Context, prefix, after string) iter.Seq2[*s3.ListObjectsV2Output, error] {
	return func(yield func(*s3.ListObjectsV2Output, error) bool) {
		in := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: &prefix}
		if after != "" {
			in.StartAfter = &after
		}
		pages := s3.NewListObjectsV2Paginator(s.client, in)
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if !yield(page, fail("list", prefix, err)) || err != nil {
				return
			}
		}
	}
}

// Folders returns the names that stand directly below a prefix: the generators
// below a dataset's samples, for example.
func (s *Store) Folders(ctx context.Context, prefix string) ([]string, error) {
	var names []string
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: &prefix,
		Delimiter: aws.String("/")})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fail("list", prefix, err)
		}
		for _, p := range page.CommonPrefixes {
			names = append(names, strings.TrimSuffix(strings.TrimPrefix(aws.ToString(p.Prefix), prefix), "/"))
		}
	}
	return names, nil
}

// Delete deletes objects; one that is not there is no error.
func (s *Store) Delete(ctx context.Context, keys []string) error {
	return each(ctx, len(keys), func(ctx context.Context, i int) error {
		if err := s.enter(ctx); err != nil {
			return err
		}
		defer s.leave()
		_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: &keys[i]})
		// S3 takes the second of two deletes for done; other servers may not when both come at once.
		if e, ok := errors.AsType[smithy.APIError](err); ok && e.ErrorCode() == "NoSuchKey" {
			return nil
		}
		return fail("delete", keys[i], err)
	})
}

// enter waits for a slot, which leave gives back.
func (s *Store) enter(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) leave() { <-s.slots }

// each calls do for 0 to n-1, some at a time, and returns the first error. One
// goroutine makes many calls: each new one would have to grow its stack for the
// depth of the SDK, a twentieth of what a put takes.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(n, Parallel) {
		group.Go(func() error {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := do(ctx, int(i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}
