package store

import (
	"context"
	"errors"
)

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
