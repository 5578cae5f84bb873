package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

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

// PutFailure writes a failure report and returns its key. A report of the same
// chunk and delivery is replaced.
func (s *Store) PutFailure(ctx context.Context, f Failure) (string, error) {
	f.Version = 1
	id := f.MessageID
	if id == "" {
		id = f.RequestID // a direct invocation
	}
	key := task.InvalidFailureKey(id, f.Receives)
	if f.Name != "" {
		key = fmt.Sprintf("%s%s/%s-%d.json", task.FailuresPrefix(f.Generator), f.Name, task.SafeName(id), f.Receives)
	}
	if len(f.Message) > maxMessage {
		f.Message = strings.ToValidUTF8(f.Message[:maxMessage], "")
	}
	body, err := json.Marshal(f)
	if err != nil {
		return "", err
	}
	if err := s.put(ctx, key, body, false); err != nil {
		return "", err
	}
	return key, nil
}

// Failure reads a failure report, or returns ErrNotFound.
func (s *Store) Failure(ctx context.Context, key string) (Failure, error) {
	var f Failure
	err := s.readJSON(ctx, key, &f)
	return f, err
}

// Failures lists a generator's failure reports, without reading them. The generator
// task.InvalidFailure stands for messages that are no task.
func (s *Store) Failures(ctx context.Context, generator string) iter.Seq2[Object, error] {
	return s.List(ctx, task.FailuresPrefix(generator), "")
}

// PutRun writes a run down. It fails with ErrExists when the id is taken.
func (s *Store) PutRun(ctx context.Context, r task.Run) error {
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return s.put(ctx, task.RunKey(r.ID), body, true)
}

// Run reads a run, or returns ErrNotFound.
func (s *Store) Run(ctx context.Context, id string) (task.Run, error) {
	var r task.Run
	err := s.readJSON(ctx, task.RunKey(id), &r)
	if errors.Is(err, ErrNotFound) {
		return r, fmt.Errorf("run %s: %w", id, ErrNotFound)
	}
	return r, err
}

// ChangeRun changes a run that was written down, whoever else does so at the same
// time. change is called until it reports that nothing is left to change, or until
// what it did is stored.
func (s *Store) ChangeRun(ctx context.Context, id string, change func(*task.Run) (changed bool)) error {
	const tries = 20
	key := task.RunKey(id)
	for try := 1; ; try++ {
		out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: &key})
		if status(err) == http.StatusNotFound {
			return fmt.Errorf("run %s: %w", id, ErrNotFound)
		}
		if err != nil {
			return fail("get", key, err)
		}
		var r task.Run
		err = json.NewDecoder(out.Body).Decode(&r)
		out.Body.Close()
		if err != nil {
			return fail("read", key, err)
		}
		if !change(&r) {
			return nil
		}
		body, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		_, err = s.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.bucket, Key: &key, Body: bytes.NewReader(body), ContentType: aws.String("application/json"), IfMatch: out.ETag})
		// Somebody was quicker, or it was ourselves and the answer got lost: a look
		// tells.
		if code := status(err); try == tries || code != http.StatusPreconditionFailed && code != http.StatusConflict {
			return fail("put", key, err)
		}
	}
}

// Runs returns the ids of all runs, newest first.
func (s *Store) Runs(ctx context.Context) ([]string, error) {
	var ids []string
	for o, err := range s.List(ctx, task.RunPrefix, "") {
		if err != nil {
			return nil, err
		}
		ids = append(ids, strings.TrimSuffix(strings.TrimPrefix(o.Key, task.RunPrefix), ".json"))
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	return ids, nil
}
