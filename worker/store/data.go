package store

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/hex"
	"io"
	"mime"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// PutFiles stores the files of samples as one object each. The store is given
// every file's SHA-256 and refuses bytes that do not fit it.
func (s *Store) PutFiles(ctx context.Context, generator string, samples []sample.Sample) error {
	var list []sample.File // by their keys
	for _, item := range samples {
		for _, f := range item.Files {
			f.Name = s.dataset.FileKey(generator, item.ID, f.Name)
			list = append(list, f)
		}
	}
	return each(ctx, len(list), func(ctx context.Context, i int) error { return s.putFile(ctx, list[i].Name, list[i]) })
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

// PutShard stores samples as one tar.gz, streamed in parts as it is made. The
// same samples always give the same bytes: members are sorted and carry neither
// time nor owner.
func (s *Store) PutShard(ctx context.Context, generator string, c task.Chunk, epoch int,
	samples []sample.Sample) (Object, error) {
	return s.Upload(ctx, s.dataset.ShardKey(generator, c, epoch), 0,
		func(to io.Writer) error { return writeShard(to, samples) })
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
