package export_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// An export names the images of the workers, by digests without the account of a registry. What it says of samples does
// not depend on them.
func TestImages(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("2b", 32)
	var first map[string]string
	for _, c := range []struct{ image, short, full string }{
		{"", "|  |", ""},
		{image, "| sha256:1a1a1a1a1a1a |", "sha256:" + strings.Repeat("1a", 32)},
		{account + ".dkr.ecr.us-east-2.amazonaws.com/team/workers:1.2", "| workers:1.2 |", "workers:1.2"},
		{digest, "| sha256:2b2b2b2b2b2b |", digest},
	} {
		b, g := newBucket(t), maze
		g.Samples, g.Receipt = 2, func(r *store.Receipt) { r.Image = c.image }
		b.commit(t, "v1", task.Files, g)
		dir := t.TempDir()
		_, err := exported(t.Context(), t, export.Export{Store: b.store.In("v1"), Format: export.VBVR()}, dir)
		check(t, err)
		files := content(t, dir)
		if first == nil {
			first = files
		}
		names := []string{"README.md", "SHA256SUMS", "croissant.json", "export.json"}
		if c.image == "" {
			names = nil
		}
		if list := differences(first, files); !slices.Equal(list, names) {
			t.Errorf("%q: %v differ", c.image, list)
		}
		if !strings.Contains(files["README.md"], c.short) {
			t.Errorf("%q: README.md has no %q", c.image, c.short)
		}
		for name, text := range files {
			if strings.Contains(text, account) {
				t.Errorf("%s has the account of %q", name, c.image)
			}
			if c.image != "" && strings.HasSuffix(name, "t.json") && !strings.Contains(text, c.full) {
				t.Errorf("%s has no %q", name, c.full)
			}
		}
	}
}
