package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
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

	CPUs        int     // generators that run at once, where there is memory for them; 0 is GOMAXPROCS
	Folder      string  // where generators write; "" is the temporary folder
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
	if err := sandbox.Harden(); err != nil {
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

// scratch is the worker's own part of a folder. What chunks write before it is stored is below it.
type scratch struct {
	dir  string
	lock *os.File
}

// openScratch takes the first of the folders vm-dataset-worker-0, -1, ... that no living worker holds, and empties
// it: what is in there belonged to a worker that was killed.
func openScratch(folder string) (*scratch, error) {
	for n := 0; ; n++ {
		dir := filepath.Join(folder, fmt.Sprintf("vm-dataset-worker-%d", n))
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
