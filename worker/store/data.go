package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
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
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
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

// contentType goes by the extension and not by what the machine has installed.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".png":
		return "image/png"
	case ".mp4":
		return "video/mp4"
	case ".txt":
		return "text/plain; charset=utf-8"
	case ".json":
		return "application/json"
	case ".gz":
		return "application/gzip"
	case ".tar":
		return "application/x-tar"
	}
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

// PartSize is how much of a shard is in memory at a time: the least that S3 takes,
// of which a shard may have 10,000.
const PartSize = 5 << 20

// PutShard stores samples as one tar.gz, streamed in parts as it is made. The
// same samples always give the same bytes: members are sorted and carry neither
// time nor owner.
func (s *Store) PutShard(ctx context.Context, generator string, c task.Chunk, epoch int,
	samples []sample.Sample) (Object, error) {
	u := &upload{store: s, ctx: ctx, key: s.dataset.ShardKey(generator, c, epoch), hash: sha256.New(), partSize: PartSize}
	if used, ok := s.buffers.Get().(*[]byte); ok {
		u.part = (*used)[:0]
	}
	if err := writeShard(u, samples); err != nil {
		u.abort()
		return Object{}, err
	}
	if err := u.finish(); err != nil {
		u.abort()
		return Object{}, err
	}
	// Only now: a request that failed may still read it. And in a variable of its
	// own, which does not keep the upload.
	buffer := u.part
	s.buffers.Put(&buffer)
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
	hash  interface {
		io.Writer
		Sum([]byte) []byte
	}
	size     int64
	partSize int    // bytes
	part     []byte // what is not sent yet
	id       *string
	parts    []types.CompletedPart
}

func (u *upload) Write(p []byte) (int, error) {
	written := len(p)
	_, _ = u.hash.Write(p)
	u.size += int64(written)
	for len(p) > 0 {
		n := min(len(p), u.partSize-len(u.part))
		u.part = append(u.part, p[:n]...)
		p = p[n:]
		if len(u.part) == u.partSize {
			if err := u.send(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

func (u *upload) send() error {
	if u.id == nil {
		out, err := u.store.client.CreateMultipartUpload(u.ctx, &s3.CreateMultipartUploadInput{
			Bucket: &u.store.bucket, Key: &u.key, ContentType: aws.String(contentType(u.key)),
			ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
		})
		if err != nil {
			return fail("put", u.key, err)
		}
		u.id = out.UploadId
	}
	number := int32(len(u.parts) + 1)
	out, err := u.store.client.UploadPart(u.ctx, &s3.UploadPartInput{
		Bucket: &u.store.bucket, Key: &u.key, UploadId: u.id, PartNumber: &number, Body: bytes.NewReader(u.part),
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
	})
	if err != nil {
		return fail("put", u.key, err)
	}
	u.parts = append(u.parts, types.CompletedPart{PartNumber: &number, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32})
	u.part = u.part[:0]
	return nil
}

func (u *upload) finish() error {
	if u.id == nil {
		_, err := u.store.putObject(u.ctx, u.hash.Sum(nil), &s3.PutObjectInput{Key: &u.key, Body: bytes.NewReader(u.part),
			ContentType: aws.String(contentType(u.key))})
		return fail("put", u.key, err)
	}
	if len(u.part) > 0 {
		if err := u.send(); err != nil {
			return err
		}
	}
	_, err := u.store.client.CompleteMultipartUpload(u.ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &u.store.bucket, Key: &u.key, UploadId: u.id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: u.parts},
	})
	// An answer was lost, and the SDK's next try finds no upload: the first one has
	// completed it, if the object is there. Nobody else writes one of this key.
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
