package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// lockKey is where a lock lies: under the hash that receipts have. Locks belong to no
// dataset, and stay.
func lockKey(hash string) string { return "locks/" + hash + ".txt" }

// PutLock keeps the text of a lock under its hash, unless it is there.
func (s *Store) PutLock(ctx context.Context, hash string, text []byte) error {
	key := lockKey(hash)
	_, err := s.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.bucket, Key: &key, Body: bytes.NewReader(text),
		ContentType: aws.String("text/plain; charset=utf-8"), IfNoneMatch: aws.String("*")})
	if code := status(err); code == http.StatusPreconditionFailed || code == http.StatusConflict {
		return nil // it is there, or somebody else puts it now
	}
	return fail("put", key, err)
}

// Lock reads the text of a lock, or returns ErrNotFound. Whether it is what its hash
// says is for the caller to check.
func (s *Store) Lock(ctx context.Context, hash string) ([]byte, error) {
	body, _, err := s.Get(ctx, lockKey(hash))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(body)
	return text, fail("read", lockKey(hash), errors.Join(err, body.Close()))
}
