package worker

import (
	"context"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// The worker's own memory in bytes that garbage may fill before it is collected: for
// itself, and for each chunk that it may store at once, of which a shard has a part of
// 5 MiB and the state of gzip in use. Below that it is collected a quarter as often as
// Go does by default, which was a sixth of the worker's CPU; beyond, as often as needed,
// for the memory is the generators'.
const (
	ownMemory   = 16 << 20
	chunkMemory = 8 << 20
)

// Start configures a worker from the environment and serves the Lambda runtime
// API that AWS_LAMBDA_RUNTIME_API names. It returns only on an error of the
// configuration; when the runtime API is gone, the process ends.
func Start() error {
	c, err := ConfigFromEnv()
	if err != nil {
		return err
	}
	if os.Getenv(stack.EnvAlive) != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(1)
		}()
	}
	if err := generator.Harden(); err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(400)
		debug.SetMemoryLimit(ownMemory + int64(runtime.GOMAXPROCS(0))*chunkMemory)
	}
	cfg, err := store.LoadConfig(context.Background(), c.Region, store.UnlimitedRetries)
	if err != nil {
		return err
	}
	st := store.New(s3.NewFromConfig(cfg, store.ClientOptions), c.Bucket)
	h, err := New(c, st, sqs.NewFromConfig(cfg), os.Stdout)
	if err != nil {
		return err
	}
	lambda.Start(h.Handle)
	return nil
}
