package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// journal keeps which tasks of a run the queue has confirmed. It lies on the
// machine that submits; on another one a resume sends all of them again.
type journal struct {
	file *os.File
	size int64
	sent map[int]bool
}

func openJournal(localDir, stackName, run string) (*journal, error) {
	dir := filepath.Join(localDir, "submits", strings.ReplaceAll(stackName, "/", "_"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, run+".journal")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("run %s is being submitted by another process", run)
	}
	j := &journal{file: f, sent: map[int]bool{}}
	if err := j.read(); err != nil {
		f.Close()
		return nil, fmt.Errorf("read the journal of run %s: %w", run, err)
	}
	return j, nil
}

// read reads what was sent. A last line that was cut off could be the beginning
// of another number, and what is appended to it would be: it is removed.
func (j *journal) read() error {
	text, err := io.ReadAll(j.file)
	if err != nil {
		return err
	}
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	for line := range strings.Lines(string(whole)) {
		// What a power cut made of a line is no number: its task is sent again.
		if place, err := strconv.Atoi(strings.TrimSuffix(line, "\n")); err == nil {
			j.sent[place] = true
		}
	}
	j.size = int64(len(whole))
	return j.file.Truncate(j.size)
}

// add notes that a task was sent. Of a line that could not be written nothing is
// left: the next one would make another number of it.
func (j *journal) add(place int) error {
	n, err := fmt.Fprintf(j.file, "%d\n", place)
	if err != nil {
		return errors.Join(err, j.file.Truncate(j.size))
	}
	j.size += int64(n)
	return nil
}

func (j *journal) close() { _ = j.file.Close() }
