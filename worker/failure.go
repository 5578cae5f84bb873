package worker

import (
	"fmt"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// failure says why a chunk could not be committed.
type failure struct {
	chunk          task.Chunk
	cause          task.Cause
	refused        bool // its time was up while the bucket refused what it had made
	detail         string
	seed, attempt  int
	commit, image  string
	command        []string
	result         generator.Result
	stdout, stderr string // their ends
	exitCode       int
	signal         string
}

func (f *failure) Error() string {
	return fmt.Sprintf("%s: samples %s: %s", f.cause, f.chunk.Keep, f.detail)
}

// report is the failure as it is kept in the bucket.
func (f *failure) report(t task.Task, d delivery) store.Failure {
	return store.Failure{
		Cause: f.cause, Detail: f.detail, Generator: t.Generator, Commit: f.commit, Image: f.image, RunID: t.RunID, Task: t,
		ChunkStart: f.chunk.First(), ChunkSize: f.chunk.Count(), Seed: f.seed, Attempt: f.attempt,
		Start: f.chunk.Keep.Start, End: f.chunk.Keep.End, Name: f.chunk.Name(),
		Command: f.command, ExitCode: f.exitCode, Signal: f.signal, Stdout: f.stdout, Stderr: f.stderr,
		CPUSeconds: f.result.CPU.Seconds(), WallSeconds: f.result.Wall.Seconds(), PeakRSSBytes: f.result.PeakRSS,
		MessageID: d.messageID, RequestID: d.requestID, Receives: d.receives, Time: time.Now().UTC(),
	}
}
