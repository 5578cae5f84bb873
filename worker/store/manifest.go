package store

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

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
