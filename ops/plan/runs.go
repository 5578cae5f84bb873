package plan

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// Runs runs generators within the limits of a worker. It is safe for concurrent
// use.
type Runs struct {
	Guard   *generator.Guard // watches all that run at once; nil for nobody, and no limits
	Timeout time.Duration    // of one; 0 is none

	alone sync.RWMutex // each holds it to read, to write who is to have no other beside it
}

// Run runs a generator once, as generator.Run does.
func (r *Runs) Run(ctx context.Context, q generator.Request) (generator.Result, error) {
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Timeout)
		defer cancel()
	}
	limits := worker.Limits{}.Filled()
	q.Guard, q.MaxBytes, q.MaxFiles = r.Guard, limits.Bytes, limits.Files*(q.Samples+1)
	return generator.Run(ctx, q)
}

// Retry does what runs a generator, with others beside it. If memory or disk were
// too short for it, it is done once more, alone, as a worker would: only then they
// count as too little.
func (r *Runs) Retry(do func() error) error {
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

// Collect checks all that a generator wrote as a worker does.
func Collect(g *generator.Generator, output string, samples int) (domain string, list []sample.Sample, err error) {
	places := make([]sample.Place, samples)
	for i := range places {
		places[i] = sample.Place{Offset: i, Index: i}
	}
	return sample.Collect(output, samples, places, sample.Rules{Required: g.Required, Videoless: g.Videoless,
		FilesVary: g.FilesVary})
}

// Blame returns the failure that an error of a run or of Collect is, or nil if
// something else than the generator is to blame.
func Blame(err error) *generator.Failure {
	if f, ok := errors.AsType[*generator.Failure](err); ok {
		return f
	}
	if bad, ok := errors.AsType[*sample.Error](err); ok {
		return &generator.Failure{Cause: bad.Cause, Detail: bad.Detail}
	}
	return nil
}
