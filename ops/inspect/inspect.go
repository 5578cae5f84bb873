// Package inspect finds hints: what people want to know of samples that are complete. None of them is a failure. Web,
// export, "ops inspect" and "ops generators check" have their hints from here.
//
// A hint is either shown by a sample alone, or by it among the others of its generator. So all samples are read once
// and their Marks kept, which are small; Rule finds what they have in common; Hints then describes any of them.
package inspect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
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
