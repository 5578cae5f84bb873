package target

import (
	"cmp"
	"context"
	"runtime"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

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
