package doctor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

func (d *doctor) function(ctx context.Context) (string, error) {
	out, err := d.lambda.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &d.t.FunctionARN})
	if err != nil {
		return "", err
	}
	c := out.Configuration
	reason := func(state any, code any, text *string) error {
		return fmt.Errorf("it is %v: %v %s", state, code, aws.ToString(text))
	}
	switch {
	case c.StateReasonCode == types.StateReasonCodeInvalidImage:
		return "", ui.WithHint(reason(c.State, c.StateReasonCode, c.StateReason), manifestRule)
	case c.LastUpdateStatusReasonCode == types.LastUpdateStatusReasonCodeInvalidImage:
		return "", ui.WithHint(reason("not updated", c.LastUpdateStatusReasonCode, c.LastUpdateStatusReason), manifestRule)
	case c.State == types.StatePending:
		return "", ui.WithHint(reason(c.State, c.StateReasonCode, c.StateReason), "the same in a minute")
	case c.State != types.StateActive && c.State != types.StateInactive: // an inactive one wakes at the first task
		return "", ui.WithHint(reason(c.State, c.StateReasonCode, c.StateReason), "pulumi up")
	case c.LastUpdateStatus == types.LastUpdateStatusInProgress:
		return "", ui.WithHint(errors.New("an update is in progress"), "the same in a minute")
	case c.LastUpdateStatus == types.LastUpdateStatusFailed:
		return "", ui.WithHint(reason("not updated", c.LastUpdateStatusReasonCode, c.LastUpdateStatusReason), "pulumi up")
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
		return "", ui.WithHint(fmt.Errorf("it runs the image %q, the stack's is %s", runs, d.t.ImageURI),
			"pulumi up --refresh")
	}
	if len(c.Architectures) > 0 && string(c.Architectures[0]) != d.t.Architecture {
		return "", ui.WithHint(fmt.Errorf("it runs on %s, the stack is for %s", c.Architectures[0], d.t.Architecture),
			"pulumi up --refresh")
	}
	env := map[string]string{}
	if c.Environment != nil {
		env = c.Environment.Variables
	}
	for _, v := range []struct{ name, want string }{{stack.EnvBucket, d.t.BucketName}, {stack.EnvQueueURL, d.t.QueueURL},
		{stack.EnvDLQURL, d.t.DLQURL}} {
		if env[v.name] != v.want {
			return "", ui.WithHint(fmt.Errorf("its %s is %q, the stack's is %q", v.name, env[v.name], v.want),
				"pulumi up --refresh")
		}
	}
	timeout := time.Duration(aws.ToInt32(c.Timeout)) * time.Second
	s, err := d.tasks.Settings(ctx)
	if err != nil {
		return "", err
	}
	if timeout >= s.Visibility {
		return "", ui.WithHint(fmt.Errorf(
			"it may take %s, but the queue hides a task for %s only: tasks would be delivered again while they run",
			ui.Span(timeout), ui.Span(s.Visibility)),
			"timeoutSeconds below visibilityTimeoutSeconds in the stack's configuration, then pulumi up")
	}
	return fmt.Sprintf("%s, %d MB, %s, at most %s", c.State, aws.ToInt32(c.MemorySize), d.t.Architecture,
		ui.Span(timeout)), nil
}

// rolledBack says that a version works which is not the newest, or nothing.
func (d *doctor) rolledBack(ctx context.Context, works *types.FunctionConfiguration) (string, error) {
	version, err := strconv.Atoi(aws.ToString(works.Version))
	if err != nil {
		return "", nil //nolint:nilerr // $LATEST, which has no number: nothing is published
	}
	newest := version
	pages := lambda.NewListVersionsByFunctionPaginator(d.lambda,
		&lambda.ListVersionsByFunctionInput{FunctionName: &d.t.FunctionName})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return "", err
		}
		for _, v := range page.Versions {
			if n, err := strconv.Atoi(aws.ToString(v.Version)); err == nil {
				newest = max(newest, n)
			}
		}
	}
	if version == newest {
		return "", nil
	}
	return fmt.Sprintf("%s, version %d takes tasks, not the newest, %d: ops%s rollback --to %[3]d, or pulumi up --refresh, ends that",
		works.State, version, newest, d.t.Flags()), nil
}

// digest is what follows the last @ of an image's URI, or all of one without.
func digest(uri string) string { return uri[strings.LastIndex(uri, "@")+1:] }
