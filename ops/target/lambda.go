package target

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
)

// States of an event source mapping that matter here. Between them it is
// Creating, Enabling, Updating, Disabling or Deleting; the SDK has no names for
// them. https://docs.aws.amazon.com/lambda/latest/api/API_EventSourceMappingConfiguration.html
const (
	MappingEnabled  = "Enabled"
	MappingDisabled = "Disabled"
)

// WithoutLambda reports whether the stack's function takes no tasks: its fleet does, or ops worker on other machines.
func (t *Target) WithoutLambda() bool { return t.EventSourceMappingID == "" && t.Name != stack.Local }

// Mapping asks for the event source mapping.
func (t *Target) Mapping(ctx context.Context, l *lambda.Client) (*lambda.GetEventSourceMappingOutput, error) {
	switch {
	case t.WithoutLambda() && t.FleetWorkers > 0:
		return nil, ui.WithHint(errors.New("the stack's function takes no tasks, its fleet does, which cannot be paused"),
			"pulumi config set fleetMaxWorkers 0, then pulumi up, which sends it away; the tasks wait in the queue")
	case t.WithoutLambda():
		return nil, ui.WithHint(errors.New(
			"the stack's outputs lack eventSourceMappingId: neither its function nor a fleet takes tasks, ops worker does on "+
				"other machines"),
			"stop and start the workers where they run; or pulumi config set lambda true, then pulumi up")
	case t.EventSourceMappingID == "":
		return nil, ui.WithHint(errors.New(
			"the stack outputs lack eventSourceMappingId: what gives its tasks to workers is unknown"), "ops local down and up")
	}
	out, err := l.GetEventSourceMapping(ctx, &lambda.GetEventSourceMappingInput{UUID: &t.EventSourceMappingID})
	if err != nil {
		return nil, t.mappingError(err)
	}
	return out, nil
}

// MappingState asks in which state the event source mapping is.
func (t *Target) MappingState(ctx context.Context, l *lambda.Client) (string, error) {
	m, err := t.Mapping(ctx, l)
	if err != nil {
		return "", err
	}
	return aws.ToString(m.State), nil
}

func (t *Target) mappingError(err error) error {
	if _, gone := errors.AsType[*types.ResourceNotFoundException](err); gone {
		return ui.WithHint(fmt.Errorf("the event source mapping %s is gone: no task can reach a worker",
			t.EventSourceMappingID), "pulumi up --refresh makes it again")
	}
	if _, busy := errors.AsType[*types.ResourceInUseException](err); busy {
		return ui.WithHint(fmt.Errorf("the event source mapping is being changed: %w", err), "the same in a minute")
	}
	return fmt.Errorf("the event source mapping: %w", err)
}

// mappingPatience is how long Switch waits for Lambda. It mostly takes less than a minute.
const mappingPatience = 3 * time.Minute

// Switch has the event source mapping give tasks to workers, or not, and waits until it is Enabled or Disabled. It says
// the states in between, and reports whether there was anything to change.
func (t *Target) Switch(ctx context.Context, l *lambda.Client, on bool, say func(string, ...any)) (bool, error) {
	want := MappingDisabled
	if on {
		want = MappingEnabled
	}
	if state, err := t.MappingState(ctx, l); err != nil || state == want {
		return false, err
	}
	if _, err := l.UpdateEventSourceMapping(ctx, &lambda.UpdateEventSourceMappingInput{UUID: &t.EventSourceMappingID,
		Enabled: &on}); err != nil {
		return false, t.mappingError(err)
	}
	limit := time.Now().Add(mappingPatience)
	for seen, pace := "", 100*time.Millisecond; ; pace = min(2*pace, 2*time.Second) {
		state, err := t.MappingState(ctx, l)
		switch {
		case err != nil || state == want:
			return true, err
		case time.Now().After(limit):
			return true, ui.WithHint(fmt.Errorf("after %s the event source mapping is still %s", ui.Span(mappingPatience),
				state), "the same command, or ops%s doctor", t.Flags())
		case state != seen:
			say("the event source mapping is %s", state)
		}
		seen = state
		select {
		case <-ctx.Done():
			return true, ui.WithHint(fmt.Errorf("stopped while the event source mapping is %s; it still becomes %s", seen,
				want), "ops%s doctor shows its state", t.Flags())
		case <-time.After(pace):
		}
	}
}

// examineTimeout is for a new worker's start and its examination, which takes 20 s at most.
const examineTimeout = 2 * time.Minute

// Examine invokes the version of the function that works on the queue, beside its tasks, and returns what
// the worker answers about itself.
func (t *Target) Examine(ctx context.Context, l *lambda.Client) (*worker.Examination, error) {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	in := &lambda.InvokeInput{FunctionName: &t.FunctionName, Payload: []byte(worker.Examine)}
	if t.versioned() {
		in.Qualifier = aws.String(stack.Alias)
	}
	out, err := l.Invoke(ctx, in)
	if err != nil {
		return nil, err
	}
	if out.FunctionError != nil {
		var answer struct{ ErrorMessage string }
		if err := json.Unmarshal(out.Payload, &answer); err != nil || answer.ErrorMessage == "" {
			answer.ErrorMessage = string(out.Payload)
		}
		return nil, ui.WithHint(fmt.Errorf("it failed (%s): %s", aws.ToString(out.FunctionError), answer.ErrorMessage),
			"pulumi up, if its image is older than this ops; ops%s logs --since 15m", t.Flags())
	}
	x := &worker.Examination{}
	if err := json.Unmarshal(out.Payload, x); err != nil || x.Kernel == "" {
		return nil, ui.WithHint(fmt.Errorf("its answer is not that of a worker: %s", ui.Cut(string(out.Payload), 100)),
			"pulumi up")
	}
	return x, nil
}

// Versions returns what is published of the function, and its unpublished state, in no order.
func (t *Target) Versions(ctx context.Context, l *lambda.Client) (all []types.FunctionConfiguration, err error) {
	pages := lambda.NewListVersionsByFunctionPaginator(l,
		&lambda.ListVersionsByFunctionInput{FunctionName: &t.FunctionName})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Versions...)
	}
	return all, nil
}

// VersionNumber is 0 for what was not published.
func VersionNumber(f *types.FunctionConfiguration) int {
	n, _ := strconv.Atoi(aws.ToString(f.Version))
	return n
}

func (t *Target) versioned() bool { return strings.HasSuffix(t.FunctionARN, ":"+stack.Alias) }

// RolledBack returns the generators in the image of the version that works on the queue, or nil if that is
// the stack's newest image, which the outputs describe.
func (t *Target) RolledBack(ctx context.Context, say func(format string, args ...any)) ([]worker.Installed, error) {
	if t.WithoutLambda() || !t.versioned() {
		return nil, nil
	}
	l, err := t.Lambda(ctx)
	if err != nil {
		return nil, err
	}
	f, err := l.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &t.FunctionARN})
	if err != nil {
		say("note: Lambda does not say which version works on the queue (%s); the newest is assumed", ui.Plain(err))
		return nil, nil
	}
	if f.Environment == nil || f.Environment.Variables[stack.EnvImage] == "" { // it may not be decrypted by everybody
		say("note: Lambda does not say which image works on the queue; the newest is assumed")
		return nil, nil
	}
	if f.Environment.Variables[stack.EnvImage] == t.ImageURI {
		return nil, nil
	}
	version := aws.ToString(f.Version)
	x, err := t.Examine(ctx, l)
	if err == nil && len(x.Generators) == 0 {
		err = fmt.Errorf("its image has none: %s", x.Problem)
	}
	if err != nil {
		return nil, ui.WithHint(fmt.Errorf("version %s of the function works on the queue and not the newest, and which "+
			"generators it has is not known: %w",
			version, err), "pulumi up --refresh goes back to the newest; ops%s doctor", t.Flags())
	}
	say("note: version %s of the function works on the queue and not the newest: generators and commits are those of "+
		"its image", version)
	return x.Generators, nil
}

// Worker is a stack's worker, as far as its outputs describe it.
func (t *Target) Worker() plan.Worker {
	w := plan.DefaultWorker()
	if t.Name == stack.Local {
		return w // what it would be in Lambda
	}
	w.MemoryMB = cmp.Or(t.MemoryMB, w.MemoryMB)
	w.Architecture = cmp.Or(t.Architecture, w.Architecture)
	return w
}

// Ask asks AWS for what the stack outputs do not have. Without it, a plan assumes defaults.
func (t *Target) Ask(ctx context.Context, say func(format string, args ...any), s *plan.Setting) {
	q, err := t.Queue(ctx)
	if err == nil {
		settings, e := q.Settings(ctx)
		s.Retention, err = settings.Retention, e
	}
	if err != nil {
		say("note: the queue does not say how long it keeps a task (%s); 7 days are assumed", ui.Plain(err))
	}
	if t.FunctionName == "" || t.EventSourceMappingID == "" {
		return
	}
	l, err := t.Lambda(ctx)
	if err == nil {
		err = t.askLambda(ctx, l, s)
	}
	if err != nil {
		say("note: Lambda does not say how the stack is configured (%s); %d workers of %s are assumed", ui.Plain(err),
			s.Concurrency, s.Timeout)
	}
}

func (t *Target) askLambda(ctx context.Context, l *lambda.Client, s *plan.Setting) error {
	works := cmp.Or(t.FunctionARN, t.FunctionName) // its alias has the version that works
	f, err := l.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &works})
	if err != nil {
		return err
	}
	if f.Timeout != nil {
		s.Timeout = time.Duration(*f.Timeout) * time.Second
	}
	if f.EphemeralStorage != nil && f.EphemeralStorage.Size != nil {
		s.DiskMB = int(*f.EphemeralStorage.Size)
	}
	m, err := t.Mapping(ctx, l)
	if err != nil {
		return err
	}
	if m.ScalingConfig != nil && m.ScalingConfig.MaximumConcurrency != nil {
		s.Concurrency = int(*m.ScalingConfig.MaximumConcurrency)
	} else {
		s.Concurrency = plan.MostWorkers
	}
	return nil
}

// Setting is what tasks are cut for. A stack on AWS is not asked for its number of workers: the default is assumed.
func (t *Target) Setting() plan.Setting {
	s := plan.DefaultSetting()
	s.Worker = t.Worker()
	if t.Name == stack.Local && t.Workers > 0 { // they share the CPUs, and each has as much memory for one as in Lambda
		s.Concurrency, s.MemoryMB = t.Workers, max(1, runtime.NumCPU()/t.Workers)*plan.MegabytesPerCPU
	}
	return s
}
