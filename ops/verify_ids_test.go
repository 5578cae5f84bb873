package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Two generators that call their domain alike make samples with the same ids, and
// verify says so.
func TestVerifyTellsOfSameIDs(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	for _, name := range []string{"maze", "chess"} {
		stored(t, c.store, name, task.Range{End: 3}, task.Files, "")
	}
	for _, test := range []struct {
		generators []string
		says       string
	}{{[]string{"maze"}, ""},
		{[]string{"chess", "maze"}, "chess, maze: their samples have the same ids, d_00000000 and so on"}} {
		run := task.Run{ID: "r", Samples: 3, Seed: 1, ChunkSize: 3, Batch: 3, Format: task.Files}
		for _, name := range test.generators {
			run.Generators = append(run.Generators, task.RunGenerator{Name: name})
		}
		report, err := (&dataset.Checker{Store: c.store}).Run(t.Context(), run)
		must(t, err)
		var said bytes.Buffer
		printReport(&said, report)
		if !report.Complete || strings.Contains(said.String(), "same ids") != (test.says != "") ||
			!strings.Contains(said.String(), test.says) {
			t.Errorf("%v: %s", test.generators, said.String())
		}
	}
}
