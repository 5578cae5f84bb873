package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Config is the whole configuration of a worker. It comes from the environment and is read once.
type Config struct {
	Bucket     string   // where samples, receipts and reports go; required
	Generators string   // folder with the index of the generators
	QueueURL   string   // where continuations go and whose messages are put off; needed for SQS events
	DLQURL     string   // where tasks go that can never pass; needed for SQS events
	Region     string   // AWS region
	Function   string   // name of the function; its metrics carry it
	Image      string   // repository@digest of the image the worker runs in; receipts record it
	Required   []string // files that every sample must have beyond those of the contract and of the catalogue
	Limits     Limits
	// The machine is not of the stack: its generators may be others, and may reach others' credentials over the network.
	OwnMachine bool

	RetryDelays float64 // factor on the waits before a retry, for tests; 0 is 1
}

// ConfigFromEnv reads the configuration. Its error names the variable that is missing or wrong.
func ConfigFromEnv() (Config, error) {
	c := Config{
		Bucket:     os.Getenv(stack.EnvBucket),
		Generators: cmp.Or(os.Getenv(stack.EnvGenerators), stack.DefaultGenerators),
		QueueURL:   os.Getenv(stack.EnvQueueURL),
		DLQURL:     os.Getenv(stack.EnvDLQURL),
		Region:     cmp.Or(os.Getenv(stack.EnvRegion), stack.DefaultRegion),
		Function:   os.Getenv(stack.EnvFunction),
		Image:      os.Getenv(stack.EnvImage),
		OwnMachine: os.Getenv(stack.EnvOwnMachine) != "",
	}
	// Lambda gives its limit here, and not in cgroups.
	if megabytes, err := strconv.ParseInt(os.Getenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"), 10, 64); err == nil {
		c.Limits.Memory = megabytes << 20
	}
	if c.Bucket == "" {
		return Config{}, fmt.Errorf("%s is not set: it names the bucket the samples go to", stack.EnvBucket)
	}
	if list := os.Getenv(stack.EnvRequiredFiles); list != "" {
		c.Required = strings.Split(list, ",")
	}
	for _, file := range c.Required {
		if err := task.CheckFile(file); err != nil {
			return Config{}, fmt.Errorf("%s: %w", stack.EnvRequiredFiles, err)
		}
	}
	if text := os.Getenv(stack.EnvRetryDelays); text != "" {
		factor, err := strconv.ParseFloat(text, 64)
		if err != nil || !(factor > 0 && factor <= 1) {
			return Config{}, fmt.Errorf("%s is %q, it must be a number above 0 and at most 1", stack.EnvRetryDelays, text)
		}
		c.RetryDelays = factor
	}
	return c, nil
}

// Start configures a worker from the environment and serves the Lambda runtime API that AWS_LAMBDA_RUNTIME_API names.
// It returns only on an error of the configuration; when the runtime API is gone, the process ends.
func Start() error {
	c, err := ConfigFromEnv()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if os.Getenv(stack.EnvAlive) != "" {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT) // which may reach the whole process group
		go func() {
			if _, err := os.Stdin.Read(make([]byte, 1)); err == nil {
				stop()
				_, _ = io.Copy(io.Discard, os.Stdin)
			}
			os.Exit(1)
		}()
	}
	if err := generator.Harden(); err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		// By default Go collects garbage four times as often, which was a sixth of the worker's CPU. 16 MiB are for
		// the worker and 8 for each chunk that it stores at once (a part of 5 MiB, gzip), the rest for generators.
		debug.SetGCPercent(400)
		debug.SetMemoryLimit(16<<20 + int64(runtime.GOMAXPROCS(0))*8<<20)
	}
	cfg, err := store.LoadConfig(ctx, c.Region, store.UnlimitedRetries)
	if err != nil {
		return err
	}
	st := store.New(s3.NewFromConfig(cfg, store.ClientOptions), c.Bucket)
	h, err := New(c, st, sqs.NewFromConfig(cfg), os.Stdout)
	if err != nil {
		return err
	}
	lambda.StartWithOptions(h.Handle, lambda.WithContext(ctx))
	return nil
}

// Limits bound what the generators of a worker may use. A zero is the default.
type Limits struct {
	Memory   int64         // bytes, of worker and generators together; at most and by default those of the machine
	FreeDisk int64         // bytes that stay free in the temporary folder, an eighth of a small disk; default 64 MiB
	Bytes    int64         // that a chunk may write; default sample.MaxBytes
	Files    int           // that a chunk may write for each of its samples, temporary ones counted; default 1,000
	Patience time.Duration // that a chunk gets, however quick others were; default 2 min
}

// Filled returns the limits with the defaults for what is 0.
func (l Limits) Filled() Limits {
	if there := MachineMemory(); l.Memory == 0 || there > 0 && there < l.Memory {
		l.Memory = there
	}
	l.FreeDisk = cmp.Or(l.FreeDisk, 64<<20) // four chunks of 20 samples at 730 kB, and room for the worker to go on
	l.Bytes = cmp.Or(l.Bytes, sample.MaxBytes)
	l.Files = cmp.Or(l.Files, 2*sample.MaxFiles) // some write every frame of a video to a file first
	l.Patience = cmp.Or(l.Patience, 2*time.Minute)
	return l
}

// Guard makes the guard of the limits. A tenth of the memory is left to the system and to growth between two polls.
func (l Limits) Guard() *generator.Guard {
	return &generator.Guard{Memory: l.Memory / 10 * 9, FreeDisk: l.FreeDisk}
}

// MachineMemory is the memory of the container that this process runs in, or of the machine, in bytes; 0 if unknown.
func MachineMemory() int64 {
	limit := uint64(math.MaxInt64)
	for _, of := range []memlimit.Provider{memlimit.FromSystem, memlimit.FromCgroup} {
		if n, err := of(); err == nil {
			limit = min(limit, n)
		}
	}
	return int64(limit % math.MaxInt64) // which stands for none
}

// oneCPU is what a generator that needs one CPU and little memory holds of the worker's slots.
const oneCPU = 1000

// weight is what a chunk of a kind holds of the slots: one CPU, or more where the memory that such chunks were seen
// to use is more than a CPU's share of it. So a worker begins with a generator per CPU.
func (h *Handler) weight(k kind) int64 {
	part := 1.1 * h.guard.Part(h.usage.of(k).memory) // the next one may use more
	return min(max(oneCPU, int64(part*float64(h.capacity))), h.capacity)
}

// kind is what chunks have in common whose time and memory can be compared.
type kind struct {
	generator, commit string
	samples           int
}

func (w *work) kind(c task.Chunk) kind { return kind{w.generator.Name, w.generator.Commit, c.Count()} }

// usage is what the chunks of each kind have used so far.
type usage struct {
	mu    sync.Mutex
	kinds map[kind]extremes
}

type extremes struct {
	chunks int           // that finished
	wall   time.Duration // of the longest of them
	memory int64         // bytes, the most that one has used, finished or not
}

func (u *usage) of(k kind) extremes {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.kinds[k]
}

func (u *usage) add(k kind, more extremes) {
	u.mu.Lock()
	defer u.mu.Unlock()
	e := u.kinds[k]
	u.kinds[k] = extremes{e.chunks + more.chunks, max(e.wall, more.wall), max(e.memory, more.memory)}
}

// patience is how long a chunk of a kind may run: ten times the longest of at least three, and at least the floor;
// before that 0, which is as long as there is time. It doubles with each delivery, as some chunks differ by more.
func (e extremes) patience(floor time.Duration, deliveries int) time.Duration {
	if e.chunks < 3 {
		return 0
	}
	return max(floor, 10*e.wall) << min(max(deliveries-1, 0), 10)
}

// scratch is the worker's own part of the temporary folder. What chunks write before it is stored is below it.
type scratch struct {
	dir  string
	lock *os.File
}

// openScratch takes the first of the folders vm-dataset-worker-0, -1, ... that no living worker holds, and empties
// it: what is in there belonged to a worker that was killed.
func openScratch() (*scratch, error) {
	for n := 0; ; n++ {
		dir := filepath.Join(os.TempDir(), fmt.Sprintf("vm-dataset-worker-%d", n))
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make scratch folder: %w", err)
		}
		lock, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
		if err == nil {
			err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		}
		if err != nil { // it is held, another user's, or no folder
			_ = lock.Close()
			continue
		}
		s := &scratch{dir: dir, lock: lock}
		if err := s.empty(); err != nil {
			_ = lock.Close()
			return nil, fmt.Errorf("empty scratch folder: %w", err)
		}
		return s, nil
	}
}

func (s *scratch) empty() error {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		err = errors.Join(err, removeAll(filepath.Join(s.dir, e.Name())))
	}
	return err
}

// Folder makes an empty folder for one chunk.
func (s *scratch) Folder() (string, error) { return os.MkdirTemp(s.dir, "chunk-") }

// Remove removes a chunk's folder, or logs why not; the next start tries again.
func (s *scratch) Remove(dir string, log *slog.Logger) {
	if err := removeAll(dir); err != nil {
		log.Error("remove scratch folder", "error", err)
	}
}

// removeAll is os.RemoveAll that also gets rid of folders a generator has made read-only.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
