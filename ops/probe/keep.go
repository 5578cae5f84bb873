package probe

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
)

// Keep copies the files of a generator's output to a folder, at most as many bytes as a worker allows: a file with
// holes is larger than what it takes on the disk. It returns the names of what it did not copy. A link could lead to
// any file of this machine, and reading a pipe could block for ever.
func Keep(output, to string) (left []string, err error) {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return nil, err
	}
	remaining := worker.Limits{}.Filled().Bytes
	err = filepath.WalkDir(output, func(file string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(output, file)
		target := filepath.Join(to, name)
		switch {
		case name == "." && errors.Is(err, fs.ErrNotExist):
			return nil // the generator was not started
		case err == nil && e.IsDir():
			return os.MkdirAll(target, 0o755)
		case err == nil && e.Type().IsRegular():
			n, ok, err := copyFile(target, file, remaining)
			if remaining -= n; ok || err != nil {
				return err
			}
		}
		if name == "." {
			name = "all, for its output is no folder"
		}
		left = append(left, filepath.ToSlash(name))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("keep the output: %w", err)
	}
	return left, nil
}

// copyFile copies a file of at most so many bytes to a new one. ok is false if it
// is larger or cannot be read; the error is that of the copy.
func copyFile(to, from string, most int64) (n int64, ok bool, err error) {
	f, err := os.Open(from)
	if err != nil {
		return 0, false, nil //nolint:nilerr // the generator may have removed the right to read it
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() > most {
		return 0, false, nil //nolint:nilerr // as above
	}
	err = atomicfile.Stream(to, func(w io.Writer) (err error) { n, err = io.Copy(w, f); return err })
	return n, true, err
}
