package target

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
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
			"the stack's outputs lack eventSourceMappingId: neither its function nor a fleet takes tasks, ops worker does on other machines"),
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
