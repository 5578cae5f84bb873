// Package contract finds out by experiment whether a generator keeps docs/GENERATORS.md, and what its samples cost.
package contract

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/probe"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Verdict is what a check comes to.
type Verdict string

// The verdicts, from good to bad.
const (
	Keeps  Verdict = "keeps"  // the contract, as far as it can be seen
	Notes  Verdict = "notes"  // it keeps it; there is something to know
	Breaks Verdict = "breaks" // it makes samples, and breaks the contract
	Fails  Verdict = "fails"  // it makes no samples
)

// Property is what a finding is about. The set is closed.
type Property string

// The properties.
const (
	CommandLine  Property = "command_line"  // its flags
	Output       Property = "output"        // what it writes: layout, files, count; or that it fails
	Unlucky      Property = "unlucky_seeds" // some make it fail
	Decodable    Property = "decodable"     // its pictures and videos
	SameSeed     Property = "same_seed"     // the same seed gives the same bytes
	OtherSeed    Property = "other_seed"    // another seed gives other samples
	HashSeed     Property = "hash_seed"     // what it makes depends on PYTHONHASHSEED
	Prefix       Property = "prefix"        // the first N of 2 N samples are those of N
	Twice        Property = "twice"         // twice as many can be made
	OwnFolder    Property = "own_folder"    // it writes into its own
	Home         Property = "home"          // it writes into the home folder
	Outside      Property = "outside"       // it wants to write elsewhere
	Network      Property = "network"
	SharedMemory Property = "shared_memory" // /dev/shm, which Lambda has not
	Fonts        Property = "fonts"         // pixels depend on those of the machine
	OwnJudge     Property = "judge"         // its eval/verify.py scores its own videos
	Watching     Property = "watching"      // that it could not be found out, or made a difference
)

// Finding is something to know about a generator.
type Finding struct {
	Property Property `json:"property"`
	Level    Verdict  `json:"level"`
	Text     string   `json:"text"`
}

// Report is what a check has found. Pointers are nil for what is not known.
type Report struct {
	Generator string          `json:"generator"`
	Commit    string          `json:"commit,omitempty"`
	Verdict   Verdict         `json:"verdict"`
	Findings  []Finding       `json:"findings"`
	Lock      string          `json:"lock,omitempty"` // kept, missing or stale
	Flags     generator.Flags `json:"flags"`
	Domain    string          `json:"domain,omitempty"`
	Files     []string        `json:"files,omitempty"` // of a sample, and its folders
	SameSeed  *bool           `json:"same_seed,omitempty"`
	Times     bool            `json:"times,omitempty"`      // points in time in its JSON files are the exception
	OtherSeed *bool           `json:"other_seed,omitempty"` // gives other samples
	HashSeed  *bool           `json:"hash_seed,omitempty"`  // what it makes depends on it
	Prefix    *bool           `json:"prefix,omitempty"`     // is stable
	Network   *bool           `json:"network,omitempty"`    // it needs it
	Shm       *bool           `json:"shm,omitempty"`        // it needs /dev/shm
	Seen      Seen            `json:"seen"`
	Decoders  []string        `json:"decoders,omitempty"` // that decoded its videos
	Hints     []inspect.Count `json:"hints,omitempty"`    // of the samples of its longest run
	Scores    []probe.Score   `json:"scores,omitempty"`   // that its own judge gives samples of one run
	LeftInTmp int             `json:"left_in_tmp"`        // files in the temporary folder, after a run
	Cost      *plan.Cost      `json:"cost,omitempty"`
	Advice    *Advice         `json:"advice,omitempty"`
	Stderr    string          `json:"stderr,omitempty"` // the end of the stderr of one that fails
}

func (r *Report) add(p Property, level Verdict, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{p, level, fmt.Sprintf(format, args...)})
	rank := map[Verdict]int{Keeps: 0, Notes: 1, Breaks: 2, Fails: 3}
	if rank[level] > rank[r.Verdict] {
		r.Verdict = level
	}
}

// Steps is how many runs of a generator a check takes, for progress displays.
const Steps = 6

// Checker checks generators. It is safe for concurrent use.
type Checker struct {
	Samples  int                         // of a run; one run makes twice as many
	Seed     int                         // from which the seeds come, as those of a run with this seed
	Scratch  string                      // folder for what is made; each generator's part is removed when it is done
	Runs     *probe.Runner               // of all that are checked at once
	Progress func(name string, done int) // called after each step; may be nil
}

// Check runs a ready generator several times. What is wrong is in the report, the error is ctx's or the machine's.
func (c *Checker) Check(ctx context.Context, g *generator.Generator) (*Report, error) {
	r := &Report{Generator: g.Name, Commit: g.Commit, Verdict: Keeps, Findings: []Finding{}, Flags: g.Flags}
	if g.Problem != "" {
		property := Output
		if g.Reason == generator.CommandLine {
			property = CommandLine
		}
		r.add(property, Fails, "%s", g.Problem)
		c.skip(g, 0)
		return r, nil
	}
	dir, err := os.MkdirTemp(c.Scratch, "check-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	k := &check{Checker: c, generator: g, report: r, dir: dir}
	if err := k.all(ctx); err != nil {
		return nil, fmt.Errorf("check %s: %w", g.Name, err)
	}
	c.skip(g, k.done)
	return r, nil
}

// skip reports the steps that were not needed.
func (c *Checker) skip(g *generator.Generator, done int) {
	for ; done < Steps && c.Progress != nil; done++ {
		c.Progress(g.Name, done+1)
	}
}

type check struct {
	*Checker
	generator *generator.Generator
	report    *Report
	dir       string
	runs      int
	done      int
	measured  []probe.Made // of the runs that are the worker's own
}

type order struct {
	count   int // of samples
	seed    int
	env     []string
	watched bool // and kept apart
}

type made struct {
	order
	probe.Made
	scratch string
	failure *generator.Failure // nil if the samples are complete
}

// run makes samples as a worker does. The error is ctx's or of this machine.
func (k *check) run(ctx context.Context, o order) (m *made, err error) {
	err = k.Runs.Retry(func() error {
		if m != nil {
			_ = os.RemoveAll(m.scratch) // it may be what the disk is short of
		}
		m, err = k.try(ctx, o)
		return err
	})
	if m == nil {
		return nil, err
	}
	switch f := probe.Blame(err); {
	case f != nil && f.Cause == task.DiskFull && m.Wall == 0:
		return nil, errors.New(f.Detail) // it was not even started
	case f != nil:
		m.failure = f
	case err != nil:
		return nil, err
	case !o.watched:
		k.measured = append(k.measured, m.Made)
	}
	return m, nil
}

// try makes samples once. Where the error is the generator's there is a result, too.
func (k *check) try(ctx context.Context, o order) (*made, error) {
	k.runs++
	m := &made{order: o, scratch: filepath.Join(k.dir, fmt.Sprint(k.runs))}
	if err := os.Mkdir(m.scratch, 0o700); err != nil {
		return nil, err
	}
	env := o.env
	if o.watched {
		variable, err := watch(m.scratch)
		if err != nil {
			return nil, err
		}
		env = append(env, variable)
	}
	var err error
	m.Made, err = k.Runs.Make(ctx, generator.Request{Generator: k.generator, Samples: o.count, Seed: o.seed,
		Scratch: m.scratch, Env: env, Apart: o.watched})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return m, err
}

// again makes samples once more, and compares those that both runs have.
func (k *check) again(ctx context.Context, first *made, o order) (m *made, d difference, err error) {
	if m, err = k.run(ctx, o); err == nil && m.failure == nil {
		d, err = compare(first.Samples, m.Samples)
	}
	return m, d, err
}

// removeRuns removes what was made, but for one run: the checks of others need the disk, too.
func (k *check) removeRuns(but *made) {
	entries, _ := os.ReadDir(k.dir)
	for _, e := range entries {
		if file := filepath.Join(k.dir, e.Name()); file != but.scratch {
			_ = os.RemoveAll(file)
		}
	}
}

func (k *check) step() {
	if k.done++; k.Progress != nil {
		k.Progress(k.generator.Name, k.done)
	}
}

// seed is that of a chunk of a dataset with the generator's options.
func (k *check) seed(chunk, attempt int) int {
	return task.Seed(k.generator.Options.Namespace(k.generator.Name), k.Seed, k.Samples, chunk, attempt)
}

// runWithSeeds makes the samples of a chunk of the grid, with the first seed that does it, as a worker would.
func (k *check) runWithSeeds(ctx context.Context, chunk int) (*made, error) {
	defer k.step()
	var first *made
	for attempt := range task.SeedTries {
		m, err := k.run(ctx, order{count: k.Samples, seed: k.seed(chunk, attempt)})
		if err != nil {
			return nil, err
		}
		switch {
		case m.failure == nil && first != nil:
			k.report.add(Unlucky, Notes, "seed %d makes it fail (%s), seed %d does not: a worker tries three", first.seed,
				first.failure, m.seed)
			return m, nil
		case m.failure == nil || !m.failure.Cause.Policy().NextSeed:
			return m, nil
		case first == nil:
			first = m
		}
	}
	return first, nil
}

// Advice is how to cut a generator's work.
type Advice struct {
	Chunk   int    `json:"chunk"` // samples of one process
	Batch   int    `json:"batch"` // samples of one task
	Because string `json:"because,omitempty"`
}

// SaveCosts keeps what was measured in the folder of the local stack, for ops plan. Interrupted checks have no report.
func SaveCosts(dir string, reports []*Report) error {
	var costs []plan.Cost
	for _, r := range reports {
		if r != nil && r.Cost != nil {
			costs = append(costs, *r.Cost)
		}
	}
	if len(costs) == 0 {
		return nil
	}
	return plan.SaveCosts(dir, costs...)
}

// advise cuts the work as a large run does by default. catalogued is the catalogue's chunk, 0 for none.
func advise(c plan.Cost, catalogued int) Advice {
	var a Advice
	if catalogued == 0 {
		a.Chunk, a.Because = plan.ChunkSize(c, plan.LargeRun)
	} else {
		a.Chunk, a.Because = c.Bearable(catalogued)
		a.Because = strings.TrimSuffix(fmt.Sprintf("the catalogue says chunks of %d; %s", catalogued, a.Because), "; ")
	}
	a.Batch = plan.DefaultSetting().Batch(c, a.Chunk, math.MaxInt)
	return a
}
