package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

func (d *doctor) function(ctx context.Context) (string, error) {
	out, err := d.lambda.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &d.t.FunctionARN})
	if err != nil {
		return "", err
	}
	c := out.Configuration
	refused := func(way string, state, code any, text *string) (string, error) {
		return wrong(way, "it is %v: %v %s", state, code, aws.ToString(text))
	}
	switch {
	case c.StateReasonCode == types.StateReasonCodeInvalidImage:
		return refused(manifestRule, c.State, c.StateReasonCode, c.StateReason)
	case c.LastUpdateStatusReasonCode == types.LastUpdateStatusReasonCodeInvalidImage:
		return refused(manifestRule, "not updated", c.LastUpdateStatusReasonCode, c.LastUpdateStatusReason)
	case c.State == types.StatePending:
		return refused("the same in a minute", c.State, c.StateReasonCode, c.StateReason)
	case c.State != types.StateActive && c.State != types.StateInactive: // an inactive one wakes at the first task
		return refused("pulumi up", c.State, c.StateReasonCode, c.StateReason)
	case c.LastUpdateStatus == types.LastUpdateStatusInProgress:
		return wrong("the same in a minute", "an update is in progress")
	case c.LastUpdateStatus == types.LastUpdateStatusFailed:
		return refused("pulumi up", "not updated", c.LastUpdateStatusReasonCode, c.LastUpdateStatusReason)
	}
	runs := ""
	if out.Code != nil {
		runs = aws.ToString(out.Code.ResolvedImageUri)
	}
	rolledBack, err := d.rolledBack(ctx, c)
	switch {
	case err != nil:
		return "", err
	case rolledBack != "":
		return rolledBack, nil // its image and settings are not the stack's
	}
	if digest(runs) != digest(d.t.ImageURI) {
		return wrong(refresh, "it runs the image %q, the stack's is %s", runs, d.t.ImageURI)
	}
	if len(c.Architectures) > 0 && string(c.Architectures[0]) != d.t.Architecture {
		return wrong(refresh, "it runs on %s, the stack is for %s", c.Architectures[0], d.t.Architecture)
	}
	env := map[string]string{}
	if c.Environment != nil {
		env = c.Environment.Variables
	}
	for _, v := range []struct{ name, want string }{{stack.EnvBucket, d.t.BucketName}, {stack.EnvQueueURL, d.t.QueueURL},
		{stack.EnvDLQURL, d.t.DLQURL}} {
		if env[v.name] != v.want {
			return wrong(refresh, "its %s is %q, the stack's is %q", v.name, env[v.name], v.want)
		}
	}
	timeout := time.Duration(aws.ToInt32(c.Timeout)) * time.Second
	s, err := d.tasks.Settings(ctx)
	if err != nil {
		return "", err
	}
	if timeout >= s.Visibility {
		return wrong("timeoutSeconds below visibilityTimeoutSeconds in the stack's configuration, then pulumi up",
			"it may take %s, but the queue hides a task for %s only: tasks would be delivered again while they run",
			ui.Span(timeout), ui.Span(s.Visibility))
	}
	return fmt.Sprintf("%s, %d MB, %s, at most %s", c.State, aws.ToInt32(c.MemorySize), d.t.Architecture,
		ui.Span(timeout)), nil
}

// rolledBack says that a version works which is not the newest, or nothing.
func (d *doctor) rolledBack(ctx context.Context, works *types.FunctionConfiguration) (string, error) {
	version := target.VersionNumber(works)
	if version == 0 {
		return "", nil
	}
	versions, err := d.t.Versions(ctx, d.lambda)
	if err != nil {
		return "", err
	}
	newest := version
	for i := range versions {
		newest = max(newest, target.VersionNumber(&versions[i]))
	}
	if version == newest {
		return "", nil
	}
	return fmt.Sprintf("%s, version %d takes tasks, not the newest, %d: ops%s rollback --to %[3]d, or "+refresh+", ends that",
		works.State, version, newest, d.t.Flags()), nil
}

// digest is what follows the last @ of an image's URI, or all of one without.
func digest(uri string) string { return uri[strings.LastIndex(uri, "@")+1:] }
