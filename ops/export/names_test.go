package export

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// Each file of a sample has a column of its own, and none has that of another fact.
func TestMediaColumns(t *testing.T) {
	for _, c := range []struct{ generators, want string }{
		{"ground_truth.mp4 | ground_truth.avi", "ground_truth.avi:ground_truth ground_truth.mp4:ground_truth"},
		{"a.png a.mp4", "a.mp4:a_mp4 a.png:a_png"},
		{"frame.0.png frame_0.png", "frame.0.png:frame_0_png frame_0.png:frame_0_png_"},
		{"frame.0.png | frame_0.png", "frame.0.png:frame_0 frame_0.png:frame_0"},
		{"frame.0.png | frame_0.mp4", "frame.0.png:frame_0_png frame_0.mp4:frame_0_mp4"},
		{"pixel.format.png", "pixel.format.png:pixel_format_png"},
		{"prompt.png seed.png other.files.png", "other.files.png:other_files_png prompt.png:prompt_png seed.png:seed_png"},
		{"a.png a.mp4 a_png.jpg", "a.mp4:a_mp4 a.png:a_png a_png.jpg:a_png_jpg"},
	} {
		p := &Plan{}
		for names := range strings.SplitSeq(c.generators, " | ") {
			g := &Generator{Names: map[string]int{}}
			for _, name := range strings.Fields(names) {
				g.Names[name] = 1
			}
			p.Generators = append(p.Generators, g)
		}
		columns, names := MediaColumns(p)
		var got []string
		for _, name := range slices.Sorted(maps.Keys(names)) {
			got = append(got, name+":"+names[name])
			if !slices.ContainsFunc(columns, func(c Column) bool { return c.Name == names[name] }) {
				t.Errorf("%s: no column %s in %v", c.generators, names[name], columns)
			}
		}
		if is := strings.Join(got, " "); is != c.want {
			t.Errorf("%s: %s, want %s", c.generators, is, c.want)
		}
	}
}

// No file is lost silently if two of a row have one column.
func TestColumnTwice(t *testing.T) {
	f := &parquetFormat{columns: []Column{{"a", Image}}, names: map[string]string{"a.png": "a", "a.jpg": "a"}}
	_, err := f.row(&Row{Key: "maze_00000000", Files: []File{NewFile("a.jpg", nil, nil), NewFile("a.png", nil, nil)}})
	if fmt.Sprint(err) != "maze_00000000: two of its files would be in the column a" {
		t.Error(err)
	}
}

// Loaders make names lower-case, so two that differ in case alone are one field.
func TestFieldsDifferInCase(t *testing.T) {
	_, err := webMembers(&Row{ID: "maze_00000000", Generator: "maze", Files: []File{NewFile("A.png", nil, nil),
		NewFile("B.png", nil, nil), NewFile("a.png", nil, nil)}})
	if fmt.Sprint(err) != "maze_00000000 of maze: two of its files would be the field a.png" {
		t.Error(err)
	}
}
