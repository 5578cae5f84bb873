package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
)

// scratch is the worker's own part of the temporary folder. What chunks write before it is stored is below it.
type scratch struct {
	dir  string
	lock *os.File
}

// openScratch takes the first of the folders vm-dataset-worker-0, -1, ... that no living worker holds, and empties
// it: what is in there belonged to a worker that was killed.
func openScratch() (*scratch, error) {
	for n := 0; ; n++ {
		dir := filepath.Join(os.TempDir(), fmt.Sprintf("vm-dataset-worker-%d", n))
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make scratch folder: %w", err)
		}
		lock, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
		if err == nil {
			err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		}
		if err != nil { // it is held, another user's, or no folder
			_ = lock.Close()
			continue
		}
		s := &scratch{dir: dir, lock: lock}
		if err := s.empty(); err != nil {
			_ = lock.Close()
			return nil, fmt.Errorf("empty scratch folder: %w", err)
		}
		return s, nil
	}
}

func (s *scratch) empty() error {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		err = errors.Join(err, removeAll(filepath.Join(s.dir, e.Name())))
	}
	return err
}

// Folder makes an empty folder for one chunk.
func (s *scratch) Folder() (string, error) { return os.MkdirTemp(s.dir, "chunk-") }

// Remove removes a chunk's folder, or logs why not; the next start tries again.
func (s *scratch) Remove(dir string, log *slog.Logger) {
	if err := removeAll(dir); err != nil {
		log.Error("remove scratch folder", "error", err)
	}
}

// removeAll is os.RemoveAll that also gets rid of folders a generator has made read-only.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
