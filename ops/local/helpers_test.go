package local

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"testing"
)

func sum(data []byte) string {
	if data == nil {
		return "absent"
	}
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

func unpack(t testing.TB, shard []byte) map[string][]byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(shard))
	if err != nil {
		t.Fatal(err)
	}
	members := map[string][]byte{}
	for archive := tar.NewReader(z); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return members
		}
		if err != nil {
			t.Fatal(err)
		}
		if members[h.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}
