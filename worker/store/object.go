package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func (s *Store) put(ctx context.Context, key string, text []byte) error {
	_, err := s.putText(ctx, key, text, &s3.PutObjectInput{})
	return fail("put", key, err)
}

func (s *Store) putText(ctx context.Context, key string, text []byte, in *s3.PutObjectInput) (etag string, err error) {
	in.Key, in.Body, in.ContentType = &key, bytes.NewReader(text), aws.String(contentType(key))
	sum := sha256.Sum256(text)
	return s.putObject(ctx, sum[:], in)
}

// swap stores a small object in the place of the one with an ETag, or where there is none. It fails with ErrExists if
// another is there, and returns that. If an answer is lost, the next try finds what the first has written. So a refusal
// is resolved by reading: if our own bytes are there, the put has succeeded. For that no two puts may be alike.
func (s *Store) swap(ctx context.Context, key string, text []byte, etag string) (content, error) {
	in := &s3.PutObjectInput{IfMatch: &etag}
	if etag == "" {
		in = &s3.PutObjectInput{IfNoneMatch: aws.String("*")}
	}
	own := content{Object: Object{Key: key, Size: int64(len(text))}, text: text}
	var err error
	if own.etag, err = s.putText(ctx, key, text, in); err == nil {
		return own, nil
	}
	// its condition does not hold, another put came between, or what was to be replaced is gone
	refusals := []int{http.StatusPreconditionFailed, http.StatusConflict, http.StatusNotFound}
	there, readErr := s.read(ctx, key)
	switch {
	case readErr == nil && bytes.Equal(there.text, text):
		return there, nil
	case readErr == nil && slices.Contains(refusals, status(err)):
		return there, fmt.Errorf("%s: %w", key, ErrExists)
	case errors.Is(readErr, ErrDamaged):
		return there, readErr
	}
	return content{}, fail("put", key, err)
}

// PutNew stores a small object where there is none, and returns what is there then: text, or another client's.
func (s *Store) PutNew(ctx context.Context, key string, text []byte) (there []byte, err error) {
	o, err := s.swap(ctx, key, text, "")
	if err != nil && !errors.Is(err, ErrExists) {
		return nil, err
	}
	return o.text, nil
}

// putObject puts an object whose SHA-256 is known. The store refuses bytes that do not fit it. It is signed, too: the
// SDK would read the body once more for that, and over TLS leave it out.
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

type content struct {
	Object
	text []byte
	now  time.Time // of the answer, by the store's clock
}

// read returns a small object, checked against the store's checksum, or ErrNotFound or ErrDamaged.
func (s *Store) read(ctx context.Context, key string) (o content, err error) {
	err = s.get(ctx, key, aws.ResponseChecksumValidationWhenSupported, func(from io.Reader, there content) (err error) {
		o = there
		o.text, err = io.ReadAll(from)
		return err
	})
	return o, err
}

// Stream has use read an object, again from its start if the connection breaks; o has its size. The error is
// ErrNotFound, an *Error of the bucket, or that of use. The bytes are not checked: the caller has a hash.
func (s *Store) Stream(ctx context.Context, key string, use func(from io.Reader, o Object) error) error {
	return s.get(ctx, key, aws.ResponseChecksumValidationWhenRequired,
		func(from io.Reader, o content) error { return use(from, o.Object) })
}

// brokenAnswer says that an object could not be read to its end.
type brokenAnswer struct{ error }

func (e *brokenAnswer) Unwrap() error        { return e.error }
func (e *brokenAnswer) RetryableError() bool { return true }

// get has use read an object, as a part of the request: so the SDK also tries again an answer that breaks off.
func (s *Store) get(ctx context.Context, key string, validation aws.ResponseChecksumValidation,
	use func(from io.Reader, o content) error) error {
	var used error
	reading := after("readAnswer", func(ctx context.Context, result any, data middleware.Metadata, err error) error {
		out, ok := result.(*s3.GetObjectOutput)
		if err != nil || !ok {
			return err
		}
		defer out.Body.Close()
		o := content{Object: Object{Key: key, Size: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified),
			etag: aws.ToString(out.ETag)}, now: time.Now()}
		if t, ok := awsmiddleware.GetServerTime(data); ok { // a bucket of one's own may send no Date
			o.now = t
		}
		from := &sample.Source{Reader: out.Body}
		switch used = use(from, o); {
		case used == nil || from.Failed == nil:
			return nil
		case from.N == o.Size && ctx.Err() == nil: // so the checksum is wrong: the SDK has no type for that
			return &brokenAnswer{fmt.Errorf("%w: %w", ErrDamaged, from.Failed)}
		}
		return &brokenAnswer{from.Failed}
	})
	if err := s.ask(ctx, key, validation, reading); err != nil {
		return fail("read", key, err)
	}
	return used
}

// ask asks for an object, with a middleware that sees each answer. Unset leaves the validation to the client.
func (s *Store) ask(ctx context.Context, key string, validation aws.ResponseChecksumValidation,
	reading middleware.FinalizeMiddleware) error {
	_, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: &key}, func(o *s3.Options) {
		o.ResponseChecksumValidation = cmp.Or(validation, o.ResponseChecksumValidation)
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Finalize.Insert(reading, lastErrorID, middleware.After)
		})
	})
	return err
}

// Ahead returns how far the bucket's clock is ahead of this machine's, to a second: its answers have
// whole ones. It asks for an object that does not exist. ok is false if no answer names the time.
func (s *Store) Ahead(ctx context.Context) (ahead time.Duration, ok bool) {
	key := task.ManifestKind + "_probe/clock" // no dataset has such a name
	reading := after("readClock", func(_ context.Context, _ any, data middleware.Metadata, err error) error {
		// The answer's time is its second's beginning.
		if at, there := awsmiddleware.GetServerTime(data); there {
			ahead, ok = time.Until(at.Add(time.Second/2)), true
		}
		return err
	})
	_ = s.ask(ctx, key, aws.ResponseChecksumValidationUnset, reading)
	return ahead, ok
}

// Read returns an object as it is, or ErrNotFound: the caller checks it.
func (s *Store) Read(ctx context.Context, key string) (text []byte, err error) {
	err = s.Stream(ctx, key, func(from io.Reader, _ Object) (err error) {
		text, err = io.ReadAll(from)
		return err
	})
	return text, err
}

// readJSON reads a small object that people know by a name.
func readJSON[T any](ctx context.Context, s *Store, key, name string) (v T, etag string, err error) {
	o, err := s.read(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return v, "", fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	if err == nil {
		if err = json.Unmarshal(o.text, &v); err != nil {
			err = fail("read", key, fmt.Errorf("%w: %w", ErrDamaged, err))
		}
	}
	return v, o.etag, err
}

// Change changes a small JSON object, whoever else does so at the same time, and returns what is there then. what is
// called with what is there, or nil, until it returns nil, which leaves it so, or until what it returns is stored.
func Change[T any](ctx context.Context, s *Store, key string, what func(there *T) (*T, error)) (T, error) {
	for try := 1; ; try++ {
		now, etag, err := readJSON[T](ctx, s, key, key)
		there := &now
		if err != nil {
			if absent, err := s.absent(ctx, key, err); !absent {
				return now, err
			}
			there = nil
		}
		next, err := what(there)
		if err != nil || next == nil {
			return now, err
		}
		text, err := json.MarshalIndent(next, "", "  ")
		if err == nil {
			_, err = s.swap(ctx, key, text, etag)
		}
		if !errors.Is(err, ErrExists) || try == 20 {
			return *next, err
		}
	}
}

// absent reports whether an error of reading an object means that it is not there. S3 answers 403, and not 404, to
// who may list only below some prefixes, as a worker may: then a listing shows it.
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

// Head asks for an object without reading it, or returns ErrNotFound. An object that came in parts has no hash.
func (s *Store) Head(ctx context.Context, key string) (Object, error) {
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: &key,
		ChecksumMode: types.ChecksumModeEnabled})
	if err != nil {
		return Object{}, fail("head", key, err)
	}
	o := Object{Key: key, Size: aws.ToInt64(out.ContentLength)}
	if sum, err := base64.StdEncoding.DecodeString(aws.ToString(out.ChecksumSHA256)); err == nil &&
		len(sum) == sha256.Size {
		o.SHA256 = hex.EncodeToString(sum)
	}
	return o, nil
}
