package main

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/journal"
)

// submitJournal keeps which tasks of a run the queue has confirmed. It lies on the
// machine that submits; on another one a resume sends all of them again.
type submitJournal struct {
	file *journal.Journal
	sent map[int]bool
}

func openJournal(localDir, stackName, run string) (*submitJournal, error) {
	file, text, err := journal.Open(filepath.Join(localDir, "submits", strings.ReplaceAll(stackName, "/", "_"),
		run+".journal"))
	if errors.Is(err, journal.ErrBusy) {
		return nil, fmt.Errorf("run %s is being submitted by another process", run)
	}
	if err != nil {
		return nil, err
	}
	j := &submitJournal{file: file, sent: map[int]bool{}}
	for line := range bytes.Lines(text) {
		// What a power cut made of a line is no number: its task is sent again.
		if place, err := strconv.Atoi(strings.TrimSuffix(string(line), "\n")); err == nil {
			j.sent[place] = true
		}
	}
	return j, nil
}

// add notes that a task was sent.
func (j *submitJournal) add(place int) error { return j.file.Append(fmt.Appendln(nil, place)) }

func (j *submitJournal) close() { _ = j.file.Close() }
