package generator

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestIndexRoundTrip(t *testing.T) {
	dir := t.TempDir()
	want := &Index{Generators: []Generator{
		{Name: "a", Dir: "/g/a", Entry: DefaultEntry, Commit: "c", Flags: Flags{Output: "--output", Seed: true,
			StartIndex: true, NoVideo: "--no-videos", From: FromHelp}, HelpKey: "h", Traits: Traits{Repository: "o/a", Required: []string{"r"},
			Videoless: true, FilesVary: true, ExtraArgs: []string{"-x"}, Options: task.Options{"a": "b"}, ChunkSize: 5, Licence: "MIT"},
			Requirements: []string{"numpy"}, Environment: "e", Python: "/e/bin/python"},
		{Name: "b", Problem: "broken"},
	}}
	for range 2 { // the second replaces the first
		if err := want.Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := LoadIndex(dir)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("the folder holds %v", left)
	}
}

func TestLoadIndexRefuses(t *testing.T) {
	complete := `{"name":"a","dir":"/a","entry":"g.py","flags":{"output":"--output","seed":true},"python":"/p"}`
	for _, test := range []struct{ name, text, want string }{
		{"cut off", `{"generators":[`, "EOF"},
		{"unknown field", `{"generators":[],"extra":1}`, "extra"},
		{"trailing", `{"generators":[]}{}`, "follows"},
		{"twice", `{"generators":[` + complete + `,` + complete + `]}`, "twice"},
		{"relative python", strings.Replace(`{"generators":[`+complete+`]}`, `"/p"`, `"p"`, 1), "incomplete"},
		{"name", `{"generators":[{"name":"../x"}]}`, "no name"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, IndexFile), test.text)
			if x, err := LoadIndex(dir); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %+v, %v; want ...%q...", x, err, test.want)
			}
		})
	}
	if _, err := LoadIndex(t.TempDir()); err == nil || !strings.Contains(err.Error(), IndexFile) {
		t.Errorf("no index: %v", err)
	}
}

func TestFind(t *testing.T) {
	x := &Index{Generators: []Generator{{Name: "chess-task-data-generator"}, {Name: "maze-task-data-generator"},
		{Name: "O_41_nonogram_data_generator"}}}
	for _, test := range []struct{ name, nearest string }{
		{"chess", "chess-task-data-generator"}, {"mase-task-data-generator", "maze-task-data-generator"},
		{"nonogram", "O_41_nonogram_data_generator"},
		{"o-41-nonogram-data-generator", "O_41_nonogram_data_generator"}, {"xyz", ""}, {"", ""},
	} {
		_, err := x.Find(test.name)
		unknown, ok := errors.AsType[*UnknownError](err)
		if !ok || unknown.Name != test.name || unknown.Nearest != test.nearest {
			t.Errorf("%q: got %v, want nearest %q", test.name, err, test.nearest)
		}
	}
	if g, err := x.Find("maze-task-data-generator"); err != nil || g != &x.Generators[1] {
		t.Errorf("got %v, %v", g, err)
	}
}
