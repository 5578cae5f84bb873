// Package store keeps what the pipeline makes in the bucket: samples as objects or shards, and the cells and failure
// reports that say what is complete. Workers and the CLI reach the bucket through it alone.
package store

import (
	"cmp"
	"context"
	"encoding/json"
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
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
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

// Manifest reads the manifest of the store's dataset, or returns ErrNotFound.
func (s *Store) Manifest(ctx context.Context) (task.Manifest, error) {
	m, _, err := readJSON[task.Manifest](ctx, s, s.dataset.ManifestKey(), "dataset "+s.dataset.String())
	return m, err
}

// ChangeManifest makes or changes the dataset's manifest, as Change does. what must leave alone what is pinned.
func (s *Store) ChangeManifest(ctx context.Context,
	what func(there *task.Manifest) (*task.Manifest, error)) (task.Manifest, error) {
	return Change(ctx, s, s.dataset.ManifestKey(), what)
}

// ChunkSize returns what the dataset has for a generator, or what it would have.
func (s *Store) ChunkSize(ctx context.Context, generator string) (int, error) {
	m, err := s.Manifest(ctx)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	if g := m.Generator(generator); g != nil {
		return g.ChunkSize, nil
	}
	return task.DefaultChunkSize, nil
}

// Datasets returns the names of all datasets that have a manifest, in order.
func (s *Store) Datasets(ctx context.Context) (list []task.Dataset, err error) {
	names, err := s.names(ctx, task.ManifestKind)
	for _, name := range names {
		if task.CheckName(name) == nil {
			list = append(list, task.Dataset(name))
		}
	}
	return list, err
}

// kinds are those of a dataset's objects, but for its manifest, as they are deleted: receipts first, as none may vouch
// for bytes that are gone, and last those that a worker has written meanwhile.
var kinds = []string{task.ReceiptKind, task.DataKind, task.FailureKind, task.RunKind, task.FlagKind, task.ReceiptKind}

// Holds reports whether there is any object of the store's dataset beside its manifest.
func (s *Store) Holds(ctx context.Context) (bool, error) {
	for _, kind := range kinds {
		for _, err := range s.List(ctx, s.dataset.Prefix(kind), "") {
			return err == nil, err
		}
	}
	return false, nil
}

// DeleteDataset deletes all objects of the store's dataset and its manifest last, so that what was interrupted can go
// on. deleted is called with the number of objects that each request has deleted, 1,000 at most.
func (s *Store) DeleteDataset(ctx context.Context, deleted func(n int)) error {
	for _, kind := range kinds {
		prefix := s.dataset.Prefix(kind)
		for page, err := range s.pages(ctx, s3.ListObjectsV2Input{Prefix: &prefix}) {
			if err != nil {
				return err
			}
			if len(page.Contents) == 0 {
				continue
			}
			var list []types.ObjectIdentifier
			for _, o := range page.Contents {
				list = append(list, types.ObjectIdentifier{Key: o.Key})
			}
			out, err := s.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &s.bucket,
				Delete: &types.Delete{Objects: list, Quiet: aws.Bool(true)}})
			if err != nil {
				return fail("delete", prefix, err)
			}
			for _, e := range out.Errors {
				return fail("delete", aws.ToString(e.Key), errors.New(aws.ToString(e.Message)))
			}
			deleted(len(list))
		}
	}
	return s.Delete(ctx, []string{s.dataset.ManifestKey()})
}

// lockKey is where a lock lies: under the hash that receipts have. Locks belong to no dataset, and stay.
func lockKey(hash string) string { return "locks/" + hash + ".txt" }

// PutLock keeps the text of a lock under its hash, unless it is there.
func (s *Store) PutLock(ctx context.Context, hash string, text []byte) error {
	_, err := s.PutNew(ctx, lockKey(hash), text)
	if errors.Is(err, ErrDamaged) {
		return nil
	}
	return err
}

// Lock reads the text of a lock, or returns ErrNotFound. The caller checks that it is what its hash says.
func (s *Store) Lock(ctx context.Context, hash string) ([]byte, error) {
	return s.Read(ctx, lockKey(hash))
}

// Failure is a failure report: why a chunk, or a message that is no task, failed.
type Failure struct {
	Version      int        `json:"version"`
	Cause        task.Cause `json:"cause"`
	Detail       string     `json:"detail"` // one sentence
	Generator    string     `json:"generator,omitempty"`
	Commit       string     `json:"commit,omitempty"`
	Image        string     `json:"image,omitempty"`
	RunID        string     `json:"run_id,omitempty"`
	Task         task.Task  `json:"task,omitzero"`
	Name         string     `json:"name,omitempty"` // the chunk's part of the key
	Start        int        `json:"start"`
	End          int        `json:"end"`
	ChunkStart   int        `json:"chunk_start"`
	ChunkSize    int        `json:"chunk_size"`
	Seed         int        `json:"seed"`
	Attempt      int        `json:"attempt"`
	Command      []string   `json:"command,omitempty"`
	ExitCode     int        `json:"exit_code"`
	Signal       string     `json:"signal,omitempty"`
	Stdout       string     `json:"stdout,omitempty"` // its end
	Stderr       string     `json:"stderr,omitempty"` // its end
	CPUSeconds   float64    `json:"cpu_seconds"`
	WallSeconds  float64    `json:"wall_seconds"`
	PeakRSSBytes int64      `json:"peak_rss_bytes"`
	MessageID    string     `json:"message_id,omitempty"`
	RequestID    string     `json:"request_id,omitempty"`
	Receives     int        `json:"receives"`
	Message      string     `json:"message,omitempty"` // body of a message that is no task, at most 4 kB
	Time         time.Time  `json:"time"`
}

// Range returns the range of samples that failed.
func (f Failure) Range() task.Range { return task.Range{Start: f.Start, End: f.End} }

// PutFailure writes a failure report and returns its key. A report of the same chunk and delivery is replaced.
func (s *Store) PutFailure(ctx context.Context, f Failure) (string, error) {
	f.Version = 1
	f.Message = strings.ToValidUTF8(f.Message[:min(len(f.Message), 4096)], "")
	// a direct invocation has no message
	key := s.dataset.FailureKey(f.Generator, f.Name, cmp.Or(f.MessageID, f.RequestID), f.Receives)
	body, err := json.Marshal(f)
	if err == nil {
		err = s.put(ctx, key, body)
	}
	if err != nil {
		return "", err
	}
	return key, nil
}

// Failure reads a failure report, or returns ErrNotFound.
func (s *Store) Failure(ctx context.Context, key string) (Failure, error) {
	f, _, err := readJSON[Failure](ctx, s, key, key)
	return f, err
}

// PutRun writes a run down. It fails with ErrExists when the id is taken.
func (s *Store) PutRun(ctx context.Context, r task.Run) error {
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	_, err = s.swap(ctx, s.dataset.RunKey(r.ID), body, "")
	return err
}

// Run reads a run, or returns ErrNotFound.
func (s *Store) Run(ctx context.Context, id string) (task.Run, error) {
	r, _, err := readJSON[task.Run](ctx, s, s.dataset.RunKey(id), "run "+id)
	return r, err
}

// ChangeRun changes a run, as Change does; what reports whether it has changed it.
func (s *Store) ChangeRun(ctx context.Context, id string, what func(*task.Run) (changed bool)) error {
	_, err := Change(ctx, s, s.dataset.RunKey(id), func(r *task.Run) (*task.Run, error) {
		switch {
		case r == nil:
			return nil, fmt.Errorf("run %s: %w", id, ErrNotFound)
		case !what(r):
			return nil, nil
		}
		return r, nil
	})
	return err
}

// Runs returns the ids of all runs, newest first.
func (s *Store) Runs(ctx context.Context) ([]string, error) {
	ids, err := s.names(ctx, s.dataset.Prefix(task.RunKind))
	slices.Reverse(ids)
	return ids, err
}
