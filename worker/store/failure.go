package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

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

// PutFailure writes a failure report and returns its key. A report of the same chunk and delivery is replaced.
func (s *Store) PutFailure(ctx context.Context, f Failure) (string, error) {
	f.Version = 1
	f.Message = strings.ToValidUTF8(f.Message[:min(len(f.Message), 4096)], "")
	// a direct invocation has no message
	key := s.dataset.FailureKey(f.Generator, f.Name, cmp.Or(f.MessageID, f.RequestID), f.Receives)
	body, err := json.Marshal(f)
	if err == nil {
		err = s.put(ctx, key, body)
	}
	if err != nil {
		return "", err
	}
	return key, nil
}

// Failure reads a failure report, or returns ErrNotFound.
func (s *Store) Failure(ctx context.Context, key string) (Failure, error) {
	f, _, err := readJSON[Failure](ctx, s, key, key)
	return f, err
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
	r, _, err := readJSON[task.Run](ctx, s, s.dataset.RunKey(id), "run "+id)
	return r, err
}

// ChangeRun changes a run, as Change does; what reports whether it has changed it.
func (s *Store) ChangeRun(ctx context.Context, id string, what func(*task.Run) (changed bool)) error {
	_, err := Change(ctx, s, s.dataset.RunKey(id), func(r *task.Run) (*task.Run, error) {
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
