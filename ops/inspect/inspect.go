// Package inspect finds hints: what people want to know of samples that are complete. None of them is a failure. Web,
// export, "ops inspect" and "ops generators check" have their hints from here.
//
// A hint is either shown by a sample alone, or by it among the others of its generator. So all samples are read once
// and their Marks kept, which are small; Rule finds what they have in common; Hints then describes any of them.
package inspect

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unique"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Kind is the key of a kind of hint: it does not change, exports and addresses have it.
type Kind string

// About says what a kind of hint is.
type About struct {
	Kind Kind   `json:"kind"`
	Text string `json:"text"`           // for people: "browsers do not play the video"
	File string `json:"file,omitempty"` // of a sample that it is about; "" for all, or where several may be meant
	Deep bool   `json:"deep,omitempty"` // it is found in the files, receipts do not have it
}

// Kinds are all kinds of hints, in the order in which they are shown. A Set has room for 64.
var Kinds = slices.Concat(receiptKinds, deepKinds)

// Hint is what is worth knowing about a sample.
type Hint struct {
	Kind Kind   `json:"kind"`
	File string `json:"file,omitempty"`
	// of what depends on the kind: samples that share a file, frames, pixels over those of a frame
	Number float64 `json:"number"`
	Text   string  `json:"text"` // the number in words: "3 samples have this video"
}

// Set is a set of kinds.
type Set uint64

// SetOf returns the kinds of hints.
func SetOf(hints []Hint) (s Set) {
	for _, h := range hints {
		s |= h.Kind.Set()
	}
	return s
}

// Set returns the set of this kind alone; it is empty if there is no such kind.
func (k Kind) Set() Set {
	for i, a := range Kinds {
		if a.Kind == k {
			return 1 << i
		}
	}
	return 0
}

// Text says for people what a kind of hint is.
func (k Kind) Text() string {
	for _, a := range k.Set().Kinds() {
		return a.Text
	}
	return ""
}

// Deep reports whether a kind of hint is found in the files of samples, and not in receipts.
func (k Kind) Deep() bool {
	return slices.ContainsFunc(k.Set().Kinds(), func(a About) bool { return a.Deep })
}

// Kinds are the kinds in the set, in the order of Kinds.
func (s Set) Kinds() (list []About) {
	for i, a := range Kinds {
		if s&(1<<i) != 0 {
			list = append(list, a)
		}
	}
	return list
}

// Keys are the keys of the kinds in the set.
func (s Set) Keys() (list []string) {
	for _, a := range s.Kinds() {
		list = append(list, string(a.Kind))
	}
	return list
}

// ParseKind reads the key of a kind.
func ParseKind(text string) (Kind, error) {
	var keys []string
	for _, a := range Kinds {
		if string(a.Kind) == text {
			return a.Kind, nil
		}
		keys = append(keys, string(a.Kind))
	}
	return "", fmt.Errorf("there is no hint %.40q: the hints are %s", text, strings.Join(keys, ", "))
}

// Rule is what the samples of one generator have in common.
type Rule struct {
	samples int
	shared  map[shared]int32 // how many samples have a file, if several do
	length  length           // that nearly all have; zero if there is none
	files   uint32           // names that nearly all have; 0 if there are none
	rubrics int              // samples that have one
}

// shared is a file that several samples may have: the beginning of its hash.
type shared struct {
	kind Kind
	hash uint64
}

// nearlyAll is the share of a generator's samples that makes what they have in common the rule.
const nearlyAll = 0.9

// RuleOf finds the rule of all samples of a generator, or of as many as are known.
func RuleOf(all []Marks) *Rule {
	r := &Rule{samples: len(all), shared: map[shared]int32{}}
	lengths, files, videos := map[length]int{}, map[uint32]int{}, 0
	for i := range all {
		m := &all[i]
		files[m.files]++
		if m.video != 0 {
			lengths[m.length]++
			videos++
		}
		if m.rubric {
			r.rubrics++
		}
	}
	r.length, r.files = usual(lengths, videos), usual(files, len(all))
	hashes := make([]uint64, len(all))
	for _, of := range sharedFiles {
		for i := range all {
			hashes[i] = of.hash(&all[i])
		}
		slices.Sort(hashes)
		for from, to := 0, 0; from < len(hashes); from = to {
			for to = from; to < len(hashes) && hashes[to] == hashes[from]; to++ {
			}
			if to-from > 1 && hashes[from] != 0 {
				r.shared[shared{of.kind, hashes[from]}] = int32(to - from)
			}
		}
	}
	return r
}

// usual is what nearly all have, or the zero value.
func usual[T comparable](counts map[T]int, of int) (what T) {
	for what, n := range counts {
		if float64(n) >= nearlyAll*float64(of) {
			return what
		}
	}
	return what
}

// Hints are the hints of a sample as its receipt has it, among those of the rule.
func (r *Rule) Hints(s *sample.Sample) []Hint {
	m := MarksOf(s)
	return append(alone(s), r.among(&m)...)
}

// Set are the kinds of Hints, from the sample's marks.
func (r *Rule) Set(m *Marks) Set { return m.alone | r.kinds(m) }

// Examples are how many samples a report names of each kind.
const Examples = 5

// Scan finds the hints of all committed samples of a dataset's generators. It reads each receipt once and keeps 64
// bytes of each sample, those of one generator at a time; what is listed takes about 100 bytes more.
type Scan struct {
	Store    *store.Store
	List     Set                              // kinds of which all samples are named; of the others, Examples are
	Deep     Hints                            // what receipts do not have; may be nil
	Progress func(what string, done, all int) // receipts that were read; may be nil
}

// Report is what a scan has found of one generator.
type Report struct {
	Generator string  `json:"generator"`
	Samples   int     `json:"samples"` // that are committed
	Hinted    int     `json:"hinted"`  // of these, those that have a hint
	Hints     []Count `json:"hints"`   // of the kinds that were found, in the order of Kinds
}

// Count is how many samples have a kind of hint.
type Count struct {
	About
	Samples int     `json:"samples"`
	Share   float64 `json:"share"` // of the generator's samples, from 0 to 1
	Found   []Found `json:"found"` // some Examples, or all that are listed
}

// Found is a sample with a hint.
type Found struct {
	ID    string `json:"id"`
	Index int    `json:"index"`
	Hint
}

// scanned is what a scan knows of a generator: of its samples the marks, and at the same places what their ids are
// made of.
type scanned struct {
	*Scan
	marks   []Marks
	ids     []id
	domains []string
	found   map[Kind][]Found
}

type id struct {
	index  int32
	domain int32 // place in scanned.domains
}

func newScanned(s *Scan) *scanned { return &scanned{Scan: s, found: map[Kind][]Found{}} }

// Generator scans one generator. An error is store.ErrDamaged if a receipt cannot be read or trusted.
func (s *Scan) Generator(ctx context.Context, name string) (*Report, error) {
	g := newScanned(s)
	for r, err := range receipts(ctx, s.Store, name, s.Progress) {
		if err != nil {
			return nil, err
		}
		g.add(r)
	}
	return g.report(name), nil
}

func (g *scanned) add(r *store.Receipt) {
	domain := slices.Index(g.domains, r.Domain)
	if domain < 0 {
		domain, g.domains = len(g.domains), append(g.domains, r.Domain)
	}
	for i := range r.Current {
		s := &r.Current[i]
		hints := append(alone(s), g.Deep[s.Index]...)
		for _, h := range hints {
			g.keep(s.ID, s.Index, h)
		}
		g.marks, g.ids = append(g.marks, marksOf(s, hints)), append(g.ids, id{int32(s.Index), int32(domain)})
	}
}

func (g *scanned) keep(id string, index int, h Hint) {
	if len(g.found[h.Kind]) < Examples || g.List&h.Kind.Set() != 0 {
		h.Text = unique.Make(h.Text).Value() // many are alike
		g.found[h.Kind] = append(g.found[h.Kind], Found{id, index, h})
	}
}

func (g *scanned) report(name string) *Report {
	r := &Report{Generator: name, Samples: len(g.marks), Hints: []Count{}}
	rule, counts := RuleOf(g.marks), make([]int, len(Kinds))
	for i := range g.marks {
		m, of := &g.marks[i], g.ids[i]
		set := m.alone
		for _, h := range rule.among(m) {
			g.keep(task.SampleID(g.domains[of.domain], int(of.index)), int(of.index), h)
			set |= h.Kind.Set()
		}
		if set != 0 {
			r.Hinted++
		}
		for k := range Kinds {
			counts[k] += int(set >> k & 1)
		}
	}
	for k, about := range Kinds {
		if counts[k] > 0 {
			list := g.found[about.Kind]
			slices.SortStableFunc(list, func(a, b Found) int { return a.Index - b.Index })
			r.Hints = append(r.Hints, Count{about, counts[k], float64(counts[k]) / float64(r.Samples), list})
		}
	}
	return r
}

// Of reports the hints of samples of one domain that are all there is of a generator.
func Of(generator, domain string, samples []sample.Sample) *Report {
	g := newScanned(&Scan{})
	g.add(&store.Receipt{Domain: domain, Current: samples})
	return g.report(generator)
}
