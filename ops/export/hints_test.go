package export_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Rows have the hints of their samples, among the rows of the export. Those of what --video changes are left out.
func TestHints(t *testing.T) {
	t.Parallel()
	g := chess
	g.Files = func(i int) map[string]string {
		files := maps.Clone(chess.Files(i))
		if i == 3 {
			files["ground_truth.mp4"] = video("chess", 1)
			delete(files, "rubric.txt")
		}
		return files
	}
	b := newBucket(t)
	b.commit(t, "v1", task.Files, g)
	for _, c := range []struct {
		options export.Options
		want    map[int]string
		others  string
	}{
		{export.Options{}, map[int]string{1: "same-video unplayable", 3: "same-video unplayable no-rubric files"},
			"unplayable"},
		{export.Options{PerGenerator: 3}, nil, "unplayable"},
		{export.Options{Video: "h264"}, map[int]string{1: "same-video", 3: "same-video no-rubric files"}, ""},
	} {
		dir := t.TempDir()
		_, err := exported(t.Context(), t, export.Export{Store: b.store.In("v1"), Format: export.Webdataset(),
			Options: c.options}, dir)
		check(t, err)
		files, rows := content(t, dir), 0
		for _, m := range members(t, files[shardsOf(files, g.Name)[0]]) {
			if !strings.HasSuffix(m.name, ".json") {
				continue
			}
			var row struct {
				Index int
				Hints *string
			}
			check(t, json.Unmarshal([]byte(m.text), &row))
			want, ok := c.want[row.Index]
			if !ok {
				want = c.others
			}
			if rows++; row.Hints == nil || *row.Hints != want {
				t.Errorf("%+v: sample %d has the hints %v, want %q", c.options, row.Index, row.Hints, want)
			}
		}
		if rows == 0 {
			t.Errorf("no rows in %v", slices.Sorted(maps.Keys(files)))
		}
	}
}
