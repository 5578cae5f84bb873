package dataset

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/journal"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// JournalAge is how long what an interrupted check has read counts as read.
const JournalAge = 7 * 24 * time.Hour

// Journal keeps the cells whose objects a check of contents has found healthy, a line with key and ETag for each, so
// that an interrupted check continues. It trusts that objects of the same size do not change. A nil one keeps nothing.
type Journal struct {
	file *journal.Journal
	done map[string]bool
}

// ErrBusy: another process uses the journal.
var ErrBusy = errors.New("another check of the same samples is running")

// OpenJournal opens a journal, or begins it anew if fresh is wanted, or it is about another check or too old.
func OpenJournal(path, about string, fresh bool) (*Journal, error) {
	file, text, err := journal.Open(path, ErrBusy)
	if err != nil {
		return nil, err
	}
	j := &Journal{file: file, done: map[string]bool{}}
	lines := strings.Split(string(text), "\n")
	began, of, _ := strings.Cut(lines[0], " ")
	at, err := time.Parse(time.RFC3339, began)
	if age := time.Since(at); err != nil || fresh || of != about || age > JournalAge || age < 0 {
		if err := file.Rewrite(fmt.Appendln(nil, time.Now().UTC().Format(time.RFC3339), about)); err != nil {
			return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), file.Close())
		}
		return j, nil
	}
	for _, line := range lines[1:] {
		j.done[line] = true
	}
	return j, nil
}

func (j *Journal) has(c *store.Cell) bool { return j != nil && j.done[c.Key()+" "+c.ETag()] }

func (j *Journal) add(c *store.Cell) error {
	if j == nil {
		return nil
	}
	return j.file.Append(fmt.Appendln(nil, c.Key(), c.ETag()))
}

// Close keeps what was done for the next time, unless the check has finished.
func (j *Journal) Close(finished bool) error {
	switch {
	case j == nil:
		return nil
	case finished:
		return j.file.Remove()
	}
	return j.file.Close()
}
