// Package store keeps what the pipeline makes in the bucket: samples as objects or shards, and the cells and failure
// reports that say what is complete. Workers and the CLI reach the bucket through it alone.
package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

var (
	// ErrExists says that an object is there which may be written only once, or was changed since it was read.
	ErrExists = errors.New("exists already")
	// ErrNotFound says that there is no such object.
	ErrNotFound = errors.New("not found")
	// ErrDamaged says that an object is there and is not what was written.
	ErrDamaged = errors.New("it is not what was written there")
)

// Error is a request to the bucket that failed. Errors of other origin, as of the disk, are returned as they are.
type Error struct {
	Op  string
	Key string
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Key, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Parallel is how many requests one call keeps in flight: enough to hide latency, few enough for Lambda's 1,024 files.
const Parallel = 32

// inFlight is how many requests the calls of a Store keep in flight together, and how many connections there are:
// those of as many chunks as Lambda has CPUs. A slow bucket has more to store, with a file open for each.
const inFlight = 6 * Parallel

// Store is one dataset in a bucket. It is safe for concurrent use.
type Store struct {
	client   *s3.Client
	bucket   string
	dataset  task.Dataset
	inFlight *semaphore.Weighted
	buffers  *sync.Pool // *[]byte, of uploads that were sent
}

// New returns the store of the default dataset in a bucket. Give the client ClientOptions.
func New(client *s3.Client, bucket string) *Store {
	return &Store{client: client, bucket: bucket, inFlight: semaphore.NewWeighted(inFlight),
		buffers: &sync.Pool{New: func() any { return new(make([]byte, 0, PartSize)) }}}
}

// In returns the store of a dataset in the same bucket.
func (s *Store) In(d task.Dataset) *Store {
	other := *s
	other.dataset = d
	return &other
}

// Dataset returns the name of the store's dataset.
func (s *Store) Dataset() task.Dataset { return s.dataset }

// ClientOptions sets what every S3 client of the pipeline needs: LimitedRetries, unless the configuration has others
// of this package, and path-style addresses where an endpoint of its own is configured, which has no name per bucket.
func ClientOptions(o *s3.Options) {
	o.UsePathStyle = o.BaseEndpoint != nil
	if _, ours := o.Retryer.(*retryer); !ours {
		o.Retryer = LimitedRetries()
	}
	o.APIOptions = append(o.APIOptions, keepLastError)
	// As in a configuration that is loaded: one made by hand checks nothing that is read.
	o.ResponseChecksumValidation = cmp.Or(o.ResponseChecksumValidation, aws.ResponseChecksumValidationWhenSupported)
	o.RequestChecksumCalculation = cmp.Or(o.RequestChecksumCalculation, aws.RequestChecksumCalculationWhenSupported)
	o.DisableLogOutputChecksumValidationSkipped = true // a shard uploaded in parts has no checksum of the whole
}

// Bucket returns the bucket's name.
func (s *Store) Bucket() string { return s.bucket }

// Probe writes, reads and deletes an object, to find out whether these credentials can.
func (s *Store) Probe(ctx context.Context, id string) error {
	key := task.ManifestKind + "_probe/" + id // no dataset has such a name
	if err := s.put(ctx, key, []byte(id)); err != nil {
		return err
	}
	back, err := s.Read(ctx, key)
	if err == nil && string(back) != id {
		err = fmt.Errorf("read %s: it is %q, %q was written", key, back, id)
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

// fail wraps an error of a request, which is ErrNotFound where there is nothing to read.
func fail(op, key string, err error) error {
	switch {
	case err == nil:
		return nil
	case (op == "read" || op == "head") && status(err) == http.StatusNotFound:
		return fmt.Errorf("%s: %w", key, ErrNotFound)
	}
	return &Error{Op: op, Key: key, Err: err}
}

func status(err error) int {
	if response, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		return response.HTTPStatusCode()
	}
	return 0
}

// List returns the objects below a prefix, after a key if one is given, in the order of their keys, 1,000 a request.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for page, err := range s.pages(ctx, s3.ListObjectsV2Input{Prefix: &prefix, StartAfter: &after}) {
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

func (s *Store) pages(ctx context.Context, in s3.ListObjectsV2Input) iter.Seq2[*s3.ListObjectsV2Output, error] {
	return func(yield func(*s3.ListObjectsV2Output, error) bool) {
		if in.Bucket = &s.bucket; aws.ToString(in.StartAfter) == "" {
			in.StartAfter = nil
		}
		pages := s3.NewListObjectsV2Paginator(s.client, &in)
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if !yield(page, fail("list", *in.Prefix, err)) || err != nil {
				return
			}
		}
	}
}

// names returns the names, in order, of the JSON objects below a prefix.
func (s *Store) names(ctx context.Context, prefix string) (names []string, err error) {
	for o, err := range s.List(ctx, prefix, "") {
		if err != nil {
			return nil, err
		}
		if name, ok := strings.CutSuffix(strings.TrimPrefix(o.Key, prefix), ".json"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Folders returns the names that stand directly below a prefix, as the generators below a dataset's samples.
func (s *Store) Folders(ctx context.Context, prefix string) (names []string, err error) {
	for page, err := range s.pages(ctx, s3.ListObjectsV2Input{Prefix: &prefix, Delimiter: aws.String("/")}) {
		if err != nil {
			return nil, err
		}
		for _, p := range page.CommonPrefixes {
			names = append(names, strings.TrimSuffix(strings.TrimPrefix(aws.ToString(p.Prefix), prefix), "/"))
		}
	}
	return names, nil
}

// Delete deletes objects; one that is not there is no error.
func (s *Store) Delete(ctx context.Context, keys []string) error {
	return s.each(ctx, len(keys), func(ctx context.Context, i int) error {
		_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: &keys[i]})
		// S3 takes the second of two deletes for done; other servers may not when both come at once.
		if e, ok := errors.AsType[smithy.APIError](err); ok && e.ErrorCode() == "NoSuchKey" {
			return nil
		}
		return fail("delete", keys[i], err)
	})
}

// each calls do for 0 to n-1, some at a time, and returns the first error. One goroutine makes many calls: each new
// one would have to grow its stack for the depth of the SDK, a twentieth of what a put takes.
func (s *Store) each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(n, Parallel) {
		group.Go(func() error {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				err := s.inFlight.Acquire(ctx, 1)
				if err == nil {
					err = do(ctx, int(i))
					s.inFlight.Release(1)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}
