package store

import (
	"context"
	"io"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// An object whose connection breaks is read from its beginning so often, with waits
// between that double: about 3 s in all. The SDK tries a request again, not the
// reading of its answer.
const (
	streamTries = 6
	streamWait  = 100 * time.Millisecond
)

// Stream opens an object and has use read it; o has the store's word for its size.
// When the connection breaks under use, it is called anew with the bytes from the
// first one on. The error is ErrNotFound, an *Error of the bucket, or what use said
// while the connection held. The bytes are not checked: the caller has a hash.
func (s *Store) Stream(ctx context.Context, key string, use func(from io.Reader, o Object) error) error {
	for try := 1; ; try++ {
		body, o, err := s.Get(ctx, key)
		if err != nil {
			return err
		}
		from := &sample.Source{Reader: body}
		err = use(from, o)
		body.Close()
		switch {
		case err == nil || from.Failed == nil:
			return err
		case ctx.Err() != nil || try == streamTries:
			return fail("read", key, from.Failed)
		}
		select {
		case <-ctx.Done():
			return fail("read", key, ctx.Err())
		case <-time.After(streamWait << (try - 1)):
		}
	}
}
