package task

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// What contradicts a dataset is refused in one sentence; what a task does not say
// the dataset does.
func TestFit(t *testing.T) {
	m := NewManifest("v2", 7, Tar)
	m.Add(PinnedGenerator{Name: "g", ChunkSize: 50, Commit: "aaaaaaaaaaaaaaaa", Lock: "1111111111111111"},
		PinnedGenerator{Name: "h", ChunkSize: 20, Options: Options{"difficulty": "3"}})
	m.Update(PinnedGenerator{Name: "g", Commit: "bbbbbbbbbbbbbbbb", Lock: "1111111111111111"})
	run := Task{Dataset: "v2", Generator: "g", NumSamples: 1, Seed: 7, Format: Tar, ChunkSize: 50, RunID: "r"}
	for _, test := range []struct {
		name   string
		change func(*Task)
		commit string // and the lock, behind a space
		want   string
	}{
		{"as pinned", func(*Task) {}, "bbbbbbbbbbbbbbbb 1111111111111111", ""},
		{"another lock", func(*Task) {}, "bbbbbbbbbbbbbbbb 2222222222222222",
			"dataset v2 has lock 111111111111, not 222222222222, of g"},
		{"of an unknown lock", func(*Task) {}, "bbbbbbbbbbbbbbbb", ""},
		{"of an unknown commit", func(*Task) {}, "", ""},
		{"another seed", func(x *Task) { x.Seed = 8 }, "", "dataset v2 has the seed 7, not 8"},
		{"a seed of its own", func(x *Task) { x.Seed, x.RunID = 8, "" }, "", ""},
		{"what had a seed of its own", func(x *Task) { x.Seed, x.Restore = 8, 1 }, "", ""},
		{"another format", func(x *Task) { x.Format = Files }, "", "dataset v2 has the format tar, not files"},
		{"other chunks", func(x *Task) { x.ChunkSize = 20 }, "", "dataset v2 has chunks of 50, not of 20, of g"},
		{"of a generator that is new", func(x *Task) { x.ChunkSize, x.Generator = 5, "new" }, "", ""},
		{"the commit before", func(*Task) {}, "aaaaaaaaaaaaaaaa",
			"dataset v2 has commit bbbbbbbbbbbb, not aaaaaaaaaaaa, of g"},
		{"options of its own", func(x *Task) { x.Options = Options{"difficulty": "3"} }, "",
			"dataset v2 has no options, not difficulty=3, of g"},
		{"other options", func(x *Task) { x.Generator, x.ChunkSize, x.Options = "h", 20, Options{"difficulty": "4"} }, "",
			"dataset v2 has the options difficulty=3, not difficulty=4, of h"},
		{"a run without the options", func(x *Task) { x.Generator, x.ChunkSize = "h", 20 }, "",
			"dataset v2 has the options difficulty=3, not none, of h"},
		{"the options", func(x *Task) { x.Generator, x.ChunkSize, x.Options = "h", 20, Options{"difficulty": "3"} }, "", ""},
		{"no run, and the dataset's options", func(x *Task) { x.Generator, x.ChunkSize, x.RunID = "h", 20, "" }, "", ""},
		{"nothing said", func(x *Task) { *x = Task{Dataset: "v2", Generator: "g", NumSamples: 1, Seed: 3} }, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			x := run
			test.change(&x)
			commit, lock, _ := strings.Cut(test.commit, " ")
			err := m.Fit(&x, PinnedGenerator{Name: x.Generator, Commit: commit, Lock: lock})
			got := ""
			if wrong, ok := errors.AsType[*ContradictionError](err); ok {
				got = wrong.Error()
			}
			if got != test.want || err == nil && (x.Format != Tar || x.ChunkSize == 0 ||
				x.Generator == "h" && x.Options["difficulty"] != "3") {
				t.Errorf("got %q, want %q; %+v", got, test.want, x)
			}
		})
	}
}

// A history says each thing once, and what is pinned survives it.
func TestHistory(t *testing.T) {
	m := NewManifest("", DefaultSeed, Files)
	pinned := PinnedGenerator{Name: "g", ChunkSize: 20, Commit: "a", Lock: "l"}
	for n, changed := range []bool{
		m.Add(pinned), !m.Add(PinnedGenerator{Name: "g", ChunkSize: 5}),
		m.Ask(Range{0, 10}, []string{"g"}), !m.Ask(Range{2, 5}, []string{"g"}), m.Ask(Range{0, 10}, []string{"h", "g"}),
		m.Ask(Range{5, 30}, []string{"g"}),
		m.Worked("image"), !m.Worked("image"), !m.Worked(""),
		!m.Update(pinned), m.Update(PinnedGenerator{Name: "g", Commit: "b"}),
		!m.Update(PinnedGenerator{Name: "g", Commit: "b"}),
		!m.Learn(PinnedGenerator{Name: "h", Commit: "b"}), !m.Learn(PinnedGenerator{Name: "g"}),
		!m.Learn(PinnedGenerator{Name: "g", Commit: "a", Lock: "of another commit"}),
		m.Learn(PinnedGenerator{Name: "g", Commit: "b", Lock: "k"}),
		!m.Learn(PinnedGenerator{Name: "g", Commit: "b", Lock: "k"}),
		m.Update(PinnedGenerator{Name: "g", Commit: "b", Lock: "m"}),
	} {
		if !changed {
			t.Errorf("step %d", n)
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var back Manifest
	if err := json.Unmarshal(text, &back); err != nil || len(back.History) != 7 || !reflect.DeepEqual(*back.Generator("g"), pinned) ||
		back.Generator("h") != nil {
		t.Errorf("%s, %v", text, err)
	}
	if got := back.Asked("g"); got != (Range{0, 30}) {
		t.Errorf("asked for %v", got)
	}
	if got := back.Asked("h"); got != (Range{0, 10}) {
		t.Errorf("of h asked for %v", got)
	}
	if !reflect.DeepEqual(back.Locks("g"), []string{"l", "k", "m"}) {
		t.Errorf("locks %v", back.Locks("g"))
	}
	if !reflect.DeepEqual(back.Commits("g"), []string{"a", "b"}) || !reflect.DeepEqual(back.Images(), []string{"image"}) {
		t.Errorf("commits %v, images %v", back.Commits("g"), back.Images())
	}
}
