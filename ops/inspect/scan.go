package inspect

import (
	"context"
	"slices"
	"unique"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

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

// add takes the samples that a receipt describes.
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

// keep notes a sample that a report names.
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
