package flags

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// State is what became of a flagged sample.
type State string

// The states.
const (
	Open     State = "open"     // its files are those that were flagged
	Resolved State = "resolved" // it has other files now: a repair has replaced it
	Gone     State = "gone"     // it is not committed any more
)

// Listed is a flag with the state of its sample.
type Listed struct {
	Flag
	State State `json:"state"`
}

// States finds out the states of flags, which are in order, from the receipts of their samples.
func States(ctx context.Context, st *store.Store, list []Flag) ([]Listed, error) {
	all := make([]Listed, len(list))
	for start := 0; start < len(list); {
		end, generator := start, list[start].Generator
		var indices []int
		for ; end < len(list) && list[end].Generator == generator; end++ {
			indices = append(indices, list[end].Index)
		}
		samples, err := committed(ctx, st, generator, slices.Compact(indices))
		if err != nil {
			return nil, err
		}
		for ; start < end; start++ {
			f := list[start]
			all[start] = Listed{f, Gone}
			if s, there := samples[f.Index]; there {
				all[start].State = f.state(s)
			}
		}
	}
	return all, nil
}

// Closed returns those of flags, which are in order, whose samples were replaced or are not committed any more.
func Closed(ctx context.Context, st *store.Store, list []Flag) (closed []Flag, err error) {
	states, err := States(ctx, st, list)
	for _, f := range states {
		if f.State != Open {
			closed = append(closed, f.Flag)
		}
	}
	return closed, err
}

// Of returns those of flags that are on samples of a generator. It reads nothing.
func Of(list []Flag, generator string, samples []Sample) (of []Flag) {
	ids := map[int]string{}
	for _, s := range samples {
		ids[s.Index] = s.ID
	}
	for _, f := range list {
		if id, named := ids[f.Index]; named && f.Generator == generator && (id == "" || id == f.Sample) {
			of = append(of, f)
		}
	}
	return of
}

func (f Flag) state(s store.ReceiptSample) State {
	if f.Digest == dataset.Digest(s) {
		return Open
	}
	return Resolved
}

// Set finds the flags of samples: by generator and index.
type Set map[string]map[int][]Flag

// NewSet returns the set of some flags.
func NewSet(list []Flag) Set {
	s := Set{}
	for _, f := range list {
		if s[f.Generator] == nil {
			s[f.Generator] = map[int][]Flag{}
		}
		s[f.Generator][f.Index] = append(s[f.Generator][f.Index], f)
	}
	return s
}

// Open returns the open flags of a sample.
func (s Set) Open(generator string, sample store.ReceiptSample) (list []Flag) {
	for _, f := range s[generator][sample.Index] {
		if f.state(sample) == Open {
			list = append(list, f)
		}
	}
	return list
}

// Plan returns the repair plan that replaces the samples of open flags and nothing else.
func Plan(st *store.Store, list []Listed) *dataset.Plan {
	p := &dataset.Plan{Version: 1, Made: time.Now().UTC(), Bucket: st.Bucket(), Dataset: st.Dataset()}
	for _, f := range list {
		if f.State != Open {
			continue
		}
		if n := len(p.Generators); n == 0 || p.Generators[n-1].Name != f.Generator {
			p.Generators = append(p.Generators, dataset.GeneratorPlan{Name: f.Generator})
		}
		g := &p.Generators[len(p.Generators)-1]
		if d := (dataset.Draw{Index: f.Index, Digest: f.Digest}); !slices.Contains(g.Replace[max(0, len(g.Replace)-1):], d) {
			g.Replace = append(g.Replace, d)
		}
	}
	return p
}

// maxNamed is how many samples may be named at once.
const maxNamed = 100_000

// ParseSamples reads indices (12), ranges (10-19) and sample ids (maze_00000012).
func ParseSamples(words []string) (list []Sample, err error) {
	for _, word := range words {
		first, last, isRange := strings.Cut(word, "-")
		from, err := strconv.Atoi(first)
		to := from
		if isRange && err == nil {
			to, err = strconv.Atoi(last)
		}
		if at := strings.LastIndexByte(word, '_'); err != nil && at > 0 {
			if from, err = strconv.Atoi(word[at+1:]); err == nil && word == task.SampleID(word[:at], from) {
				list = append(list, Sample{from, word})
				continue
			}
		}
		if err != nil || from < 0 || to < from || to >= task.MaxIndex {
			return nil, fmt.Errorf("%q is no sample: give an index (12), a range (10-19) or a sample id (maze_00000012)", word)
		}
		if len(list)+to-from >= maxNamed {
			return nil, fmt.Errorf("%s: at most %d samples at once", word, maxNamed)
		}
		for ; from <= to; from++ {
			list = append(list, Sample{Index: from})
		}
	}
	return list, nil
}
