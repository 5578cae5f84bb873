package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// What dlq download could not write whole has no name that dlq replay would read.
func TestDLQDownloadToFullDisk(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	for range 4 {
		must(t, c.dead.SendMessage(t.Context(), strings.Repeat("x", 100_000),
			map[string]queue.Attribute{task.AttributeCause: {Type: "String", Text: "crashed"}}))
	}
	dir := t.TempDir()
	to := filepath.Join(dir, "saved")
	smallDisk(t, to, "256k")
	out, err := c.ops(t, dir, "dlq", "download", "--to", to).CombinedOutput()
	if err == nil || strings.Count(string(out), "no space left on device") != 1 {
		t.Errorf("%v: %s", err, out)
	}
	for _, name := range files(t, to) {
		text, err := os.ReadFile(filepath.Join(to, name))
		must(t, err)
		if !json.Valid(text) || filepath.Ext(name) != ".json" {
			t.Errorf("%s has %d bytes and is no saved message", name, len(text))
		}
	}
}
