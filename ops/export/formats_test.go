package export_test

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// discover finds tasks as VMEvalKit does: <domain>_task/<id>/ with prompt.txt and
// first_frame.png. VBVR-InferKit takes any folder for a domain.
func discover(t *testing.T, questions, pattern string) map[string]int {
	t.Helper()
	found := map[string]int{}
	domains, err := filepath.Glob(filepath.Join(questions, pattern))
	check(t, err)
	for _, domain := range domains {
		tasks, err := os.ReadDir(domain)
		check(t, err)
		for _, task := range tasks {
			_, noPrompt := os.Stat(filepath.Join(domain, task.Name(), "prompt.txt"))
			_, noPicture := os.Stat(filepath.Join(domain, task.Name(), "first_frame.png"))
			if noPrompt == nil && noPicture == nil {
				found[strings.TrimSuffix(filepath.Base(domain), "_task")]++
			}
		}
	}
	return found
}

// The evaluators find every sample, with all of its files; where two generators have the same
// domain, below the folder of each.
func TestFolder(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	st := b.all(t, "v1", task.Files)
	dir := t.TempDir()
	_, err := exported(t.Context(), t, export.Export{Store: st, Format: export.Folder()}, dir)
	check(t, err)
	for _, pattern := range []string{"*_task", "*"} {
		if found := discover(t, filepath.Join(dir, "questions"), pattern); found["maze"] != 25 || found["chess"] != 12 ||
			found["odd"] != 7 || len(found) != 3 {
			t.Errorf("%s: %v", pattern, found)
		}
	}
	files := content(t, dir)
	for name, want := range odd.Files(3) {
		if got := files["questions/odd_task/odd_00000003/"+name]; got != want {
			t.Errorf("%s is %.40q", name, got)
		}
	}
	checkSums(t, dir)

	other := maze
	other.Name = "O-1_maze"
	b.commit(t, "v1", task.Files, other)
	dir = t.TempDir()
	_, err = exported(t.Context(), t, export.Export{Store: st, Format: export.Folder(),
		Options: export.Options{Split: "train=*,test=odd"}}, dir)
	check(t, err)
	for questions, want := range map[string]int{"train/O-1_maze": 25, "train/maze-task-data-generator": 25, "train": 12,
		"test": 7} {
		n := 0
		for _, found := range discover(t, filepath.Join(dir, "questions", questions), "*_task") {
			n += found
		}
		if n != want {
			t.Errorf("%s has %d samples", questions, n)
		}
	}
}

// The lists name every sample of a split once, with files that are there and its prompt.
func TestLists(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	st := b.all(t, "v1", task.Files)
	dir := t.TempDir()
	s, err := exported(t.Context(), t, export.Export{Store: st, Format: export.Manifest(), Options: small}, dir)
	check(t, err)
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(dir, "manifests", name))
		check(t, err)
		return text
	}
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}
	// What was cut off of SHA256SUMS is found, because it ends with a file that every export has.
	if sums := content(t, dir)["SHA256SUMS"]; !strings.HasSuffix(sums, "  export.json\n") {
		t.Errorf("SHA256SUMS ends with %q", sums[max(0, len(sums)-80):])
	}
	for _, split := range []string{"train", "test"} {
		prompts := map[string]string{} // by video
		var lines []string
		for line := range strings.Lines(string(read(split + "/metadata.jsonl"))) {
			var l struct {
				Video      string  `json:"video"`
				InputImage string  `json:"input_image"`
				Prompt     string  `json:"prompt"`
				FrameRate  float64 `json:"frame_rate"`
			}
			check(t, json.Unmarshal([]byte(line), &l))
			want, err := os.ReadFile(filepath.Join(dir, filepath.Dir(l.Video), "prompt.txt"))
			check(t, err)
			if !there(l.Video) || !there(l.InputImage) || l.Prompt != string(want) || l.FrameRate != 16 {
				t.Errorf("%s", line)
			}
			prompts[l.Video] = l.Prompt
			lines = append(lines, l.Video)
		}
		if len(prompts) != s.Splits[split] || len(lines) != len(prompts) {
			t.Errorf("%s: %d lines, %d videos, %d samples", split, len(lines), len(prompts), s.Splits[split])
		}
		table, err := csv.NewReader(strings.NewReader(string(read(split + "/metadata.csv")))).ReadAll()
		check(t, err)
		if !slices.Equal(table[0], []string{"video", "input_image", "prompt", "frame_rate"}) || len(table) != len(lines)+1 {
			t.Errorf("%v and %d lines", table[0], len(table))
		}
		for n, row := range table[1:] {
			// Go reads a quoted \r\n as \n; Python does not
			if row[0] != lines[n] || row[2] != strings.ReplaceAll(prompts[row[0]], "\r\n", "\n") || row[3] != "16" {
				t.Errorf("%q", row)
			}
		}
		var clips []struct {
			Path string `json:"clip_path"`
			Text string `json:"text_annot"`
		}
		check(t, json.Unmarshal(read(split+"/clips.json"), &clips))
		for _, c := range clips {
			if c.Text != prompts[c.Path] {
				t.Errorf("%+v", c)
			}
		}
		var tables []map[string]any
		check(t, json.Unmarshal(read(split+"/dataset.json"), &tables))
		n := 0
		for _, table := range tables {
			if table["num_frames"] != 17.0 || table["width"] != 64.0 || table["height"] != 48.0 || table["fps"] != 16.0 {
				t.Errorf("%v", table)
			}
			rows, err := parquet.ReadFile[struct {
				Video  string `parquet:"video"`
				Prompt string `parquet:"prompt"`
				Image  string `parquet:"image"`
			}](filepath.Join(dir, "manifests", split, table["data_path"].(string)))
			check(t, err)
			for _, r := range rows {
				root := filepath.Join("manifests", split, table["root"].(string))
				if !there(filepath.Join(root, r.Video)) || !there(filepath.Join(root, r.Image)) || r.Prompt != prompts[r.Video] {
					t.Errorf("%+v", r)
				}
				n++
			}
		}
		if len(clips) != len(lines) || n != len(lines) || len(tables) != 3 {
			t.Errorf("%s: %d clips and %d rows in %d tables of %d samples", split, len(clips), n, len(tables), len(lines))
		}
	}
}

// Every path of metadata.parquet is a member of the tar file that its row names.
func TestVBVR(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	st := b.all(t, "v1", task.Files)
	dir := t.TempDir()
	_, err := exported(t.Context(), t, export.Export{Store: st, Format: export.VBVR(), Options: small}, dir)
	check(t, err)
	rows, err := parquet.ReadFile[struct {
		ID          int64  `parquet:"id"`
		Generator   string `parquet:"generator"`
		Task        string `parquet:"task"`
		SampleID    string `parquet:"sample_id"`
		Prompt      string `parquet:"prompt"`
		Metadata    string `parquet:"metadata_json"`
		FirstFrame  string `parquet:"first_frame_path"`
		FinalFrame  string `parquet:"final_frame_path"`
		Video       string `parquet:"ground_truth_video_path"`
		Tar         string `parquet:"tar_file"`
		Split       string `parquet:"split"`
		Frames      int64  `parquet:"frames"`
		Fingerprint string `parquet:"fingerprint"`
		Index       int64  `parquet:"index"`
		PixelFormat string `parquet:"pixel_format"`
		Key         string `parquet:"key"`
	}](filepath.Join(dir, "data", "metadata.parquet"))
	check(t, err)
	if len(rows) != 44 {
		t.Fatalf("%d rows", len(rows))
	}
	archives, splits := map[string]map[string]string{}, map[string]int{}
	for n, r := range rows {
		if archives[r.Tar] == nil {
			text, err := os.ReadFile(filepath.Join(dir, r.Tar))
			check(t, err)
			archives[r.Tar] = map[string]string{}
			for _, m := range members(t, string(text)) {
				archives[r.Tar][m.name] = m.text
			}
		}
		in := archives[r.Tar]
		folder := r.Generator + "/" + r.Task + "/" + r.SampleID + "/"
		if in[r.FirstFrame] == "" || in[r.Video] == "" || (r.FinalFrame != "") != (r.Generator == maze.Name) ||
			in[folder+"prompt.txt"] != r.Prompt || in[folder+"metadata.json"] != r.Metadata || r.ID != int64(n) ||
			r.Frames != 17 || r.PixelFormat != "yuv420p" {
			t.Errorf("%+v", r)
		}
		splits[r.Split]++
	}
	if splits["train"] == 0 || splits["test"] == 0 || splits["train"]+splits["test"] != 44 || len(archives) != 3 {
		t.Errorf("%v in %d archives", splits, len(archives))
	}
}
