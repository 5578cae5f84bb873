// Package journal keeps lines in a file that shows what a process has done, after its death at any point.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// Journal is a file of lines that only one process can have open. It is not synced: it
// survives the death of the process, and not always a power failure.
type Journal struct {
	path string
	file *os.File
	size int64
}

// Open opens or makes a journal and its folder, and returns the lines that are in it, or the error busy while another
// process has it open. A line that was cut off is removed: what is appended to it would be another line.
func Open(path string, busy error) (*Journal, []byte, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, nil, err
	}
	f, err := openLocked(path, busy)
	if err != nil {
		return nil, nil, err
	}
	text, err := io.ReadAll(f)
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	if err == nil {
		err = f.Truncate(int64(len(text)))
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("read the journal %s: %w", path, err)
	}
	return &Journal{path, f, int64(len(text))}, text, nil
}

func openLocked(path string, busy error) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			return nil, busy
		}
		opened, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if named, err := os.Stat(path); err == nil && os.SameFile(opened, named) {
			return f, nil
		}
		f.Close() // it was rewritten or removed in between
	}
}

// Append appends lines, each with its end. Of what could not be written nothing is left.
func (j *Journal) Append(lines []byte) error {
	if _, err := j.file.Write(lines); err != nil {
		return errors.Join(fmt.Errorf("write the journal: %w", err), j.file.Truncate(j.size))
	}
	j.size += int64(len(lines))
	return nil
}

// Rewrite puts lines in the place of all that are there, in one step.
func (j *Journal) Rewrite(lines []byte) error {
	f, err := os.OpenFile(j.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(lines)
	if err = errors.Join(err, f.Sync(), syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)); err == nil {
		err = os.Rename(f.Name(), j.path)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	_ = Unlock(j.file)
	j.file, j.size = f, int64(len(lines))
	return nil
}

// Remove removes the journal's file and closes it.
func (j *Journal) Remove() error { return errors.Join(os.Remove(j.path), j.Close()) }

// Close closes the journal.
func (j *Journal) Close() error { return Unlock(j.file) }

// Unlock gives up the flock of a file and closes it. Without that, a child process that is between its fork and its
// exec holds the lock for some moments more.
func Unlock(f *os.File) error {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	return f.Close()
}
