package web

import (
	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
)

// counted is what is known of a generator's samples only once all are read.
type counted struct {
	version    int            // of what was read
	duplicates map[int32]bool // by dataset.Duplicates
	rule       *inspect.Rule
}

// count counts, unless that was done. What was not read yet is missing in it.
func (i *indexed) count() *counted {
	if i.counted != nil && i.counted.version == i.version {
		return i.counted
	}
	c := &counted{version: i.version, duplicates: map[int32]bool{}}
	var made []dataset.Made
	var marks []inspect.Marks
	for _, cell := range i.cells {
		for _, r := range cell.records {
			made, marks = append(made, r.Made), append(marks, r.marks)
		}
	}
	c.rule = inspect.RuleOf(marks)
	for _, d := range dataset.Duplicates(made) {
		c.duplicates[int32(d.Index)] = true
	}
	i.counted = c
	return c
}

// parseHints reads hints of an address: "any", or the key of one.
func parseHints(text string) (inspect.Set, error) {
	if text == "" {
		return 0, nil
	}
	if text == "any" {
		return ^inspect.Set(0), nil
	}
	kind, err := inspect.ParseKind(text)
	if err != nil {
		return 0, badRequest("%v, any", err)
	}
	if kind.Deep() {
		return 0, badRequest("the hint %s is found in files, which ops inspect reads and this page does not", kind)
	}
	return kind.Set(), nil
}

// hints returns what is known of a sample: what its receipt shows and, if its generator was read for a filter, what
// only all samples show.
func (x *index) hints(c committed) []inspect.Hint {
	x.mu.Lock()
	defer x.mu.Unlock()
	rule := inspect.RuleOf(nil)
	if i := x.generators[c.Generator]; i != nil && i.geometry != nil {
		rule = i.count().rule
	}
	return rule.Hints(&c.sample)
}
