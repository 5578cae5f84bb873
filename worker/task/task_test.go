package task

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	bare := Task{Generator: "chess-task-data-generator", NumSamples: 100, Seed: 42}
	whole := bare
	whole.Format = Files
	for _, test := range []struct {
		name, body string
		want       Task
	}{
		{"published example", `{"type": "chess-task-data-generator", "start_index": 0, "num_samples": 100, "seed": 42, "output_format": "files"}`, whole},
		{"defaults", `{"type":"chess-task-data-generator","num_samples":100,"seed":42}`, bare},
		{"predecessor's submitter",
			`{"type":"chess-task-data-generator","num_samples":100,"start_index":0,"seed":42,"output_format":"files","output_bucket":null,"dedup":false}`, whole},
		{"no seed", `{"type":"g","num_samples":1}`, Task{Generator: "g", NumSamples: 1, Seed: SeedFromID("m-1")}},
		{"null seed", `{"type":"g","num_samples":1,"seed":null}`,
			Task{Generator: "g", NumSamples: 1, Seed: SeedFromID("m-1")}},
		{"restore", `{"type":"g","indices":[0,9999],"seed":1,"run_id":"r","restore":2}`,
			Task{Generator: "g", Indices: []int{0, 9999}, Seed: 1, RunID: "r", Restore: 2}},
		{"repair", `{"type":"g","indices":[3,9,27],"seed":0,"attempt":4,"output_format":"tar"}`,
			Task{Generator: "g", Indices: []int{3, 9, 27}, Attempt: 4, Format: Tar}},
		{"dataset", `{"type":"g","start_index":99999900,"num_samples":100,"seed":2147483647,"run_id":"r1","dataset":"v2","chunk_size":1000}`,
			Task{Dataset: "v2", Generator: "g", StartIndex: 99999900, NumSamples: 100, Seed: MaxSeed, RunID: "r1",
				ChunkSize: 1000}},
		{"default dataset", `{"type":"g","num_samples":1,"seed":1,"dataset":"v1","overwrite":false}`,
			Task{Generator: "g", NumSamples: 1, Seed: 1}},
		{"parts", `{"type":"g","num_samples":20,"seed":1,"chunk_size":20,"part_size":5}`,
			Task{Generator: "g", NumSamples: 20, Seed: 1, ChunkSize: 20, PartSize: 5}},
		{"options", `{"type":"g","num_samples":1,"seed":1,"options":{"style":"a","difficulty":"1,3"}}`,
			Task{Generator: "g", NumSamples: 1, Seed: 1, Options: Options{"difficulty": "1,3", "style": "a"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse([]byte(test.body), "m-1")
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct{ name, body, field, reason string }{
		{"empty", ``, "", "empty"},
		{"not JSON", `hello`, "", "not JSON"},
		{"cut off", `{"type":"g","num_samples":1`, "", "not JSON"},
		{"array", `[1]`, "", "not a JSON object"},
		{"two objects", `{"type":"g","num_samples":1}{}`, "", "follows"},
		{"bad UTF-8", "{\"type\":\"g\xff\",\"num_samples\":1}", "", "UTF-8"},
		{"no type", `{"num_samples":1}`, "type", "missing"},
		{"no number", `{"type":"g"}`, "num_samples", "missing"},
		{"unknown field", `{"type":"g","num_samples":1,"sed":7}`, `"sed"`, "not a field"},
		{"field in capitals", `{"Type":"g","num_samples":1}`, `"Type"`, "not a field"},
		{"twice", `{"type":"g","num_samples":1,"num_samples":2}`, "num_samples", "twice"},
		{"traversal", `{"type":"../etc","num_samples":1}`, "type", "letters"},
		{"separator", `{"type":"a/b","num_samples":1}`, "type", "letters"},
		{"hidden", `{"type":".git","num_samples":1}`, "type", "begin"},
		{"trailing newline", `{"type":"g\n","num_samples":1}`, "type", "letters"},
		{"empty type", `{"type":"","num_samples":1}`, "type", "empty"},
		{"long type", `{"type":"` + strings.Repeat("g", 129) + `","num_samples":1}`, "type", "129"},
		{"type is a number", `{"type":7,"num_samples":1}`, "type", "string"},
		{"negative start", `{"type":"g","num_samples":1,"start_index":-1}`, "start_index", "-1"},
		{"range ends too far", `{"type":"g","num_samples":2,"start_index":99999999}`, "start_index", "99999999"},
		{"zero samples", `{"type":"g","num_samples":0}`, "num_samples", "0"},
		{"too many samples", `{"type":"g","num_samples":1001}`, "num_samples", "1001"},
		{"huge number", `{"type":"g","num_samples":99999999999999999999999}`, "num_samples", "must be from"},
		{"text for a number", `{"type":"g","num_samples":"10"}`, "num_samples", "integer"},
		{"fraction", `{"type":"g","num_samples":1.5}`, "num_samples", "integer"},
		{"exponent", `{"type":"g","num_samples":1e2}`, "num_samples", "integer"},
		{"null number", `{"type":"g","num_samples":null}`, "num_samples", "integer"},
		{"negative seed", `{"type":"g","num_samples":1,"seed":-1}`, "seed", "-1"},
		{"seed of 32 bits", `{"type":"g","num_samples":1,"seed":2147483648}`, "seed", "2147483648"},
		{"format", `{"type":"g","num_samples":1,"output_format":"zip"}`, "output_format", "zip"},
		{"run id", `{"type":"g","num_samples":1,"run_id":"a b"}`, "run_id", "letters"},
		{"chunk", `{"type":"g","num_samples":1,"chunk_size":0}`, "chunk_size", "0"},
		{"parts of another size", `{"type":"g","num_samples":1,"chunk_size":20,"part_size":6}`, "part_size",
			"divide the chunk_size of 20"},
		{"parts larger than a chunk", `{"type":"g","num_samples":1,"chunk_size":20,"part_size":40}`, "part_size", "divide"},
		{"no part", `{"type":"g","num_samples":1,"part_size":0}`, "part_size", "from 1"},
		{"parts of indices", `{"type":"g","indices":[1],"part_size":5}`, "part_size", "indices"},
		{"overwrite", `{"type":"g","num_samples":1,"run_id":"r","overwrite":true}`, "overwrite", "another dataset"},
		{"empty dataset", `{"type":"g","num_samples":1,"dataset":""}`, "dataset", "empty"},
		{"dataset elsewhere", `{"type":"g","num_samples":1,"dataset":"../v2"}`, "dataset", "letters"},
		{"restore alone", `{"type":"g","num_samples":1,"restore":2}`, "restore", "run_id"},
		{"overwrite is text", `{"type":"g","num_samples":1,"overwrite":"true"}`, "overwrite", "another dataset"},
		{"indices and range", `{"type":"g","num_samples":1,"indices":[1]}`, "indices", "in place of"},
		{"no indices", `{"type":"g","indices":[]}`, "indices", "holds 0"},
		{"unsorted", `{"type":"g","indices":[2,1]}`, "indices", "sorted"},
		{"repeated", `{"type":"g","indices":[1,1]}`, "indices", "sorted"},
		{"index too large", `{"type":"g","indices":[100000000]}`, "indices", "100000000"},
		{"indices is text", `{"type":"g","indices":"1"}`, "indices", "list"},
		{"other bucket", `{"type":"g","num_samples":1,"output_bucket":"mine"}`, "output_bucket", "not supported"},
		{"options are a text", `{"type":"g","num_samples":1,"options":"a=b"}`, "options", "object of strings"},
		{"no options", `{"type":"g","num_samples":1,"options":{}}`, "options", "object of strings"},
		{"option is a number", `{"type":"g","num_samples":1,"options":{"difficulty":3}}`, "options", "must be a string"},
		{"option twice", `{"type":"g","num_samples":1,"options":{"a":"b","a":"c"}}`, "options", "twice"},
		{"option of the worker", `{"type":"g","num_samples":1,"options":{"seed":"3"}}`, "options", "the worker decides"},
		{"option with a path", `{"type":"g","num_samples":1,"options":{"a":"../b"}}`, "options", "leads out"},
		{"dedup", `{"type":"g","num_samples":1,"dedup":true}`, "dedup", "not supported"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse([]byte(test.body), "m-1")
			var bad *InvalidError
			if !errors.As(err, &bad) {
				t.Fatalf("got %+v, %v; want an InvalidError", got, err)
			}
			if bad.Field != test.field || !strings.Contains(bad.Reason, test.reason) {
				t.Errorf("got field %q, reason %q; want %q, ...%q...", bad.Field, bad.Reason, test.field, test.reason)
			}
		})
	}
}

// What Parse accepts is valid and survives being sent on.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"type":"g","num_samples":1,"seed":7}`))
	f.Add([]byte(`{"type":"g","indices":[1,2],"attempt":3}`))
	f.Add([]byte(`{"type":"g","num_samples":1,"options":{"a":"b"}}`))
	f.Add([]byte("{\"type\":\"\xc3\x28\"}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := Parse(body, "m-1")
		if err != nil {
			var bad *InvalidError
			if !errors.As(err, &bad) {
				t.Fatalf("%T is not an InvalidError: %v", err, err)
			}
			return
		}
		again, err := Parse([]byte(got.Body()), "another")
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("sent on as %s, came back as %+v, %v", got.Body(), again, err)
		}
		m := NewManifest("", DefaultSeed, Files)
		m.Add(PinnedGenerator{Name: got.Generator, ChunkSize: 1})
		if _ = m.Fit(&got, PinnedGenerator{}); got.Range().Start < 0 || got.Range().End > MaxIndex || len(got.Chunks()) == 0 {
			t.Fatalf("accepted %+v", got)
		}
	})
}

func TestBodyIsStable(t *testing.T) {
	task := Task{Generator: "g", StartIndex: 20, NumSamples: 5, Seed: 0, Format: Tar, RunID: "r", ChunkSize: 20,
		Attempt: 3, Dataset: "v2"}
	want := `{"dataset":"v2","type":"g","start_index":20,"num_samples":5,"seed":0,"output_format":"tar","run_id":"r","chunk_size":20,"attempt":3}`
	if got := task.Body(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The seeds are part of the contract: another value here is another dataset.
func TestSeedsAreStable(t *testing.T) {
	got := []int{
		Seed("chess-task-data-generator", 42, 20, 0, 0), Seed("chess-task-data-generator", 42, 20, 0, 1),
		Seed("chess-task-data-generator", 42, 20, 1, 0), Seed("maze-task-data-generator", 42, 20, 0, 0),
		RepairSeed("chess-task-data-generator", 42, 0, []int{1, 2}), SeedFromID("b5293cb5-d306-4a17-9048-b263635abe42"),
	}
	want := []int{2017745073, 514315268, 1852509348, 621526693, 315278415, 1512416295}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSeedsDependOnEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type input struct {
			generator                  string
			seed, size, chunk, attempt int
		}
		draw := func(label string) input {
			return input{
				rapid.StringMatching(`[a-c]{1,2}`).Draw(t, label+" generator"),
				rapid.IntRange(0, 3).Draw(t, label+" seed"), rapid.IntRange(1, 3).Draw(t, label+" size"),
				rapid.IntRange(0, 3).Draw(t, label+" chunk"), rapid.IntRange(0, 3).Draw(t, label+" attempt"),
			}
		}
		a, b := draw("a"), draw("b")
		sa := Seed(a.generator, a.seed, a.size, a.chunk, a.attempt)
		sb := Seed(b.generator, b.seed, b.size, b.chunk, b.attempt)
		if (a == b) != (sa == sb) || sa < 0 || sa > MaxSeed {
			t.Fatalf("%+v has seed %d, %+v has %d", a, sa, b, sb)
		}
	})
}

// However a range is batched, its chunks keep every index once and every chunk
// of the grid gets the same seed.
func TestChunksCoverWhateverTheBatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		run := Run{ID: "r", Seed: 7, Format: Files,
			Start: rapid.IntRange(0, 50).Draw(t, "start"), Samples: rapid.IntRange(1, 200).Draw(t, "samples"),
			Batch: rapid.IntRange(1, 60).Draw(t, "batch"), ChunkSize: rapid.IntRange(1, 40).Draw(t, "chunk"),
			Generators: []RunGenerator{{Name: "a"}, {Name: "b", ChunkSize: 7}}}
		kept := map[string]map[int]bool{"a": {}, "b": {}}
		for _, task := range run.Plan() {
			if err := task.Validate(); err != nil {
				t.Fatal(err)
			}
			for _, chunk := range task.Chunks() {
				if chunk.Cell.Start != chunk.Number*task.ChunkSize || chunk.Count() != task.ChunkSize ||
					!chunk.Cell.Contains(chunk.Keep) {
					t.Fatalf("chunk %+v of %+v", chunk, task)
				}
				for _, i := range chunk.Kept() {
					if kept[task.Generator][i] {
						t.Fatalf("index %d of %s is in two chunks", i, task.Generator)
					}
					kept[task.Generator][i] = true
				}
			}
		}
		for name, indices := range kept {
			if len(indices) != run.Samples || !indices[run.Start] || !indices[run.Start+run.Samples-1] {
				t.Fatalf("%s: %d of %d indices", name, len(indices), run.Samples)
			}
		}
	})
}

// The parts of chunks are the chunks of a finer grid, each in one chunk, and keep
// what the chunks keep.
func TestPartsAreAFinerGrid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 8).Draw(t, "part size")
		x := Task{Generator: "g", StartIndex: rapid.IntRange(0, 50).Draw(t, "start"),
			NumSamples: rapid.IntRange(1, 100).Draw(t, "samples"), Seed: 3, Format: Files,
			ChunkSize: size * rapid.IntRange(1, 5).Draw(t, "parts"), PartSize: size}
		if err := x.Validate(); err != nil {
			t.Fatal(err)
		}
		fine := x
		fine.ChunkSize, fine.PartSize = size, 0
		var parts []Chunk
		for _, c := range x.Chunks() {
			for _, p := range x.Parts(c) {
				if !c.Cell.Contains(p.Cell) || !c.Keep.Contains(p.Keep) {
					t.Fatalf("part %+v of chunk %+v", p, c)
				}
				parts = append(parts, p)
			}
			if c.Seed(x, 0) != Seed("g", 3, x.ChunkSize, c.Number, 0) {
				t.Fatalf("chunk %+v has the seed %d", c, c.Seed(x, 0))
			}
		}
		if want := fine.Chunks(); !reflect.DeepEqual(parts, want) {
			t.Fatalf("parts %+v, want %+v", parts, want)
		}
		for _, p := range parts {
			if p.Seed(x, 1) != p.Seed(fine, 1) {
				t.Fatalf("part %+v has the seed %d", p, p.Seed(x, 1))
			}
		}
	})
}

func TestKeys(t *testing.T) {
	chunk := Task{Generator: "g", StartIndex: 10, NumSamples: 25, ChunkSize: 20}.Chunks()[1]
	repair := Task{Generator: "g", Indices: []int{3, 4, 9}, Attempt: 2, ChunkSize: 5}.Chunks()[0]
	for _, d := range []Dataset{"v1", "fine.2"} {
		for _, test := range []struct{ got, want string }{
			{d.FileKey("g", SampleID("maze", 7), "prompt.txt"), "data/v1/g/maze_00000007/prompt.txt"},
			{d.ShardKey("g", chunk, 3), "data/v1/g/g_00000020_00000034_e3.tar.gz"},
			{d.CellKey("g", chunk.Cell), "receipts/v1/g/00000020_00000039.json"},
			{d.FailureKey("g", chunk.Name(), "id-1", 2), "failures/v1/g/00000020_00000034/id-1-2.json"},
			{d.FailureKey("", "", "../x", 1), "failures/v1/_invalid/___x-1.json"},
			{d.RunKey("r"), "runs/v1/r.json"},
			{d.ManifestKey(), "datasets/v1.json"},
			{d.ShardKey("g", repair, 1), "data/v1/g/g_00000003_00000004_r2_" + IndicesHash([]int{3, 4}) + "_e1.tar.gz"},
		} {
			if want := strings.Replace(test.want, "v1", d.String(), 1); test.got != want {
				t.Errorf("got %s, want %s", test.got, want)
			}
		}
		for key, want := range map[string]Range{d.CellKey("g", chunk.Cell): chunk.Cell, "x/00000001_00000000.json": {},
			"x/00000000_00000004_1.json": {}, "x/0000000a_00000004.json": {}} {
			if r, ok := CellRange(key); ok != (want.Len() > 0) || ok && r != want {
				t.Errorf("%s reads as %v, %v", key, r, ok)
			}
		}
		for key, want := range map[string]Range{
			d.ShardKey("g", chunk, 1): chunk.Keep, d.ShardKey("g", repair, 12): {3, 5},
			d.FileKey("g", SampleID("maze", 7), "a.tar.gz"):     {},
			d.Prefix(DataKind) + "g/h_00000000_00000004.tar.gz": {}, Dataset("other").ShardKey("g", chunk, 1): {},
		} {
			if r, ok := d.ShardRange(key); ok != (want.Len() > 0) || ok && r != want {
				t.Errorf("%s reads as %v, %v", key, r, ok)
			}
		}
	}
	for d, want := range map[Dataset]Dataset{"": "v2", "v1": "v2", "v9": "v10", "2026": "2027", "fine": "fine-2"} {
		if got := d.Next(); got != want {
			t.Errorf("after %s comes %s, want %s", d, got, want)
		}
	}
	for key, want := range map[string]string{
		Dataset("").ShardKey("g_e", repair, 12):          "g_e_00000003_00000004_r2_" + IndicesHash([]int{3, 4}) + ".tar.gz",
		"data/v1/g_crab/g_crab_00000000_00000004.tar.gz": "g_crab_00000000_00000004.tar.gz",
	} {
		if got := ShardFile(key); got != want {
			t.Errorf("the file of %s is %s", key, got)
		}
	}
}

func TestEveryCauseHasAPolicy(t *testing.T) {
	permanent := map[Cause]bool{InvalidTask: true, UnknownGenerator: true, Environment: true, Conflict: true}
	for _, c := range Causes() {
		p := c.Policy()
		if p.Means == "" || p.Remedy == "" || p.Retry == permanent[c] {
			t.Errorf("%s: %+v", c, p)
		}
		if d := c.Delay(1_000_000); d < 0 || d > MaxBackoff {
			t.Errorf("%s waits %v", c, d)
		}
	}
	if len(policies) != len(Causes()) {
		t.Errorf("%d policies for %d causes", len(policies), len(Causes()))
	}
}

func TestRunIsJSON(t *testing.T) {
	run := Run{ID: "r", Seed: 1, Samples: 2, Batch: 1, ChunkSize: 1, Format: Tar, Missing: true,
		Generators: []RunGenerator{{Name: "g", Missing: []Range{{0, 1}},
			Repairs: []Task{{Generator: "g", Indices: []int{0, 1}, Seed: 1, Attempt: 1000, ChunkSize: 1, Format: Tar}}}}}
	text, err := json.Marshal(run)
	if err != nil {
		t.Fatal(err)
	}
	var back Run
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(run, back) {
		t.Errorf("%s came back as %+v, %v", text, back, err)
	}
	// The plan is what is missing and the repairs, all of them the run's.
	plan := back.Plan()
	if len(plan) != 2 || plan[0].Range() != (Range{0, 1}) || !slices.Equal(plan[1].Indices, []int{0, 1}) ||
		plan[1].RunID != "r" || plan[1].Attempt != 1000 {
		t.Errorf("its plan is %+v", plan)
	}
}

// A run's object may come from anywhere: sizes of a generator that are none are the run's.
func TestSizesOfRun(t *testing.T) {
	r := Run{ChunkSize: 20, Batch: 600}
	for own, want := range map[int][2]int{-1: {20, 600}, 0: {20, 600}, 5: {5, 5}} {
		g := RunGenerator{ChunkSize: own, Batch: own}
		if got := [2]int{r.Chunk(g), r.BatchOf(g)}; got != want {
			t.Errorf("%d: %v, want %v", own, got, want)
		}
	}
}
