package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
)

// maxParts is how many parts S3 lets an upload have, with some room for an estimate that is
// too low.
const maxParts = 10_000 / 2

// Upload stores an object of which write writes the bytes, as one object or in parts, and
// shows nothing of it before all of it is there. The size, in bytes, is an estimate: the
// parts are as large as one of twice that size needs.
func (s *Store) Upload(ctx context.Context, key string, size int64, write func(io.Writer) error) (Object, error) {
	u := &upload{store: s, ctx: ctx, key: key, hash: sha256.New(), partSize: int(max(PartSize, size/maxParts+1))}
	err := write(u)
	if err == nil {
		err = u.finish()
	}
	if err != nil {
		u.abort()
		return Object{}, err
	}
	return Object{Key: key, Size: u.size, SHA256: hex.EncodeToString(u.hash.Sum(nil))}, nil
}
