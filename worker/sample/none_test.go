package sample

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
)

// Where there is no output that is the error, and no fault of the samples.
func TestCollectWithoutOutput(t *testing.T) {
	_, _, err := Collect(filepath.Join(t.TempDir(), "none"), 1, places(0, 1), Rules{})
	var refused *Error
	if !errors.Is(err, fs.ErrNotExist) || errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
}
