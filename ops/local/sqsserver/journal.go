package sqsserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/journal"
)

// change is one line of the journal: the new state of a message or a queue, or its end.
type change struct {
	Queue  string   `json:"queue"`
	Define *Queue   `json:"define,omitempty"` // the queue itself
	Drop   bool     `json:"drop,omitempty"`   // the queue is deleted
	Put    *message `json:"put,omitempty"`
	Remove string   `json:"remove,omitempty"` // id
}

const journalName = "journal"

// openJournal reads the changes in a folder's journal and opens it for more. It returns how many there are. A line that
// is damaged was never acknowledged, or a power failure took it: it is dropped with what follows.
func openJournal(dir string, apply func(change)) (*journal.Journal, int, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, 0, err
	}
	j, text, err := journal.Open(filepath.Join(dir, journalName),
		fmt.Errorf("the queue in %s is in use by another process", dir))
	if err != nil {
		return nil, 0, err
	}
	lines, good := 0, 0
	for line := range bytes.Lines(text) {
		c, ok := decode(line)
		if !ok {
			if err := j.Rewrite(text[:good]); err != nil {
				return nil, 0, errors.Join(err, j.Close())
			}
			break
		}
		apply(c)
		lines, good = lines+1, good+len(line)
	}
	return j, lines, nil
}

// encode returns changes as lines, each a CRC and a JSON object.
func encode(changes ...change) ([]byte, error) {
	var lines bytes.Buffer
	for _, c := range changes {
		text, err := json.Marshal(c)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&lines, "%08x %s\n", crc32.ChecksumIEEE(text), text)
	}
	return lines.Bytes(), nil
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

// compact rewrites the journal as the present state if it holds far more than that. The lock is held.
func (s *Server) compact() {
	present := 0
	for _, q := range s.queues {
		present += len(q.messages) + 1
	}
	if s.lines <= max(10_000, 8*present) {
		return
	}
	changes := make([]change, 0, present)
	for name, q := range s.queues {
		changes = append(changes, change{Queue: name, Define: &q.Queue})
		for _, m := range q.messages {
			changes = append(changes, change{Queue: name, Put: m})
		}
	}
	text, err := encode(changes...)
	if err == nil && s.journal.Rewrite(text) == nil { // the long journal is as good; the next change tries again
		s.lines = len(changes)
	}
}
