package inspect_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// healthy is a sample as a good generator makes it.
func healthy(index int) sample.Sample {
	s := sample.Sample{ID: fmt.Sprintf("maze_%08d", index), Index: index}
	picture := sample.Media{Width: 512, Height: 512}
	for _, f := range []sample.File{
		{Name: "final_frame.png", Media: picture},
		{Name: "first_frame.png", Media: picture},
		{Name: "ground_truth.mp4", Media: sample.Media{Width: 512, Height: 512, Frames: 81, FPS: 16, Codec: "h264",
			PixelFormat: "yuv420p"}},
		{Name: "prompt.txt", Size: 40},
		{Name: "rubric.txt", Size: 50},
	} {
		f.SHA256 = hashOf(f.Name, index)
		s.Files = append(s.Files, f)
	}
	return s
}

func hashOf(name string, index int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", name, index))
	return hex.EncodeToString(sum[:])
}

// Each hint is found in the samples that have the fault, and in no other; what marks show is what hints say.
func TestHints(t *testing.T) {
	const faulty = 7
	file := func(name string, change func(*sample.File)) func(*sample.Sample) {
		return func(s *sample.Sample) {
			if s.Index == faulty {
				change(&s.Files[slices.IndexFunc(s.Files, func(f sample.File) bool { return f.Name == name })])
			}
		}
	}
	as3 := func(name string) func(*sample.Sample) {
		return file(name, func(f *sample.File) { f.SHA256 = hashOf(name, 3) })
	}
	for _, c := range []struct {
		change func(*sample.Sample)
		want   string // of the sample
		also   string // of sample 3
		all    string // of every sample
	}{
		{change: func(*sample.Sample) {}},
		{change: as3("ground_truth.mp4"), want: "same-video ground_truth.* 2", also: "same-video ground_truth.* 2"},
		{change: as3("first_frame.png"), want: "same-first-frame first_frame.png 2",
			also: "same-first-frame first_frame.png 2"},
		{change: as3("final_frame.png"), want: "same-final-frame final_frame.png 2",
			also: "same-final-frame final_frame.png 2"},
		{change: as3("prompt.txt")}, // one prompt may fit two samples
		{change: func(s *sample.Sample) { s.Files[3].SHA256 = hashOf("prompt.txt", 0) }, all: "same-prompt prompt.txt 20"},
		{change: file("final_frame.png", func(f *sample.File) { f.SHA256 = hashOf("first_frame.png", faulty) }),
			want: "still final_frame.png 2"},
		{change: file("first_frame.png", func(f *sample.File) { f.Media.Colour = "#000000" }),
			want: "one-colour first_frame.png 1"},
		{change: file("ground_truth.mp4", func(f *sample.File) { f.Media.Width = 256 }),
			want: "video-size ground_truth.mp4 0.5"},
		{change: file("ground_truth.mp4", func(f *sample.File) { f.Media.Frames = 80 }), want: "length ground_truth.* 80"},
		{change: file("ground_truth.mp4", func(f *sample.File) { f.Media.FPS = 24 }), want: "length ground_truth.* 81"},
		{change: file("ground_truth.mp4", func(f *sample.File) { f.Media.Codec = "mpeg4" }),
			want: "unplayable ground_truth.mp4 1"},
		{change: file("prompt.txt", func(f *sample.File) { f.Text.Invalid = true }), want: "prompt-encoding prompt.txt 40"},
		{change: file("prompt.txt", func(f *sample.File) { f.Text.Blank = true }), want: "prompt-empty prompt.txt 40"},
		{change: file("prompt.txt", func(f *sample.File) { f.Text.Answer = true }),
			want: "prompt-names-answer prompt.txt 1"},
		{change: func(s *sample.Sample) {
			if s.Index == faulty {
				s.Files = s.Files[:4]
			}
		}, want: "no-rubric rubric.txt 19 files  1"},
	} {
		t.Run(c.want+c.all, func(t *testing.T) {
			var all []sample.Sample
			var marks []inspect.Marks
			for i := range 20 {
				s := healthy(i)
				c.change(&s)
				all, marks = append(all, s), append(marks, inspect.MarksOf(&s))
			}
			rule := inspect.RuleOf(marks)
			for i := range all {
				hints, got := rule.Hints(&all[i]), ""
				for n, h := range hints {
					if n > 0 {
						got += " "
					}
					got += fmt.Sprintf("%s %s %v", h.Kind, h.File, h.Number)
				}
				want := c.all + map[int]string{faulty: c.want, 3: c.also}[i]
				if got != want || rule.Set(&marks[i]) != inspect.SetOf(hints) {
					t.Errorf("sample %d has the hints %q (%v), want %q", i, got, rule.Set(&marks[i]).Keys(), want)
				}
			}
		})
	}
}

// Each kind has a key of its own that can be read back, and a text.
func TestKinds(t *testing.T) {
	var sets inspect.Set
	for _, a := range inspect.Kinds {
		kind, err := inspect.ParseKind(string(a.Kind))
		if err != nil || kind != a.Kind || a.Text == "" || sets&a.Kind.Set() != 0 || a.Kind.Set() == 0 {
			t.Errorf("%+v is read as %q, %v", a, kind, err)
		}
		sets |= a.Kind.Set()
	}
	if len(sets.Kinds()) != len(inspect.Kinds) {
		t.Errorf("%d kinds of %d", len(sets.Kinds()), len(inspect.Kinds))
	}
	if kind, err := inspect.ParseKind("dull"); err == nil {
		t.Errorf("dull is read as %q", kind)
	}
}

// One rule says which videos browsers play, for hints, exports and the pages of ops ui.
func TestPlays(t *testing.T) {
	for _, c := range []struct {
		name  string
		media sample.Media
		want  bool
	}{
		{"ground_truth.mp4", sample.Media{Codec: "h264", PixelFormat: "yuv420p"}, true},
		{"ground_truth.mp4", sample.Media{Codec: "h264", PixelFormat: "yuvj420p"}, true},
		{"ground_truth.mp4", sample.Media{Codec: "h264", PixelFormat: "yuv444p"}, false},
		{"ground_truth.mp4", sample.Media{Codec: "mpeg4", PixelFormat: "yuv420p"}, false},
		{"ground_truth.mp4", sample.Media{}, false},
		{"ground_truth.avi", sample.Media{Codec: "h264", PixelFormat: "yuv420p"}, false},
		{"ground_truth.mkv", sample.Media{Codec: "vp9", PixelFormat: "yuv420p"}, false},
		{"ground_truth.webm", sample.Media{Codec: "vp9", PixelFormat: "yuv420p"}, true},
		{"ground_truth.webm", sample.Media{Codec: "h264", PixelFormat: "yuv420p"}, false},
	} {
		if got := inspect.Plays(c.name, c.media); got != c.want {
			t.Errorf("%s, %+v: %v, want %v", c.name, c.media, got, c.want)
		}
	}
}
