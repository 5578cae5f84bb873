package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
)

// worstClock is how far a machine's clock may be off: AWS refuses requests that are five minutes off.
const worstClock = time.Minute

// worker invokes the function once and returns what it answers about its machine. The first finding
// is a problem, and the only one, if it does not answer.
func (d *doctor) worker(ctx context.Context) []Finding {
	x, err := d.t.Examine(ctx, d.lambda)
	if err != nil {
		return []Finding{finding("worker", "", err)}
	}
	found := []Finding{{Check: "worker", State: "ok", Says: fmt.Sprintf("Linux %s, %s, %s, %s MB, as user %d", x.Kernel,
		x.Machine, ui.Plural(x.CPUs, "CPU"), ui.Count(int(x.MemoryMB)), x.User)}}
	if x.Problem != "" {
		found = append(found, finding("sandbox", "", errors.New(x.Problem)))
	} else if x.Sees != nil {
		says, err := sandbox(x)
		found = append(found, finding("sandbox", says, err))
	}
	says, err := clock(x)
	found = append(found, finding("clock", says, err))
	ready := 0
	for _, g := range x.Generators {
		if g.Problem == "" {
			ready++
			continue
		}
		found = append(found, finding("generator", "", ui.WithHint(
			fmt.Errorf("%s is in the image and cannot run: %s", g.Name, g.Problem), "ops generators check %s, then pulumi up",
			g.Name)))
	}
	if ready > 0 && ready == len(x.Generators) {
		found = append(found, Finding{Check: "generator", State: "ok", Says: fmt.Sprintf("all %d can run", ready)})
	}
	return found
}

// sandbox judges what generators reach. Command lines are everybody's.
func sandbox(x *worker.Examination) (string, error) {
	landlock := "no Landlock as Linux has it since 5.19"
	if x.Landlock > 0 {
		landlock = fmt.Sprintf("Landlock %d", x.Landlock)
	}
	var open []string
	for _, kind := range []string{"environ", "mem", "maps", "fd"} {
		ids := x.Sees.Proc[kind]
		switch {
		case slices.Contains(ids, x.Worker):
			open = append(open, kind+" of the worker")
		case len(ids) > 0:
			open = append(open, fmt.Sprintf("%s of %s", kind, process(ids)))
		}
	}
	network := "with the network"
	if !x.Sees.Network {
		network = "without a network"
	}
	if len(open) > 0 {
		return wrong("run only generators that may have the rights of the function's role",
			"%s; a generator can read %s in /proc, which may hold credentials", landlock, strings.Join(open, ", "))
	}
	writable := "nothing outside its own folders"
	if len(x.Sees.Writable) > 0 {
		writable = strings.Join(x.Sees.Writable, ", ")
	}
	return fmt.Sprintf("%s; a generator runs %s, reads %d command lines of others in /proc and no environment or memory, "+
		"and can write to %s", landlock, network, len(x.Sees.Proc["cmdline"]), writable), nil
}

func process(ids []int) string {
	var names []string
	for _, id := range ids {
		names = append(names, strconv.Itoa(id))
	}
	return "process " + ui.Some(names, 3)
}

func clock(x *worker.Examination) (string, error) {
	if x.ClockAhead == nil {
		return wrong("check the function's network", "the bucket did not tell the worker its time: it does not answer there")
	}
	off := time.Duration(*x.ClockAhead * float64(time.Second)).Round(time.Second)
	if off.Abs() > worstClock {
		return wrong("set the clock of the machine: AWS refuses requests that are 5 minutes off",
			"the bucket's clock and the worker's differ by %s", ui.Span(off.Abs()))
	}
	return fmt.Sprintf("%s off the bucket's, to a second", ui.Span(off.Abs())), nil
}

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
	return fmt.Sprintf("%s, version %d takes tasks, not the newest, %d: ops%s rollback --to %[3]d, or %[5]s, ends that",
		works.State, version, newest, d.t.Flags(), refresh), nil
}

// digest is what follows the last @ of an image's URI, or all of one without.
func digest(uri string) string { return uri[strings.LastIndex(uri, "@")+1:] }
