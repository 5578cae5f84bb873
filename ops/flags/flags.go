// Package flags keeps people's marks on samples in the bucket: what to repair, and what to leave out of exports.
package flags

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Limits. The flags of 10,000 indices are one object: so two people who flag seldom meet in one, a listing of half a
// million samples takes 50 requests, and an object whose samples are all flagged has about 2 MB.
const (
	span      = 10_000
	MaxReason = 500 // characters
	maxName   = 100 // characters of who flags
	atOnce    = 16  // objects that are read or changed at once
)

// Flag is the mark of one person on one sample.
type Flag struct {
	Generator string    `json:"generator"`
	Index     int       `json:"index"`
	Sample    string    `json:"sample"` // its id
	Digest    string    `json:"digest"` // of its files when it was flagged, by dataset.Digest
	Reason    string    `json:"reason,omitempty"`
	By        string    `json:"by"`
	Time      time.Time `json:"time"`
}

// object holds the flags of a range of indices of a generator. Each change of it is a compare-and-swap.
type object struct {
	Version int    `json:"version"`
	Changes int    `json:"changes"` // how often it was changed: so no two puts are alike
	Flags   []Flag `json:"flags"`   // by index, then by person
}

const version = 1 // of objects

func foreign(key string) error {
	return fmt.Errorf("%s holds flags of another version: update ops, or delete it", key)
}

func key(d task.Dataset, generator string, r task.Range) string {
	return prefix(d, generator) + r.String() + ".json"
}

func prefix(d task.Dataset, generator string) string {
	return d.Prefix(task.FlagKind) + generator + "/"
}

// Sample names a sample of a generator.
type Sample struct {
	Index int
	ID    string // that it must have; "" for any
}

func (s Sample) String() string { return cmp.Or(s.ID, fmt.Sprint(s.Index)) }

// Add flags committed samples of a generator, and returns their number. The same person's
// earlier flag on a sample is replaced, other people's stay. The error is an *AbsentError,
// and nothing is flagged, if one of the samples is not committed.
func Add(ctx context.Context, st *store.Store, generator string, list []Sample, reason, by string) (int, error) {
	reason, by = ui.Cut(reason, MaxReason), ui.Cut(by, maxName)
	if by == "" {
		return 0, errors.New("a flag needs the name of who sets it")
	}
	var indices []int
	for _, s := range list {
		indices = append(indices, s.Index)
	}
	slices.Sort(indices)
	indices = slices.Compact(indices)
	samples, err := committed(ctx, st, generator, indices)
	if err != nil {
		return 0, err
	}
	missing := slices.DeleteFunc(slices.Clone(list), func(s Sample) bool {
		is, there := samples[s.Index]
		return there && (s.ID == "" || s.ID == is.ID)
	})
	if len(missing) > 0 {
		return 0, &AbsentError{generator, missing}
	}
	now := time.Now().UTC()
	return len(indices), change(ctx, st, generator, indices, func(o *object, indices []int) {
		for _, i := range indices {
			f := Flag{generator, i, samples[i].ID, dataset.Digest(samples[i]), reason, by, now}
			at, found := slices.BinarySearchFunc(o.Flags, f, order)
			if !found {
				o.Flags = slices.Insert(o.Flags, at, f)
			}
			o.Flags[at] = f
		}
	})
}

// AbsentError says that samples to be flagged are not committed.
type AbsentError struct {
	Generator string
	Samples   []Sample
}

func (e *AbsentError) Error() string {
	var names []string
	for _, s := range e.Samples {
		names = append(names, s.String())
	}
	verb := map[bool]string{true: "is", false: "are"}[len(names) == 1]
	return fmt.Sprintf("nothing was flagged: %s of %s %s not committed: %s", ui.Plural(len(names), "sample"),
		e.Generator, verb, ui.Some(names, 3))
}

// Account is the name of the account that this process runs as.
func Account() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return cmp.Or(os.Getenv("USER"), "unknown")
}

func order(a, b Flag) int {
	return cmp.Or(strings.Compare(a.Generator, b.Generator), a.Index-b.Index, strings.Compare(a.By, b.By))
}

// Remove removes flags as they were listed. One that was set again since stays.
func Remove(ctx context.Context, st *store.Store, list []Flag) error {
	gone, indices := map[Flag]bool{}, map[string][]int{}
	for _, f := range list {
		gone[f] = true
		indices[f.Generator] = append(indices[f.Generator], f.Index)
	}
	for generator, of := range indices {
		slices.Sort(of)
		if err := change(ctx, st, generator, of, func(o *object, _ []int) {
			o.Flags = slices.DeleteFunc(o.Flags, func(f Flag) bool { return gone[f] })
		}); err != nil {
			return err
		}
	}
	return nil
}

// change changes the objects that hold indices, which are in order, whoever else does so
// at the same time. do may be called several times for an object.
func change(ctx context.Context, st *store.Store, generator string, indices []int, do func(o *object,
	indices []int)) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for len(indices) > 0 {
		start := indices[0] / span * span
		n, _ := slices.BinarySearch(indices, start+span)
		part := indices[:n]
		indices = indices[n:]
		group.Go(func() error {
			at := key(st.Dataset(), generator, task.Range{Start: start, End: start + span})
			for {
				_, err := store.Change(ctx, st, at, func(there *object) (*object, error) {
					if there == nil {
						there = &object{Version: version}
					}
					if there.Version != version {
						return nil, foreign(at)
					}
					there.Changes++
					do(there, part)
					return there, nil
				})
				// Many others were quicker, each time: at least one of them is done now.
				if !errors.Is(err, store.ErrExists) || ctx.Err() != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

func committed(ctx context.Context, st *store.Store, generator string, indices []int) (map[int]store.ReceiptSample,
	error) {
	samples := map[int]store.ReceiptSample{}
	for c, err := range dataset.CellsOf(ctx, st, generator, indices) {
		if err != nil {
			return nil, err
		}
		for _, r := range c.Receipts {
			for _, s := range r.Current {
				if _, wanted := slices.BinarySearch(indices, s.Index); wanted {
					samples[s.Index] = s
				}
			}
		}
	}
	return samples, nil
}

// List returns the flags of generators, of all without a name, in order.
func List(ctx context.Context, st *store.Store, generators ...string) ([]Flag, error) {
	if len(generators) == 0 {
		var err error
		if generators, err = st.Folders(ctx, st.Dataset().Prefix(task.FlagKind)); err != nil {
			return nil, err
		}
	}
	all := []Flag{}
	for _, generator := range slices.Compact(slices.Sorted(slices.Values(generators))) {
		list, err := read(ctx, st, generator)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

func read(ctx context.Context, st *store.Store, generator string) ([]Flag, error) {
	var keys []string
	for o, err := range st.List(ctx, prefix(st.Dataset(), generator), "") {
		if err != nil {
			return nil, err
		}
		keys = append(keys, o.Key)
	}
	parts := make([][]Flag, len(keys))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for n, key := range keys {
		group.Go(func() error {
			text, err := st.Read(ctx, key)
			if errors.Is(err, store.ErrNotFound) { // the dataset was deleted meanwhile
				return nil
			}
			if err != nil {
				return err
			}
			var o object
			if err := json.Unmarshal(text, &o); err != nil || o.Version != version {
				return foreign(key)
			}
			parts[n] = o.Flags
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(parts...), nil
}

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
