package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/price"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Worker is a Lambda function as a plan sees it.
type Worker struct {
	MemoryMB     int           `json:"memory_mb"`
	Architecture string        `json:"architecture"`
	DiskMB       int           `json:"disk_mb"` // ephemeral storage
	Timeout      time.Duration `json:"-"`       // of one invocation
	Slower       float64       `json:"slower"`  // its CPU takes this many times the seconds of the one that was measured
}

// DefaultWorker is the largest that Lambda has, as in a stack of the size full; one of the size starter
// has 3,008 MB. Lambda's CPUs are taken to be as fast as the one that was measured.
func DefaultWorker() Worker {
	return Worker{MemoryMB: 10240, Architecture: price.X86, DiskMB: 2048, Timeout: 15 * time.Minute, Slower: 1}
}

// How Lambda gives CPUs: in proportion to the memory, one for 1,769 MB, and it
// shows as many as it takes to use them, 6 at most.
// https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
const (
	MegabytesPerCPU = 1769
	maxCPUs         = 6
)

// What could not be measured here and is assumed instead.
const (
	coldStart   = 3 * time.Second       // from the order for a new worker to its first task; billed
	requestTime = 50 * time.Millisecond // of a request to S3 from Lambda
	uploadRate  = 60e6                  // bytes a second from one worker to S3
	uploads     = store.Parallel        // of one chunk side by side
)

// spread is by how much the chunks of one generator differ: the standard deviation of their CPU time as a part of its
// mean. Over 25 generators of the organisation, 5 chunks of 20 samples each, it was 0.05 on average, 0.13 for the
// worst. A task is done when the slowest of its last wave is: slowest has by how many standard deviations that is
// slower than the mean, for 1 to 6 chunks.
const spread = 0.05

var slowest = [maxCPUs + 1]float64{0, 0, 0.56, 0.85, 1.03, 1.16, 1.27}

// Requests one after the other for each chunk, beside its objects: the cell is taken, and committed.
const (
	requestsBefore = 1
	requestsAfter  = 1
)

// CPUs returns how many CPUs the worker sees, which is how many generators it
// runs side by side while there is memory for them.
func (w Worker) CPUs() int {
	return min(max((w.MemoryMB+MegabytesPerCPU-1)/MegabytesPerCPU, 1), maxCPUs)
}

// Share returns how many CPUs' time it gets: 5.79 with 10,240 MB.
func (w Worker) Share() float64 {
	return min(float64(w.MemoryMB)/MegabytesPerCPU, maxCPUs)
}

// Limit is how long a generator may run: the invocation's time less what the worker keeps to commit and to answer.
func (w Worker) Limit() time.Duration { return w.Timeout - worker.Reserve(w.Timeout) }

// room is the memory for generators, in bytes: nine tenths of all, less what the worker itself takes.
func (w Worker) room() float64 {
	const own = 60 << 20
	return max(0.9*float64(w.MemoryMB)*(1<<20)-own, 1)
}

// AtOnce returns how many chunks of a generator run side by side: one per CPU, or
// as many as there is memory for. 0 means that there is not enough for one.
func (w Worker) AtOnce(c Cost, chunkSize int) int {
	rss := float64(c.Memory(chunkSize))
	if rss > w.room() {
		return 0
	}
	const margin = 1.1 // the worker's own
	cpus := float64(w.CPUs())
	return max(int(cpus/max(1, margin*rss/w.room()*cpus)), 1)
}

// chunk is how long one of k chunks takes that run side by side, in seconds.
func (w Worker) chunk(c Cost, samples, k int) float64 {
	return max(c.Wall(samples), c.CPU(samples)*float64(k)/w.Share())*w.slower() + requestsBefore*requestTime.Seconds()
}

// Task is how long an invocation takes for a task of n chunks, in seconds, if nothing fails: they run in waves of as
// many as fit, and at the end the last wave's samples are stored, of which one chunk has so many bytes and objects.
func (w Worker) Task(c Cost, samples, n int, bytes int64, objects int) float64 {
	k := max(w.AtOnce(c, samples), 1)
	last := (n-1)%k + 1
	seconds := float64((n-1)/k)*w.chunk(c, samples, k) + w.chunk(c, samples, last)*(1+spread*slowest[last])
	return seconds + w.store(last, bytes, objects)
}

// store is how long it takes to store k chunks side by side, in seconds.
func (w Worker) store(k int, bytes int64, objects int) float64 {
	requests := math.Ceil(float64(objects)/uploads) + requestsAfter
	return max(float64(k)*float64(bytes)/uploadRate, requests*requestTime.Seconds())
}

func (w Worker) slower() float64 {
	if w.Slower <= 0 {
		return 1
	}
	return w.Slower
}

// dollars is what seconds of invocations cost, without the requests.
func (w Worker) dollars(seconds float64) float64 {
	return seconds * price.PerSecond(w.MemoryMB, w.DiskMB, w.Architecture)
}

// CPU returns the seconds of CPU that a process takes for n samples.
func (c Cost) CPU(n int) float64 { return c.StartCPU + float64(n)*c.SampleCPU }

// Wall returns how long a process takes for n samples when it has a CPU for itself, in seconds.
func (c Cost) Wall(n int) float64 {
	return max(c.StartWall+float64(n)*c.SampleWall, c.CPU(n))
}

// Waits reports whether a process for n samples was seen to take much longer than its CPU time.
func (c Cost) Waits(n int) bool { return c.Wall(n) > 1.3*c.CPU(n) }

// Memory returns what a process takes for n samples, in bytes, and at least what it was seen to take.
func (c Cost) Memory(n int) int64 {
	return c.PeakRSS + int64(max(0, n-c.Samples))*max(0, c.SampleRSS)
}

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

const costsFile = "costs.json" // where costs are kept, in the folder of the local stack

// LoadCosts returns the costs that were saved in a folder, by generator: none if nothing was measured yet.
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
