package export_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/flags"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// --without flagged leaves the samples of open flags out, and the export says how many. The same flags give the same
// export, whoever set them and why; others give another one.
func TestWithoutFlagged(t *testing.T) {
	t.Parallel()
	for _, format := range []task.Format{task.Files, task.Tar} {
		b := newBucket(t)
		st := b.all(t, "v1", format)
		flag := func(by string, indices ...int) {
			t.Helper()
			var list []flags.Sample
			for _, i := range indices {
				list = append(list, flags.Sample{Index: i})
			}
			_, err := flags.Add(t.Context(), st, maze.Name, list, "by "+by, by)
			check(t, err)
		}
		e := export.Export{Store: st, Format: export.Folder(), Options: export.Options{Without: export.WithoutFlagged,
			Generators: []string{maze.Name}}}
		flag("ada", 3, 11)
		dir := t.TempDir()
		s, err := exported(t.Context(), t, e, dir)
		check(t, err)
		files := content(t, dir)
		for name := range files {
			if strings.Contains(name, "maze_00000003") || strings.Contains(name, "maze_00000011") {
				t.Errorf("%s is exported", name)
			}
		}
		var plan struct {
			Flagged    export.Flagged
			Missing    map[string]int
			Generators []struct{ Rows int }
		}
		check(t, json.Unmarshal([]byte(files["export.json"]), &plan))
		if s.Flagged != 2 || plan.Flagged.Samples != 2 || len(plan.Flagged.Digest) != 64 || plan.Generators[0].Rows != 23 ||
			plan.Missing != nil {
			t.Errorf("%+v, %+v", s, plan)
		}
		if want := "without 2 samples that people had flagged (digest `" + plan.Flagged.Digest[:12] + "`)"; !strings.Contains(
			files["README.md"], want) {
			t.Errorf("README.md has no %q", want)
		}

		flag("bob", 3) // the same samples are flagged
		if s, err := exported(t.Context(), t, e, dir); err != nil || !s.Already {
			t.Errorf("another person's flag makes another export: %+v, %v", s, err)
		}
		flag("bob", 4)
		if _, err := exported(t.Context(), t, e, dir); !errors.Is(err, export.ErrOther) {
			t.Errorf("another flag makes no other export: %v", err)
		}
		flag("bob", 0, 1, 2, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24)
		if _, err := exported(t.Context(), t, e, t.TempDir()); err == nil ||
			err.Error() != "--without flagged: all 25 samples are flagged" {
			t.Errorf("all are flagged: %v", err)
		}
	}
}
