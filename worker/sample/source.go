package sample

import (
	"errors"
	"io"
)

// Source reads from another reader and keeps the error that ended it, io.EOF apart. A caller can so tell wrong bytes
// from a disk or a connection that failed: an archive or a picture that ends too early may be either.
type Source struct {
	io.Reader
	N      int64 // bytes that were read
	Failed error
}

func (s *Source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.N += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		s.Failed = err
	}
	return n, err
}

// seekable is a Source of a file.
type seekable struct {
	Source
	io.Seeker
}
