package store

import (
	"fmt"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Receipt says what one generator process has made of a cell. It is written after the
// objects, and what is in no receipt does not count.
type Receipt struct {
	Dataset   task.Dataset `json:"dataset,omitzero"`
	Generator string       `json:"generator"`
	Commit    string       `json:"commit,omitempty"`
	Image     string       `json:"image,omitempty"`
	// SHA-256 of what the generator's packages were installed from
	Lock       string `json:"lock,omitempty"`
	Python     string `json:"python,omitempty"`   // its version
	Platform   string `json:"platform,omitempty"` // as in linux-x86_64
	RunID      string `json:"run_id,omitempty"`
	RunSeed    int    `json:"run_seed"`
	ChunkSize  int    `json:"chunk_size"`
	PartSize   int    `json:"part_size,omitempty"` // of the chunk, that one process made; 0 is all of it
	ChunkStart int    `json:"chunk_start"`         // first index that the process made
	Seed       int    `json:"seed"`                // that the generator was given
	Attempt    int    `json:"attempt"`             // whose seed it was
	// of a repair: what its task began with, and its name says
	FirstAttempt int             `json:"first_attempt,omitempty"`
	Command      []string        `json:"command"`
	Start        int             `json:"start"` // of what was kept
	End          int             `json:"end"`   // exclusive
	Indices      []int           `json:"indices,omitempty"`
	Epoch        int             `json:"epoch"` // of the cell, when it was committed
	Format       task.Format     `json:"output_format"`
	Domain       string          `json:"domain"`
	Samples      []ReceiptSample `json:"samples"`
	Shard        *Object         `json:"shard,omitempty"`
	CPUSeconds   float64         `json:"cpu_seconds"`
	WallSeconds  float64         `json:"wall_seconds"`
	PeakRSSBytes int64           `json:"peak_rss_bytes"`
	RequestID    string          `json:"request_id,omitempty"`
	MessageID    string          `json:"message_id,omitempty"`
	Receives     int             `json:"receives,omitempty"`
	Committed    time.Time       `json:"committed"`

	ReadFrom string          `json:"-"` // the key of its cell
	Current  []ReceiptSample `json:"-"` // those of Samples that no later receipt describes
}

// ReceiptSample is one sample of a receipt, and ReceiptFile one file of a sample.
type (
	ReceiptSample = sample.Sample
	ReceiptFile   = sample.File
)

// Range returns the range of what was kept, first to last.
func (r Receipt) Range() task.Range { return task.Range{Start: r.Start, End: r.End} }

// ID is unique among the receipts of a generator.
func (r Receipt) ID() string { return fmt.Sprintf("%s#%d-%d", r.ReadFrom, r.Epoch, r.Start) }

// Holds reports whether a sample is in the receipt.
func (r Receipt) Holds(index int) bool { return holds(r.Samples, index) }

// Describes reports whether a sample is now what the receipt has of it.
func (r Receipt) Describes(index int) bool { return holds(r.Current, index) }

func holds(samples []ReceiptSample, index int) bool {
	return slices.ContainsFunc(samples, func(s ReceiptSample) bool { return s.Index == index })
}

// Objects returns the keys of the data objects that the receipt vouches for.
func (r Receipt) Objects() (keys []string) {
	if len(r.Current) > 0 && r.Shard != nil {
		return []string{r.Shard.Key}
	}
	for _, s := range r.Current {
		for _, f := range s.Files {
			keys = append(keys, r.Dataset.FileKey(r.Generator, s.ID, f.Name))
		}
	}
	return keys
}

// Files returns how many files the samples have.
func (r Receipt) Files() (n int) {
	for _, s := range r.Samples {
		n += len(s.Files)
	}
	return n
}

// Bytes returns the size of the samples' files, as they are unpacked.
func (r Receipt) Bytes() int64 {
	var n int64
	for _, s := range r.Samples {
		for _, f := range s.Files {
			n += f.Size
		}
	}
	return n
}

// Made returns how many samples the generator was asked for.
func (r Receipt) Made() int {
	switch {
	case r.Indices != nil:
		return len(r.Indices)
	case r.PartSize > 0:
		return r.PartSize
	}
	return r.ChunkSize
}
