package store

import (
	"context"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Ahead returns how far the bucket's clock is ahead of this machine's, to a second: its answers have
// whole ones. It asks for an object that does not exist. ok is false if no answer names the time.
func (s *Store) Ahead(ctx context.Context) (ahead time.Duration, ok bool) {
	key := task.ManifestKind + "_probe/clock" // no dataset has such a name
	reading := after("readClock", func(_ context.Context, _ any, data middleware.Metadata, err error) error {
		// The answer's time is its second's beginning.
		if at, there := awsmiddleware.GetServerTime(data); there {
			ahead, ok = time.Until(at.Add(time.Second/2)), true
		}
		return err
	})
	_, _ = s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: &key}, func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Finalize.Insert(reading, lastErrorID, middleware.After)
		})
	})
	return ahead, ok
}
