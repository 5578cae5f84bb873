package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// PartSize is how much of a shard is in memory at a time: the least that S3 takes.
const PartSize = 5 << 20

// maxParts is how many parts S3 lets an upload have, with some room for an estimate that is
// too low.
const maxParts = 10_000 / 2

// Upload stores an object of which write writes the bytes, as one object or in parts, and
// shows nothing of it before all of it is there. The size, in bytes, is an estimate: the
// parts are as large as one of twice that size needs.
func (s *Store) Upload(ctx context.Context, key string, size int64, write func(io.Writer) error) (Object, error) {
	u := &upload{store: s, ctx: ctx, key: key, hash: sha256.New()}
	parts := s.buffers.Get().(*bufio.Writer)
	if parts.Reset(u); size > maxParts*PartSize {
		parts = bufio.NewWriterSize(u, int(size/maxParts+1))
	}
	err := write(io.MultiWriter(u.hash, parts))
	if u.last = true; err == nil {
		err = parts.Flush()
	}
	if err == nil && u.id != nil {
		err = u.complete()
	}
	if err != nil {
		u.abort()
		return Object{}, err
	}
	if parts.Reset(nil); parts.Size() == PartSize {
		s.buffers.Put(parts) // only now: a request that failed may still read it
	}
	return Object{Key: key, Size: u.size, SHA256: hex.EncodeToString(u.hash.Sum(nil))}, nil
}

// upload is an object that is written before its size is known. What fits into
// one part is put as one object; more becomes a multipart upload, which shows
// nothing until it is complete.
type upload struct {
	store *Store
	ctx   context.Context
	key   string
	hash  hash.Hash // of all that will be written
	size  int64
	last  bool // the next part is the last one
	id    *string
	parts []types.CompletedPart
}

// Write stores a part: what has collected, all the rest if it is the last one.
func (u *upload) Write(part []byte) (int, error) {
	u.size += int64(len(part))
	kind := aws.String(contentType(u.key))
	if u.last && u.id == nil {
		_, err := u.store.putObject(u.ctx, u.hash.Sum(nil),
			&s3.PutObjectInput{Key: &u.key, Body: bytes.NewReader(part), ContentType: kind})
		return len(part), fail("put", u.key, err)
	}
	if u.id == nil {
		out, err := u.store.client.CreateMultipartUpload(u.ctx, &s3.CreateMultipartUploadInput{Bucket: &u.store.bucket,
			Key: &u.key, ContentType: kind, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
		if err != nil {
			return 0, fail("put", u.key, err)
		}
		u.id = out.UploadId
	}
	number := aws.Int32(int32(len(u.parts) + 1))
	out, err := u.store.client.UploadPart(u.ctx, &s3.UploadPartInput{Bucket: &u.store.bucket, Key: &u.key, UploadId: u.id,
		PartNumber: number, Body: bytes.NewReader(part), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
	if err != nil {
		return 0, fail("put", u.key, err)
	}
	u.parts = append(u.parts, types.CompletedPart{PartNumber: number, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32})
	return len(part), nil
}

// complete makes one object of the parts.
func (u *upload) complete() error {
	_, err := u.store.client.CompleteMultipartUpload(u.ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &u.store.bucket, Key: &u.key, UploadId: u.id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: u.parts},
	})
	// An answer was lost, and the SDK's next try finds no upload: the first one has
	// completed it, if the object is there. No other worker writes one of this key.
	if e, ok := errors.AsType[smithy.APIError](err); ok && e.ErrorCode() == "NoSuchUpload" {
		for o, listErr := range u.store.List(u.ctx, u.key, "") { // which the worker may
			if listErr == nil && o.Key == u.key && o.Size == u.size {
				return nil
			}
			break
		}
	}
	return fail("put", u.key, err)
}

// abort drops the parts of an upload that failed. A lifecycle rule does it for
// those whose worker was killed.
func (u *upload) abort() {
	if u.id == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), 5*time.Second)
	defer cancel()
	_, _ = u.store.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &u.store.bucket, Key: &u.key,
		UploadId: u.id})
}
