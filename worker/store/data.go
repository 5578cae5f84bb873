package store

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"mime"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// PutFiles stores the files of samples as one object each. The store refuses bytes that do not fit a file's SHA-256.
func (s *Store) PutFiles(ctx context.Context, generator string, samples []sample.Sample) error {
	var list []sample.File // by their keys
	for _, item := range samples {
		for _, f := range item.Files {
			f.Name = s.dataset.FileKey(generator, item.ID, f.Name)
			list = append(list, f)
		}
	}
	return s.each(ctx, len(list), func(ctx context.Context, i int) error { return s.putFile(ctx, list[i].Name, list[i]) })
}

func (s *Store) putFile(ctx context.Context, key string, f sample.File) error {
	// Timers stand still while a machine is suspended; the bucket, which ends the hold of the cell, does not.
	if end, ok := ctx.Deadline(); ok && time.Now().Round(0).After(end.Round(0)) {
		return fail("put", key, context.DeadlineExceeded)
	}
	body, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer body.Close()
	sum, err := hex.DecodeString(f.SHA256)
	if err != nil {
		return err
	}
	_, err = s.putObject(ctx, sum, &s3.PutObjectInput{Key: &key, Body: body, ContentLength: &f.Size,
		ContentType: aws.String(contentType(key))})
	return fail("put", key, err)
}

// contentTypes are those of most files, whatever the machine has installed.
var contentTypes = map[string]string{".png": "image/png", ".mp4": "video/mp4", ".txt": "text/plain; charset=utf-8",
	".json": "application/json", ".gz": "application/gzip", ".tar": "application/x-tar"}

func contentType(name string) string {
	ext := path.Ext(name)
	return cmp.Or(contentTypes[ext], mime.TypeByExtension(ext), "application/octet-stream")
}

// PutShard streams samples as one tar.gz. The same give the same bytes: members are sorted, without time and owner.
func (s *Store) PutShard(ctx context.Context, generator string, c task.Chunk, epoch int,
	samples []sample.Sample) (Object, error) {
	return s.Upload(ctx, s.dataset.ShardKey(generator, c, epoch), 0, func(to io.Writer) error {
		// Pictures and video do not compress: any level above the fastest only costs CPU.
		packed, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
		if err != nil {
			return err
		}
		archive := tar.NewWriter(packed)
		buffer := make([]byte, 32<<10)
		for _, item := range slices.SortedFunc(slices.Values(samples),
			func(a, b sample.Sample) int { return strings.Compare(a.ID, b.ID) }) {
			for _, f := range item.Files {
				if err := writeMember(archive, item.ID+"/"+f.Name, f, buffer); err != nil {
					return err
				}
			}
		}
		return cmp.Or(archive.Close(), packed.Close())
	})
}

func writeMember(archive *tar.Writer, name string, f sample.File, buffer []byte) error {
	body, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: f.Size, Mode: 0o644,
		ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err = io.CopyBuffer(archive, struct{ io.Reader }{body}, buffer) // an *os.File would take one of its own
	return err
}

// PartSize is how much of a shard is in memory at a time: the least that S3 takes.
const PartSize = 5 << 20

// Of the 10,000 parts that S3 takes, the first ones are as large as the estimate of the size asks for. If that was
// too low, parts double from then on: so 5 TB fit, whatever the estimate.
var (
	steadyParts = 5_000
	doubleEvery = 500
)

// Upload stores an object of which write writes the bytes, at once if they fit into one part, and shows nothing of it
// before all of it is there. The size, in bytes, is an estimate.
func (s *Store) Upload(ctx context.Context, key string, size int64, write func(io.Writer) error) (Object, error) {
	buffer := s.buffers.Get().(*[]byte)
	u := &upload{store: s, ctx: ctx, key: key, hash: sha256.New(), part: (*buffer)[:0]}
	if size > int64(steadyParts)*PartSize {
		u.part = make([]byte, 0, size/int64(steadyParts)+1)
	}
	err := write(u)
	if err = cmp.Or(u.failed, err); err == nil {
		err = u.end()
	}
	if err != nil {
		u.abort()
		return Object{}, err
	}
	s.buffers.Put(buffer) // only now: a request that failed may still read it
	return Object{Key: key, Size: u.size, SHA256: hex.EncodeToString(u.hash.Sum(nil))}, nil
}

// upload is an object that is written before its size is known.
type upload struct {
	store  *Store
	ctx    context.Context
	key    string
	hash   hash.Hash // of all that was written
	size   int64
	part   []byte // the next one
	failed error  // of the first part that could not be stored
	id     *string
	parts  []types.CompletedPart
}

// Write collects a part. A full one is stored when more follows.
func (u *upload) Write(p []byte) (int, error) {
	if u.failed != nil {
		return 0, u.failed
	}
	_, _ = u.hash.Write(p)
	u.size += int64(len(p))
	for rest := p; len(rest) > 0; {
		if len(u.part) == cap(u.part) {
			if u.failed = u.putPart(); u.failed != nil {
				return 0, u.failed
			}
		}
		n := min(len(rest), cap(u.part)-len(u.part))
		u.part, rest = append(u.part, rest[:n]...), rest[n:]
	}
	return len(p), nil
}

// end stores what has collected: all of the object, even if that is nothing, or its last part.
func (u *upload) end() error {
	if u.id == nil {
		_, err := u.store.putObject(u.ctx, u.hash.Sum(nil), &s3.PutObjectInput{Key: &u.key,
			Body: bytes.NewReader(u.part), ContentType: aws.String(contentType(u.key))})
		return fail("put", u.key, err)
	}
	if err := u.putPart(); err != nil {
		return err
	}
	_, err := u.store.client.CompleteMultipartUpload(u.ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &u.store.bucket, Key: &u.key, UploadId: u.id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: u.parts},
	})
	// If an answer was lost, the SDK's next try finds no upload: the first one has completed it, if the object is there.
	// No other worker writes one of this key.
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

func (u *upload) putPart() error {
	if u.id == nil {
		out, err := u.store.client.CreateMultipartUpload(u.ctx, &s3.CreateMultipartUploadInput{Bucket: &u.store.bucket,
			Key: &u.key, ContentType: aws.String(contentType(u.key)), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
		if err != nil {
			return fail("put", u.key, err)
		}
		u.id = out.UploadId
	}
	number := aws.Int32(int32(len(u.parts) + 1))
	out, err := u.store.client.UploadPart(u.ctx, &s3.UploadPartInput{Bucket: &u.store.bucket, Key: &u.key, UploadId: u.id,
		PartNumber: number, Body: bytes.NewReader(u.part), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
	if err != nil {
		return fail("put", u.key, err)
	}
	u.parts = append(u.parts, types.CompletedPart{PartNumber: number, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32})
	if n := len(u.parts) - steadyParts; n >= 0 && n%doubleEvery == 0 {
		u.part = make([]byte, 0, 2*cap(u.part))
	}
	u.part = u.part[:0]
	return nil
}

// abort drops the parts of an upload that failed. A lifecycle rule does it for those whose worker was killed.
func (u *upload) abort() {
	if u.id == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), 5*time.Second)
	defer cancel()
	_, _ = u.store.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &u.store.bucket, Key: &u.key,
		UploadId: u.id})
}
