package task

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseOption(t *testing.T) {
	for text, want := range map[string]string{ // how the error ends; "" for none
		"difficulty=3":          "",
		"difficulty=1,3-5":      "",
		"font_size=a b=c":       "",
		"scene=rooms/kitchen":   "",
		"difficulty":            "must be NAME=VALUE, as in difficulty=3",
		"difficulty=":           "is empty",
		"--difficulty=3":        "is no name of an option: letters, digits, '_' and '-', after a letter",
		"=3":                    "is no name of an option: letters, digits, '_' and '-', after a letter",
		"a b=3":                 "is no name of an option: letters, digits, '_' and '-', after a letter",
		"num-samples=9":         "num-samples is no option: the worker decides about it",
		"output_dir=/tmp":       "output_dir is no option: the worker decides about it",
		"no-videos=1":           "no-videos is no option: the worker decides about it",
		"style=-1":              "begins with '-', as an argument does",
		"style=--seed":          "begins with '-', as an argument does",
		"style=a\nb":            "holds characters that cannot be printed",
		"style=a\x00":           "holds characters that cannot be printed",
		"style=a\u2028b":        "holds characters that cannot be printed",
		"style=a\xff":           "holds characters that cannot be printed",
		"style=/etc/passwd":     "is a path that leads out of the generator's folder",
		"style=..":              "is a path that leads out of the generator's folder",
		"style=a/../../secret":  "is a path that leads out of the generator's folder",
		"style=" + longValue(1): "has 201 bytes, at most 200 are allowed",
		"style=" + longValue(0): "",
	} {
		o, err := ParseOption(text)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if (got == "") != (want == "") || !strings.HasSuffix(got, want) {
			t.Errorf("%.40q: got %q, want ...%q", text, got, want)
		}
		name, value, _ := strings.Cut(text, "=")
		if err == nil && !maps.Equal(o, Options{name: value}) {
			t.Errorf("%.40q: got %v", text, o)
		}
	}
	many := Options{}
	for i := range maxOptions + 1 {
		many["a"+strings.Repeat("b", i)] = "1"
	}
	if many.Check() == nil {
		t.Error("any number of options is allowed")
	}
}

func longValue(more int) string { return strings.Repeat("a", maxOptionValue+more) }

func TestOptions(t *testing.T) {
	none, o := Options(nil), Options{"style": "a b", "difficulty": "1,3"}
	if got, want := o.Args(), []string{"--difficulty", "1,3", "--style", "a b"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := o.String(), `difficulty=1,3 style="a b"`; got != want || none.String() != "" {
		t.Errorf("got %q and %q, want %q and nothing", got, none, want)
	}
	more := o.With(Options{"style": "c", "fps": "8"})
	if want := (Options{"style": "c", "fps": "8", "difficulty": "1,3"}); !maps.Equal(more, want) || o["style"] != "a b" {
		t.Errorf("got %v, want %v; it was %v", more, want, o)
	}
	if got := none.Namespace("maze"); got != "maze" {
		t.Errorf("without options the seeds are those of %q", got)
	}
	// The seeds are part of the contract: another value here is another dataset.
	x := Task{Generator: "maze-task-data-generator", NumSamples: 20, ChunkSize: 20, Seed: 42}
	plain := x.Chunks()[0].Seed(x, 0)
	x.Options = Options{"difficulty": "3"}
	repair := Task{Generator: x.Generator, Indices: []int{1, 2}, ChunkSize: 20, Seed: 42, Options: x.Options}
	got := []int{plain, x.Chunks()[0].Seed(x, 0), repair.Chunks()[0].Seed(repair, 0)}
	if want := []int{621526693, 1961554775, 2026282028}; !reflect.DeepEqual(got, want) {
		t.Errorf("got seeds %v, want %v", got, want)
	}
}

var anyOptions = rapid.MapOfN(rapid.StringMatching(`[a-zA-Z][a-z0-9_-]{0,4}`).Filter(func(name string) bool {
	return !ReservedOption(name)
}), rapid.String().Filter(func(value string) bool { return Options{"x": value}.Check() == nil }), 0, 4)

// Options survive messages, runs and manifests, and other options draw from other seeds.
func TestOptionsAreKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) (string, Options) {
			name := rapid.StringMatching(`[a-b]{1,2}`).Draw(t, label+" generator")
			if o := Options(anyOptions.Draw(t, label)); len(o) > 0 {
				return name, o
			}
			return name, nil
		}
		name, o := draw("a")
		run := Run{ID: "r", Samples: 3, Batch: 2, ChunkSize: 2, Generators: []RunGenerator{{Name: name, Options: o}}}
		text, err := json.Marshal(run)
		if err != nil {
			t.Fatal(err)
		}
		var back Run
		if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, run) {
			t.Fatalf("%s came back as %+v, %v", text, back, err)
		}
		m := NewManifest("", DefaultSeed, Files)
		m.Add(PinnedGenerator{Name: name, ChunkSize: 2, Options: o})
		for _, x := range run.Plan() {
			got, err := Parse([]byte(x.Body()), "")
			if err != nil || !maps.Equal(got.Options, o) || !reflect.DeepEqual(got.Part(got.Range()).Options, got.Options) {
				t.Fatalf("%s came back as %+v, %v", x.Body(), got, err)
			}
			if err := m.CheckOptions(name, got.Options); err != nil {
				t.Fatal(err)
			}
		}
		other, p := draw("b")
		same := name == other && maps.Equal(o, p)
		if (o.Namespace(name) == p.Namespace(other)) != same {
			t.Fatalf("%q %v and %q %v draw from %q and %q", name, o, other, p, o.Namespace(name), p.Namespace(other))
		}
		if name == other && (m.CheckOptions(name, p) == nil) != same {
			t.Fatalf("%v, not %v, is %v", o, p, m.CheckOptions(name, p))
		}
	})
}
