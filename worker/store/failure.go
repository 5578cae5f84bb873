package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// maxMessage bounds the text of an invalid message that a report keeps.
const maxMessage = 4096

// Failure is a failure report: why a chunk, or a message that is no task, failed.
type Failure struct {
	Version      int        `json:"version"`
	Cause        task.Cause `json:"cause"`
	Detail       string     `json:"detail"` // one sentence
	Generator    string     `json:"generator,omitempty"`
	Commit       string     `json:"commit,omitempty"`
	Image        string     `json:"image,omitempty"`
	RunID        string     `json:"run_id,omitempty"`
	Task         task.Task  `json:"task,omitzero"`
	Name         string     `json:"name,omitempty"` // the chunk's part of the key
	Start        int        `json:"start"`
	End          int        `json:"end"`
	ChunkStart   int        `json:"chunk_start"`
	ChunkSize    int        `json:"chunk_size"`
	Seed         int        `json:"seed"`
	Attempt      int        `json:"attempt"`
	Command      []string   `json:"command,omitempty"`
	ExitCode     int        `json:"exit_code"`
	Signal       string     `json:"signal,omitempty"`
	Stdout       string     `json:"stdout,omitempty"` // its end
	Stderr       string     `json:"stderr,omitempty"` // its end
	CPUSeconds   float64    `json:"cpu_seconds"`
	WallSeconds  float64    `json:"wall_seconds"`
	PeakRSSBytes int64      `json:"peak_rss_bytes"`
	MessageID    string     `json:"message_id,omitempty"`
	RequestID    string     `json:"request_id,omitempty"`
	Receives     int        `json:"receives"`
	Message      string     `json:"message,omitempty"` // body of a message that is no task, at most 4 kB
	Time         time.Time  `json:"time"`
}

// Range returns the range of samples that failed.
func (f Failure) Range() task.Range { return task.Range{Start: f.Start, End: f.End} }

// PutFailure writes a failure report and returns its key. A report of the same
// chunk and delivery is replaced.
func (s *Store) PutFailure(ctx context.Context, f Failure) (string, error) {
	f.Version = 1
	id := f.MessageID
	if id == "" {
		id = f.RequestID // a direct invocation
	}
	key := s.dataset.FailureKey(f.Generator, f.Name, id, f.Receives)
	if len(f.Message) > maxMessage {
		f.Message = strings.ToValidUTF8(f.Message[:maxMessage], "")
	}
	body, err := json.Marshal(f)
	if err != nil {
		return "", err
	}
	if err := s.put(ctx, key, body); err != nil {
		return "", err
	}
	return key, nil
}

// Failure reads a failure report, or returns ErrNotFound.
func (s *Store) Failure(ctx context.Context, key string) (Failure, error) {
	var f Failure
	_, err := s.readJSON(ctx, key, &f)
	return f, err
}

// Failures lists a generator's failure reports, without reading them. The generator
// task.InvalidFailure stands for messages that are no task.
func (s *Store) Failures(ctx context.Context, generator string) iter.Seq2[Object, error] {
	return s.List(ctx, s.dataset.FailuresPrefix(generator), "")
}

// PutRun writes a run down. It fails with ErrExists when the id is taken.
func (s *Store) PutRun(ctx context.Context, r task.Run) error {
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	_, err = s.swap(ctx, s.dataset.RunKey(r.ID), body, "")
	return err
}

// Run reads a run, or returns ErrNotFound.
func (s *Store) Run(ctx context.Context, id string) (task.Run, error) {
	var r task.Run
	_, err := s.readJSON(ctx, s.dataset.RunKey(id), &r)
	if errors.Is(err, ErrNotFound) {
		return r, fmt.Errorf("run %s: %w", id, ErrNotFound)
	}
	return r, err
}

// ChangeRun changes a run that was written down, whoever else does so at the same
// time. what is called until it reports that nothing is left to change, or until
// what it did is stored.
func (s *Store) ChangeRun(ctx context.Context, id string, what func(*task.Run) (changed bool)) error {
	_, err := changeJSON(ctx, s, s.dataset.RunKey(id), func(r *task.Run) (*task.Run, error) {
		switch {
		case r == nil:
			return nil, fmt.Errorf("run %s: %w", id, ErrNotFound)
		case !what(r):
			return nil, nil
		}
		return r, nil
	})
	return err
}

// Runs returns the ids of all runs, newest first.
func (s *Store) Runs(ctx context.Context) ([]string, error) {
	ids, err := s.names(ctx, s.dataset.Prefix(task.RunKind))
	slices.Reverse(ids)
	return ids, err
}
