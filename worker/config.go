package worker

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Config is the whole configuration of a worker. It comes from the environment
// and is read once.
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

	RetryDelays float64 // factor on the waits before a retry, for tests; 0 is 1
}

// ConfigFromEnv reads the configuration. It fails when OUTPUT_BUCKET is not set,
// when REQUIRED_FILES is not a list of file names, and when RETRY_DELAY_FACTOR is
// not a number above 0 and at most 1.
func ConfigFromEnv() (Config, error) {
	c := Config{
		Bucket:     os.Getenv(stack.EnvBucket),
		Generators: cmp.Or(os.Getenv(stack.EnvGenerators), stack.DefaultGenerators),
		QueueURL:   os.Getenv(stack.EnvQueueURL),
		DLQURL:     os.Getenv(stack.EnvDLQURL),
		Region:     cmp.Or(os.Getenv(stack.EnvRegion), stack.DefaultRegion),
		Function:   os.Getenv(stack.EnvFunction),
		Image:      os.Getenv(stack.EnvImage),
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
