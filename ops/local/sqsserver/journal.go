package sqsserver

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// change is one line of the journal: the new state of a message, or its end.
type change struct {
	Queue  string   `json:"queue"`
	Define *Queue   `json:"define,omitempty"` // the queue itself
	Drop   bool     `json:"drop,omitempty"`   // the queue is deleted
	Put    *message `json:"put,omitempty"`
	Remove string   `json:"remove,omitempty"` // id
}

// file is what the journal needs of a file; tests put one in that gets full.
type file interface {
	io.Writer
	Truncate(size int64) error
	Sync() error
	Close() error
}

// journal is an append-only file of changes, a CRC and a JSON object a line.
// What it has taken survives the death of the process; it is not synced at each
// write, so a power failure can cost the last seconds.
type journal struct {
	path string
	lock *os.File
	file file
	size int64
	live int // changes a compacted journal would hold, about
	all  int // changes it holds
}

const journalName = "journal"

// openJournal reads the changes in a folder's journal and opens it for more. A
// line that was cut off by the end of the process that wrote it was never
// acknowledged: it is dropped with what follows.
func openJournal(dir string, apply func(change)) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("the queue in %s is in use by another process", dir)
	}
	j := &journal{path: filepath.Join(dir, journalName), lock: lock}
	if err := j.replay(apply); err != nil {
		lock.Close()
		return nil, err
	}
	return j, nil
}

func (j *journal) replay(apply func(change)) error {
	f, err := os.Open(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		c, ok := decode(line)
		if !ok {
			return nil
		}
		apply(c)
	}
}

func encode(to *bytes.Buffer, c change) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	fmt.Fprintf(to, "%08x %s\n", crc32.ChecksumIEEE(text), text)
	return nil
}

func decode(line []byte) (c change, ok bool) {
	if len(line) < 10 || line[8] != ' ' {
		return c, false
	}
	text := bytes.TrimSuffix(line[9:], []byte("\n"))
	if fmt.Sprintf("%08x", crc32.ChecksumIEEE(text)) != string(line[:8]) {
		return c, false
	}
	return c, json.Unmarshal(text, &c) == nil
}

// append writes changes in one write. If that fails, what part of it was
// written is cut off again, so that the journal holds just what was
// acknowledged.
func (j *journal) append(changes []change) error {
	var text bytes.Buffer
	for _, c := range changes {
		if err := encode(&text, c); err != nil {
			return err
		}
	}
	if _, err := j.file.Write(text.Bytes()); err != nil {
		return errors.Join(fmt.Errorf("write the queue's journal: %w", err), j.file.Truncate(j.size))
	}
	j.size += int64(text.Len())
	j.all += len(changes)
	return nil
}

// rewrite replaces the journal by one that holds just the given changes.
func (j *journal) rewrite(changes []change) error {
	temporary := j.path + ".new"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	var size int64
	out := bufio.NewWriterSize(f, 1<<20)
	for _, c := range changes {
		var line bytes.Buffer
		if err = encode(&line, c); err != nil {
			break
		}
		size += int64(line.Len())
		if _, err = out.Write(line.Bytes()); err != nil {
			break
		}
	}
	if err = errors.Join(err, out.Flush(), f.Sync()); err != nil {
		return errors.Join(err, f.Close(), os.Remove(temporary))
	}
	if err := os.Rename(temporary, j.path); err != nil {
		return errors.Join(err, f.Close())
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	j.file, j.size, j.live, j.all = f, size, len(changes), len(changes)
	return nil
}

func (j *journal) close() error {
	return errors.Join(j.file.Sync(), j.file.Close(), j.lock.Close())
}
