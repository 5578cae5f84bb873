package worker

import (
	"fmt"
	"os"
	"strconv"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
)

// Config is the whole configuration of a worker. It comes from the environment
// and is read once.
type Config struct {
	Bucket     string // where samples, receipts and reports go; required
	Generators string // folder with the index of the generators
	QueueURL   string // where continuations go and whose messages are put off; needed for SQS events
	DLQURL     string // where tasks go that can never pass; needed for SQS events
	Region     string // AWS region
	Limits     Limits
}

// ConfigFromEnv reads the configuration. It fails when OUTPUT_BUCKET is not set.
func ConfigFromEnv() (Config, error) {
	c := Config{
		Bucket:     os.Getenv(stack.EnvBucket),
		Generators: os.Getenv(stack.EnvGenerators),
		QueueURL:   os.Getenv(stack.EnvQueueURL),
		DLQURL:     os.Getenv(stack.EnvDLQURL),
		Region:     os.Getenv(stack.EnvRegion),
	}
	// Lambda tells its limit here, and not in cgroups.
	if megabytes, err := strconv.ParseInt(os.Getenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"), 10, 64); err == nil {
		c.Limits.Memory = megabytes << 20
	}
	if c.Bucket == "" {
		return Config{}, fmt.Errorf("%s is not set: it names the bucket the samples go to", stack.EnvBucket)
	}
	if c.Generators == "" {
		c.Generators = stack.DefaultGenerators
	}
	if c.Region == "" {
		c.Region = stack.DefaultRegion
	}
	return c, nil
}
