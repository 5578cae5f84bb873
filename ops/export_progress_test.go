package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// Progress says how long the rest will take, by the speed since the export began or went on: what was finished before
// took no time.
func TestExportProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stderr bytes.Buffer
		p := &exportProgress{Output: &Output{Output: &ui.Output{Stderr: &stderr}}}
		const total = 1000e6
		for _, step := range []struct {
			after time.Duration
			done  int64
			want  string
		}{
			{0, 400e6, "exporting, MB 400 of 1,000\n"},                                          // finished before
			{10 * time.Second, 500e6, "exporting at 10.0 MB/s, 50.0 s left, MB 500 of 1,000\n"}, // 100 MB in 10 s
			{30 * time.Second, 900e6, "exporting at 12.5 MB/s, 8.0 s left, MB 900 of 1,000\n"},
			{time.Second, 901e6, ""}, // a line every few seconds
			{time.Second, total, "exporting, MB 1,000 of 1,000\n"},
		} {
			time.Sleep(step.after)
			stderr.Reset()
			p.show(export.Progress{Doing: "exporting", Done: step.done, Total: total, Bytes: true})
			if got := stderr.String(); got != step.want {
				t.Errorf("after %s: %q, want %q", step.after, strings.TrimSpace(got), step.want)
			}
		}
	})
}
