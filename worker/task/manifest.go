package task

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Manifest is what makes a dataset one thing: what is pinned never changes, and what has happened is only added to.
type Manifest struct {
	Version int       `json:"version"`
	Dataset Dataset   `json:"dataset"`
	Created time.Time `json:"created"`
	Seed    int       `json:"seed"`
	Format  Format    `json:"output_format"`

	// Each generator has the chunk size, the options, the commit and the lock with which
	// it came into the dataset; later commits are in the history.
	Generators []PinnedGenerator `json:"generators"`
	History    []Event           `json:"history,omitempty"`
}

// PinnedGenerator is how a dataset has a generator.
type PinnedGenerator struct {
	Name      string  `json:"name"`
	ChunkSize int     `json:"chunk_size"`
	Options   Options `json:"options,omitempty"`
	Commit    string  `json:"commit,omitempty"` // empty where it is not known
	Lock      string  `json:"lock"`             // hash of the locked requirements; empty where there are none
}

// Event is one thing that happened to a dataset: samples were asked for, a
// generator was updated, or an image has begun to work on it.
type Event struct {
	Time       time.Time        `json:"time"`
	Asked      *Range           `json:"asked,omitempty"`      // of each of the generators
	Generators []string         `json:"generators,omitempty"` // sorted
	Updated    *PinnedGenerator `json:"updated,omitempty"`    // what makes samples from then on
	Image      string           `json:"image,omitempty"`
}

// NewManifest is the manifest of a dataset of which nothing is made yet.
func NewManifest(d Dataset, seed int, format Format) Manifest {
	return Manifest{Version: 1, Dataset: Dataset(d.String()), Created: time.Now().UTC(), Seed: seed, Format: format,
		Generators: []PinnedGenerator{}}
}

// ContradictionError is of something that does not fit what a dataset pins.
type ContradictionError struct {
	Dataset   Dataset
	Generator string
	What      string // a phrase: chunks of 20, not of 50
	Commit    bool   // it is the generator's commit or lock: that can be updated
}

func (e *ContradictionError) Error() string {
	of := ""
	if e.Generator != "" {
		of = " of " + e.Generator
	}
	return fmt.Sprintf("dataset %s has %s%s", e.Dataset, e.What, of)
}

// Way is how submit is called instead.
func (e *ContradictionError) Way() string {
	way := fmt.Sprintf("--dataset %s makes another dataset", e.Dataset.Next())
	if e.Commit {
		way = "--update-generators takes the other one in from now on, " + way
	}
	return way
}

// Generator returns what is pinned for a generator, or nil.
func (m *Manifest) Generator(name string) *PinnedGenerator {
	if i := slices.IndexFunc(m.Generators, func(g PinnedGenerator) bool { return g.Name == name }); i >= 0 {
		return &m.Generators[i]
	}
	return nil
}

// current is the generator with the commit and the lock that make samples now.
func (m *Manifest) current(name string) *PinnedGenerator {
	now := m.Generator(name)
	for _, e := range m.History {
		if e.Updated != nil && e.Updated.Name == name {
			now = e.Updated
		}
	}
	return now
}

// CheckFormat reports whether samples are stored otherwise, as a *ContradictionError.
func (m *Manifest) CheckFormat(f Format) error {
	if f != m.Format {
		return &ContradictionError{Dataset: m.Dataset, What: fmt.Sprintf("the format %s, not %s", m.Format, f)}
	}
	return nil
}

// CheckSeed reports whether the dataset has another seed, as a *ContradictionError.
func (m *Manifest) CheckSeed(seed int) error {
	if seed != m.Seed {
		return &ContradictionError{Dataset: m.Dataset, What: fmt.Sprintf("the seed %d, not %d", m.Seed, seed)}
	}
	return nil
}

// CheckChunk reports whether the dataset has other chunks of a generator, as a
// *ContradictionError. Of one that is not in it nothing is pinned.
func (m *Manifest) CheckChunk(generator string, size int) error {
	if g := m.Generator(generator); g != nil && size != g.ChunkSize {
		return &ContradictionError{Dataset: m.Dataset, Generator: generator,
			What: fmt.Sprintf("chunks of %d, not of %d,", g.ChunkSize, size)}
	}
	return nil
}

// CheckOptions reports whether the dataset has other options of a generator, as a *ContradictionError. Of one that is
// not in it nothing is pinned.
func (m *Manifest) CheckOptions(generator string, o Options) error {
	g := m.Generator(generator)
	if g == nil || maps.Equal(g.Options, o) {
		return nil
	}
	what := "the options " + g.Options.String()
	if len(g.Options) == 0 {
		what = "no options"
	}
	return &ContradictionError{Dataset: m.Dataset, Generator: generator,
		What: fmt.Sprintf("%s, not %s,", what, cmp.Or(o.String(), "none"))}
}

// CheckCommit reports whether the dataset is made by another commit, or with another lock, of a generator, as a
// *ContradictionError. What is not known contradicts nothing.
func (m *Manifest) CheckCommit(g PinnedGenerator) error {
	now := m.current(g.Name)
	if now == nil {
		return nil
	}
	for _, x := range []struct{ what, pinned, is string }{{"commit", now.Commit, g.Commit}, {"lock", now.Lock, g.Lock}} {
		if x.pinned != "" && x.is != "" && x.pinned != x.is {
			return &ContradictionError{Dataset: m.Dataset, Generator: g.Name, Commit: true,
				What: fmt.Sprintf("%s %.12s, not %.12s,", x.what, x.pinned, x.is)}
		}
	}
	return nil
}

// Fit fills in what a task does not say and reports what contradicts the dataset,
// as a *ContradictionError. The generator is the one that would make its samples.
//
// A task of no run may have a seed of its own, as the predecessor's have, and so may one that restores its samples.
func (m *Manifest) Fit(t *Task, g PinnedGenerator) error {
	t.Format = cmp.Or(t.Format, m.Format)
	if pinned := m.Generator(t.Generator); pinned != nil {
		t.ChunkSize = cmp.Or(t.ChunkSize, pinned.ChunkSize)
		if t.Options == nil && t.RunID == "" {
			t.Options = pinned.Options
		}
	}
	err := cmp.Or(m.CheckFormat(t.Format), m.CheckChunk(t.Generator, t.ChunkSize), m.CheckOptions(t.Generator, t.Options),
		m.CheckCommit(g))
	if err == nil && t.RunID != "" && t.Restore == 0 {
		err = m.CheckSeed(t.Seed)
	}
	return err
}

// Add takes generators in that are not there. It reports whether any was added.
func (m *Manifest) Add(generators ...PinnedGenerator) (changed bool) {
	for _, g := range generators {
		if m.Generator(g.Name) == nil {
			m.Generators = append(m.Generators, g)
			changed = true
		}
	}
	return changed
}

// Update makes a newer commit, or lock, of a generator the one that makes samples
// from now on. It reports whether that is another than before.
func (m *Manifest) Update(g PinnedGenerator) (changed bool) {
	if m.CheckCommit(g) == nil {
		return false
	}
	pinned := m.Generator(g.Name)
	g.ChunkSize, g.Options = pinned.ChunkSize, pinned.Options
	m.History = append(m.History, Event{Time: time.Now().UTC(), Updated: &g})
	return true
}

// Learn notes the commit or the lock of a generator where it was not known. It reports whether it was not.
func (m *Manifest) Learn(g PinnedGenerator) (changed bool) {
	now := m.current(g.Name)
	if now == nil {
		return false
	}
	next := *now
	next.Commit = cmp.Or(next.Commit, g.Commit)
	if next.Lock == "" && next.Commit == g.Commit {
		next.Lock = g.Lock
	}
	if changed = next.Commit != now.Commit || next.Lock != now.Lock; changed {
		m.History = append(m.History, Event{Time: time.Now().UTC(), Updated: &next})
	}
	return changed
}

// Ask notes that samples of generators are wanted. It reports whether that is more than was asked for before.
func (m *Manifest) Ask(r Range, generators []string) (changed bool) {
	names := slices.Sorted(slices.Values(generators))
	for _, e := range m.History {
		if e.Asked != nil && e.Asked.Contains(r) {
			names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(e.Generators, name) })
		}
	}
	if len(names) > 0 && r.Len() > 0 {
		m.History = append(m.History, Event{Time: time.Now().UTC(), Asked: &r, Generators: names})
		return true
	}
	return false
}

// Asked is the range of samples that were asked for of a generator, from the first to the last.
func (m *Manifest) Asked(generator string) (all Range) {
	for _, e := range m.History {
		if e.Asked != nil && slices.Contains(e.Generators, generator) {
			if all.Len() == 0 {
				all = *e.Asked
			}
			all.Start, all.End = min(all.Start, e.Asked.Start), max(all.End, e.Asked.End)
		}
	}
	return all
}

// Worked notes that an image works on the dataset. It reports whether it is new.
func (m *Manifest) Worked(image string) (changed bool) {
	if image == "" || slices.Contains(m.Images(), image) {
		return false
	}
	m.History = append(m.History, Event{Time: time.Now().UTC(), Image: image})
	return true
}

// Images are those that have worked on the dataset, in order.
func (m *Manifest) Images() (images []string) {
	for _, e := range m.History {
		if e.Image != "" {
			images = append(images, e.Image)
		}
	}
	return images
}

// Commits are those of a generator that the dataset has, the first and the later ones.
func (m *Manifest) Commits(generator string) []string {
	return m.had(generator, func(g *PinnedGenerator) string { return g.Commit })
}

// Locks are those of a generator that the dataset has, the first and the later ones.
func (m *Manifest) Locks(generator string) []string {
	return m.had(generator, func(g *PinnedGenerator) string { return g.Lock })
}

func (m *Manifest) had(generator string, what func(*PinnedGenerator) string) (list []string) {
	add := func(g *PinnedGenerator) {
		if x := what(g); x != "" && (len(list) == 0 || list[len(list)-1] != x) {
			list = append(list, x)
		}
	}
	if g := m.Generator(generator); g != nil {
		add(g)
	}
	for _, e := range m.History {
		if e.Updated != nil && e.Updated.Name == generator {
			add(e.Updated)
		}
	}
	return list
}
