package generator

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// ReadLeft reads a file below a folder in which a generator, or a program of its environment, could write, at most so
// many bytes of it. What was put in its place may be a pipe, or a link out of there: that is an error.
func ReadLeft(dir, name string, most int64) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no plain file", name))
	}
	return io.ReadAll(io.LimitReader(f, most))
}
