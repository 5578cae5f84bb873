package contract

import (
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/probe"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/video"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// withDecoder makes an environment in which videos can be decoded, for generators
// that need none.
func withDecoder(t *testing.T, names ...string) *generator.Index {
	t.Helper()
	if testing.Short() {
		t.Skip("it installs a package")
	}
	root := folder(t)
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(root, name, "requirements.txt"), []byte("av==18.1.0\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	index, err := (&environment.Builder{Root: root, Dir: t.TempDir(), Names: names,
		Progress: func(line string) { t.Log(line) }}).Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// A video whose boxes and tables are right is not complete if no picture comes of it.
func TestDecode(t *testing.T) {
	index := withDecoder(t, "organisation", "movies", "undecodable")
	c := Checker{Samples: 2, Seed: 42, Scratch: t.TempDir(), Runs: &probe.Runner{Guard: &generator.Guard{}}}
	for name, want := range map[string]string{
		"organisation": "",
		"movies":       "",
		"undecodable":  "2 pictures or videos cannot be decoded, such as faults_00000000/ground_truth.mp4: ",
	} {
		g, err := index.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Check(t.Context(), g)
		if err != nil {
			t.Fatal(err)
		}
		if want == "" {
			if r.Verdict != Keeps || !slices.Equal(r.Decoders, []string{"av"}) {
				t.Errorf("%s: it %s, %+v, decoded by %q", name, r.Verdict, r.Findings, r.Decoders)
			}
			continue
		}
		if len(r.Findings) != 1 || r.Findings[0].Property != Decodable || r.Findings[0].Level != Breaks ||
			!strings.HasPrefix(r.Findings[0].Text, want) {
			t.Errorf("%s: %+v", name, r.Findings)
		}
	}
}

// The contact sheet shows each sample's first frame, frames of its video, and its
// final frame.
func TestContactSheet(t *testing.T) {
	index := withDecoder(t, "organisation")
	g, err := index.Find("organisation")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	scratch := filepath.Join(dir, "scratch")
	if err := os.Mkdir(scratch, 0o700); err != nil {
		t.Fatal(err)
	}
	result, err := generator.Run(t.Context(), generator.Request{Generator: g, Samples: 2, Seed: 5, Scratch: scratch})
	if err != nil {
		t.Fatal(err)
	}
	_, samples, err := probe.Collect(g, result.Output, 2)
	if err != nil {
		t.Fatal(err)
	}
	sheet, err := ContactSheet(t.Context(), g, dir, samples, 2)
	if err != nil {
		t.Fatal(err)
	}
	// First frame, two of the video's three frames, final frame: all are square.
	const pictures, rows = 4, 2
	if b := sheet.Bounds(); b.Dx() != gap+pictures*(thumb+gap) || b.Dy() != gap+rows*(label+thumb+gap) {
		t.Errorf("the sheet has %d by %d pixels", b.Dx(), b.Dy())
	}
	for n, s := range samples {
		for at, name := range map[int]string{0: "first_frame.png", pictures - 1: "final_frame.png"} {
			file := s.Files[slices.IndexFunc(s.Files, func(f sample.File) bool { return f.Name == name })]
			picture, wrong, err := video.ReadPicture(file.Path)
			if err != nil || wrong != "" {
				t.Fatal(wrong, err)
			}
			want := color.RGBAModel.Convert(picture.At(4, 4))
			x, y := gap+at*(thumb+gap)+thumb/2, gap+n*(label+thumb+gap)+label+thumb/2
			if got := color.RGBAModel.Convert(sheet.At(x, y)); got != want {
				t.Errorf("%s of %s is %v on the sheet, want %v", name, s.ID, got, want)
			}
		}
	}
	file := filepath.Join(dir, "sheet.png")
	if err := SavePicture(file, sheet); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if read, err := png.Decode(f); err != nil || read.Bounds() != sheet.Bounds() {
		t.Errorf("the sheet cannot be read again: %v", err)
	}
}
