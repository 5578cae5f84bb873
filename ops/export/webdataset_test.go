package export_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// member is a member of a tar file.
type member struct{ name, text string }

func members(t testing.TB, archive string) (list []member) {
	t.Helper()
	r := tar.NewReader(strings.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		check(t, err)
		text, err := io.ReadAll(r)
		check(t, err)
		list = append(list, member{h.Name, string(text)})
	}
}

// The members of a sample follow one another, the key ends at the first dot, every sample has
// the fields json, prompt.txt and rubric.txt, and every byte is the bucket's.
func TestWebdataset(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	st := b.all(t, "v1", task.Files)
	dir := t.TempDir()
	s, err := exported(t.Context(), t, export.Export{Store: st, Format: export.Webdataset(),
		Options: export.Options{ShardSize: 60_000}}, dir)
	check(t, err)
	files := content(t, dir)
	if s.Samples != 44 || s.Files != len(files)-1 {
		t.Errorf("%+v of %d files", s, len(files))
	}
	for _, g := range []s3test.Generator{maze, chess, odd} {
		seen, last, fields := map[string]map[string]string{}, "", map[string]string(nil)
		var shards []string
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if strings.HasPrefix(name, "data/"+g.Name+"/") {
				shards = append(shards, name)
				if len(files[name]) > 62_000 {
					t.Errorf("%s has %d bytes", name, len(files[name]))
				}
				for _, m := range members(t, files[name]) {
					key, field, _ := strings.Cut(m.name, ".")
					if key != last {
						if seen[key] != nil {
							t.Errorf("the members of %s do not follow one another", key)
						}
						last, fields = key, map[string]string{}
						seen[key] = fields
					}
					fields[field] = m.text
				}
			}
		}
		if len(seen) != g.Samples {
			t.Errorf("%s: %d samples in %v", g.Name, len(seen), shards)
		}
		for i := range g.Samples {
			key := strings.ReplaceAll(g.Name, ".", "-") + task.SampleID("", i)
			is, want := seen[key], g.Files(i)
			var d struct {
				Metadata, ID string
				FPS          float64
			}
			check(t, json.Unmarshal([]byte(is["json"]), &d))
			if d.Metadata != want["metadata.json"] || d.ID != task.SampleID(g.Domain, i) || d.FPS != 16 {
				t.Errorf("%s: %s", key, is["json"])
			}
			if !strings.Contains(is["json"], `"fps":16.0,`) {
				t.Errorf("%s: a loader takes fps for an integer: %s", key, is["json"])
			}
			delete(want, "metadata.json")
			delete(is, "json")
			for name, text := range want {
				if field := export.WebField(name); is[field] != text || strings.Contains(field, "/") {
					t.Errorf("%s: %s is %.40q, not %.40q", key, field, is[field], text)
				}
				delete(is, export.WebField(name))
			}
			if rubric, ok := is["rubric.txt"]; g.Name == odd.Name && (!ok || rubric != "" || len(is) != 1) ||
				g.Name != odd.Name && len(is) > 0 {
				t.Errorf("%s has %v, too", key, is)
			}
		}
	}
	if len(shardsOf(files, maze.Name)) < 3 {
		t.Errorf("%v", shardsOf(files, maze.Name))
	}
}

func shardsOf(files map[string]string, generator string) (list []string) {
	for name := range files {
		if strings.HasPrefix(name, "data/"+generator+"/") {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}
