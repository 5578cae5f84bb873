// Package probe runs one generator on this machine as a worker does, and measures it.
package probe

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// Runner runs generators within the limits of a worker. It is safe for concurrent use.
type Runner struct {
	Guard   *generator.Guard // watches all runs together; nil: no limits
	Timeout time.Duration    // of one run; 0: none

	alone sync.RWMutex // read-locked by each run, write-locked by one that must run alone
}

// New returns a Runner with a worker's limits.
func New(timeout time.Duration) *Runner {
	return &Runner{Guard: worker.Limits{}.Filled().Guard(), Timeout: timeout}
}

// Made is what a run took and wrote.
type Made struct {
	generator.Result
	Waited  time.Duration // for a CPU, because others were at work; part of Wall
	Domain  string
	Samples []sample.Sample
}

// Run runs a generator once, as generator.Run does.
func (r *Runner) Run(ctx context.Context, q generator.Request) (generator.Result, error) {
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Timeout)
		defer cancel()
	}
	limits := worker.Limits{}.Filled()
	q.Guard, q.MaxBytes, q.MaxFiles = r.Guard, limits.Bytes, limits.Files*(q.Samples+1)
	return generator.Run(ctx, q)
}

// Make runs a generator once and checks its samples as a worker does. Blame
// recognizes the error if the generator is at fault; the result is valid with it.
func (r *Runner) Make(ctx context.Context, q generator.Request) (m Made, err error) {
	before := contention()
	m.Result, err = r.Run(ctx, q)
	m.Waited = contention() - before
	if ctx.Err() != nil {
		return m, context.Cause(ctx)
	}
	if err == nil {
		m.Domain, m.Samples, err = Collect(q.Generator, m.Output, q.Samples)
	}
	return m, err
}

// Retry calls do, which runs a generator, while others may run beside it. If memory or disk were too short, it calls do
// once more, alone, as a worker would: only then the generator counts as too large.
func (r *Runner) Retry(do func() error) error {
	r.alone.RLock()
	err := do()
	r.alone.RUnlock()
	if f := Blame(err); f == nil || !f.Cause.Policy().Fewer {
		return err
	}
	r.alone.Lock()
	defer r.alone.Unlock()
	return do()
}

// Collect checks what a run of so many samples wrote, as a worker does, and returns
// the samples at the places: all of them, from index 0, if none is given.
func Collect(g *generator.Generator, output string, samples int,
	places ...sample.Place) (domain string, list []sample.Sample, err error) {
	if places == nil {
		for i := range samples {
			places = append(places, sample.Place{Offset: i, Index: i})
		}
	}
	return sample.Collect(output, samples, places, sample.Rules{Required: g.Required, Videoless: g.Videoless,
		FilesVary: g.FilesVary})
}

// Blame returns the failure that an error of Run, Make or Collect is, or nil if the generator is not at fault.
func Blame(err error) *generator.Failure {
	if f, ok := errors.AsType[*generator.Failure](err); ok {
		return f
	}
	if bad, ok := errors.AsType[*sample.Error](err); ok {
		return &generator.Failure{Cause: bad.Cause, Detail: bad.Detail}
	}
	return nil
}
