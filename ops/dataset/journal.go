package dataset

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/journal"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// JournalAge is how long what an interrupted check has read counts as read.
const JournalAge = 7 * 24 * time.Hour

// Journal keeps which receipts a check of contents has found whole, a line for
// each, so that an interrupted check goes on where it was. A line stands for the
// receipt to its last byte and for the samples that it described; a receipt that
// was changed, or describes more since, is read again. It trusts that nobody has
// changed objects of the same size meanwhile.
type Journal struct {
	mu   sync.Mutex
	file *journal.Journal
	done map[string]bool
}

// ErrBusy says that another process uses a journal.
var ErrBusy = errors.New("another check of the same samples is running")

// OpenJournal opens or begins the journal in a file. What is in it counts unless
// fresh is wanted, if it was begun for the same thing, in the same words, and less
// than JournalAge ago.
func OpenJournal(path, about string, fresh bool) (*Journal, error) {
	file, text, err := journal.Open(path)
	if errors.Is(err, journal.ErrBusy) {
		return nil, ErrBusy
	}
	if err != nil {
		return nil, err
	}
	j := &Journal{file: file, done: map[string]bool{}}
	first, rest, _ := strings.Cut(string(text), "\n")
	began, of, _ := strings.Cut(first, " ")
	if at, err := time.Parse(time.RFC3339, began); err != nil || fresh || of != about || time.Since(at) > JournalAge ||
		time.Until(at) > 0 {
		if err := file.Rewrite(fmt.Appendln(nil, time.Now().UTC().Format(time.RFC3339), about)); err != nil {
			return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), file.Close())
		}
		return j, nil
	}
	for line := range strings.Lines(rest) {
		j.done[strings.TrimSuffix(line, "\n")] = true
	}
	return j, nil
}

// journalEntry stands for a receipt and the samples that it describes.
func journalEntry(r store.Receipt, live []store.ReceiptSample) string {
	h := sha256.New()
	fmt.Fprintln(h, r.ID(), digest(r))
	for _, s := range live {
		fmt.Fprintln(h, s.Index)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (j *Journal) has(entry string) bool {
	if j == nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.done[entry]
}

func (j *Journal) add(entry string) error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done[entry] = true
	return j.file.Append(fmt.Appendln(nil, entry))
}

// Close keeps what was done for the next time, unless the check has finished.
func (j *Journal) Close(finished bool) error {
	if j == nil {
		return nil
	}
	if finished {
		return j.file.Remove()
	}
	return j.file.Close()
}
