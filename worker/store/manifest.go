package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Manifest reads the manifest of the store's dataset, or returns ErrNotFound.
func (s *Store) Manifest(ctx context.Context) (task.Manifest, error) {
	var m task.Manifest
	_, err := s.readJSON(ctx, s.dataset.ManifestKey(), &m)
	if errors.Is(err, ErrNotFound) {
		return m, fmt.Errorf("dataset %s: %w", s.dataset, ErrNotFound)
	}
	return m, err
}

// ChangeManifest creates or changes the manifest of the store's dataset, whoever
// else does so at the same time, and returns what is stored then. what is called
// with what is there, or nil, until it returns nil, which leaves it so, or until
// what it returns is stored. It must leave alone what is pinned.
func (s *Store) ChangeManifest(ctx context.Context, what func(there *task.Manifest) (*task.Manifest,
	error)) (task.Manifest, error) {
	m, err := changeJSON(ctx, s, s.dataset.ManifestKey(), what)
	if m == nil {
		m = &task.Manifest{}
	}
	return *m, err
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

// kinds are those of a dataset's objects, but for its manifest. Receipts go first
// where they are deleted: none vouches for bytes that are gone.
var kinds = []string{task.ReceiptKind, task.DataKind, task.FailureKind, task.RunKind, task.ReceiptKind}

// Holds reports whether there is any object of the store's dataset beside its manifest.
func (s *Store) Holds(ctx context.Context) (bool, error) {
	for _, kind := range kinds {
		for _, err := range s.List(ctx, s.dataset.Prefix(kind), "") {
			return err == nil, err
		}
	}
	return false, nil
}

// DeleteDataset deletes all objects of the store's dataset, 1,000 a request, and
// its manifest last, so that what was interrupted is found and can go on. deleted is
// called with the number of objects that each request has deleted.
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

// lockKey is where a lock lies: under the hash that receipts have. Locks belong to no
// dataset, and stay.
func lockKey(hash string) string { return "locks/" + hash + ".txt" }

// PutLock keeps the text of a lock under its hash, unless it is there.
func (s *Store) PutLock(ctx context.Context, hash string, text []byte) error {
	if _, err := s.swap(ctx, lockKey(hash), text, ""); !errors.Is(err, ErrExists) && !errors.Is(err, ErrDamaged) {
		return err
	}
	return nil
}

// Lock reads the text of a lock, or returns ErrNotFound. Whether it is what its hash
// says is for the caller to check.
func (s *Store) Lock(ctx context.Context, hash string) ([]byte, error) {
	return s.Read(ctx, lockKey(hash))
}
