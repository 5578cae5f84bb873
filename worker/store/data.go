package store

import (
	"archive/tar"
	"bufio"
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

// PutFiles stores the files of samples as one object each. The store is given
// every file's SHA-256 and refuses bytes that do not fit it.
func (s *Store) PutFiles(ctx context.Context, generator string, samples []sample.Sample) error {
	type object struct {
		key  string
		file sample.File
	}
	var list []object
	for _, item := range samples {
		for _, f := range item.Files {
			list = append(list, object{s.dataset.FileKey(generator, item.ID, f.Name), f})
		}
	}
	return each(ctx, len(list),
		func(ctx context.Context, i int) error { return s.putFile(ctx, list[i].key, list[i].file) })
}

func (s *Store) putFile(ctx context.Context, key string, f sample.File) error {
	if err := s.inFlight.Acquire(ctx, 1); err != nil {
		return err
	}
	defer s.inFlight.Release(1)
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
		ContentType: aws.String(contentType(f.Name))})
	return fail("put", key, err)
}

// contentTypes are those of most files, whatever the machine has installed.
var contentTypes = map[string]string{".png": "image/png", ".mp4": "video/mp4", ".txt": "text/plain; charset=utf-8",
	".json": "application/json"}

func contentType(name string) string {
	ext := path.Ext(name)
	return cmp.Or(contentTypes[ext], mime.TypeByExtension(ext), "application/octet-stream")
}

// PartSize is how much of a shard is in memory at a time: the least that S3 takes,
// of which a shard may have 10,000.
const PartSize = 5 << 20

// PutShard stores samples as one tar.gz, streamed in parts as it is made. The
// same samples always give the same bytes: members are sorted and carry neither
// time nor owner.
func (s *Store) PutShard(ctx context.Context, generator string, c task.Chunk, epoch int,
	samples []sample.Sample) (Object, error) {
	u := &upload{store: s, ctx: ctx, key: s.dataset.ShardKey(generator, c, epoch), hash: sha256.New()}
	parts := s.buffers.Get().(*bufio.Writer)
	parts.Reset(u)
	err := writeShard(io.MultiWriter(u.hash, parts), samples)
	if u.last = true; err == nil {
		err = parts.Flush()
	}
	if err == nil {
		err = u.complete()
	}
	if err != nil {
		u.abort()
		return Object{}, err
	}
	parts.Reset(nil)
	s.buffers.Put(parts) // only now: a request that failed may still read it
	return Object{Key: u.key, Size: u.size, SHA256: hex.EncodeToString(u.hash.Sum(nil))}, nil
}

func writeShard(to io.Writer, samples []sample.Sample) error {
	// Pictures and video do not compress: any level above the fastest only costs CPU.
	packed, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(packed)
	buffer := make([]byte, 32<<10)
	sorted := slices.SortedFunc(slices.Values(samples),
		func(a, b sample.Sample) int { return strings.Compare(a.ID, b.ID) })
	for _, item := range sorted {
		for _, f := range item.Files {
			if err := writeMember(archive, item.ID+"/"+f.Name, f, buffer); err != nil {
				return err
			}
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return packed.Close()
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

// Write stores a part: PartSize bytes, or less if it is the last one.
func (u *upload) Write(part []byte) (int, error) {
	u.size += int64(len(part))
	kind := aws.String("application/gzip")
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
	if u.id == nil {
		return nil
	}
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
