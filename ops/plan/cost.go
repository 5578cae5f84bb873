// Package plan predicts what a dataset takes: tasks, time, storage and money.
package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Cost is what a generator was measured to take. A chunk of n samples takes
// StartCPU + n*SampleCPU seconds of CPU, and the same of wall time.
type Cost struct {
	Generator  string       `json:"generator"`
	Commit     string       `json:"commit,omitempty"`  // that was measured
	Options    task.Options `json:"options,omitempty"` // that it was measured with
	Measured   time.Time    `json:"measured"`
	Machine    string       `json:"machine"`     // model of its CPU
	Samples    int          `json:"samples"`     // that it was measured with
	StartCPU   float64      `json:"start_cpu"`   // seconds, before the first sample
	SampleCPU  float64      `json:"sample_cpu"`  // seconds
	StartWall  float64      `json:"start_wall"`  // seconds, before the first sample
	SampleWall float64      `json:"sample_wall"` // seconds
	PeakRSS    int64        `json:"peak_rss"`    // bytes, of all its processes together
	// bytes that each further sample of one process adds; 0 if it does not grow
	SampleRSS   int64 `json:"sample_rss"`
	SampleBytes int64 `json:"sample_bytes"` // stored for each sample, before compression
	SampleFiles int   `json:"sample_files"` // stored for each sample
}

// costsFile is where costs are kept, in the folder of the local stack.
const costsFile = "costs.json"

// LoadCosts returns the costs that were saved in a folder, by generator: none if
// nothing was measured yet.
func LoadCosts(dir string) (map[string]Cost, error) {
	costs := map[string]Cost{}
	data, err := os.ReadFile(filepath.Join(dir, costsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return costs, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &costs); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w); remove it and measure again", filepath.Join(dir, costsFile), err)
	}
	return costs, nil
}

// SaveCosts keeps costs in a folder, beside those of other generators.
func SaveCosts(dir string, measured ...Cost) error {
	costs, err := LoadCosts(dir)
	if err != nil {
		return err
	}
	for _, c := range measured {
		costs[c.Generator] = c
	}
	data, err := json.MarshalIndent(costs, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, costsFile), append(data, '\n'))
}
