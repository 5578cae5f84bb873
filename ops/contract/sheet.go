package contract

import (
	"cmp"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	scale "golang.org/x/image/draw"
	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/video"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// What a contact sheet looks like, in pixels.
const (
	thumb  = 160 // height of a picture
	gap    = 8
	label  = 18  // height of a line of text
	widest = 400 // of a picture that is long and low

	shownSide = 480 // of a frame, before it becomes a thumbnail
)

// PerSheet is for how many samples one sheet is made: it is 4,658 pixels high, and
// takes 60 MB with what is drawn on it. No viewer opens one of a thousand.
const PerSheet = 25

// ContactSheet draws a row for each of at most PerSheet samples: its name, first frame, count frames of its video or a
// box that says that it cannot be decoded, and final frame. The samples must lie below dir.
func ContactSheet(ctx context.Context, g *generator.Generator, dir string, samples []sample.Sample,
	count int) (image.Image, error) {
	var files []string
	for _, s := range samples {
		if file := videoOf(s); file != "" {
			files = append(files, file)
		}
	}
	videos, err := decodeVideos(ctx, g, dir, files, count)
	if err != nil {
		return nil, err
	}
	var rows []Row
	for _, s := range samples {
		r := Row{Title: s.ID}
		err := r.addStill(s, "first_frame.png")
		if file := videoOf(s); file != "" {
			v := videos[0]
			videos = videos[1:]
			r.Title += fmt.Sprintf("   %s: %d frames", path.Base(file), v.Frames)
			for _, frame := range v.Shown {
				r.Pictures = append(r.Pictures, thumbnail(frame))
			}
			if len(v.Shown) == 0 {
				r.Title += ", not decoded"
				r.Pictures = append(r.Pictures, placeholder("no frames"))
			}
		}
		if err = cmp.Or(err, r.addStill(s, "final_frame.png")); err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return Sheet(rows), nil
}

func (r *Row) addStill(s sample.Sample, name string) error {
	if file := fileOf(s, name); file.Path != "" {
		return r.AddFile(file.Path)
	}
	return nil
}

// Row is a line of text and pictures of a sheet.
type Row struct {
	Title    string
	Pictures []image.Image // as AddFile adds them
}

// AddFile adds a picture, or says what is wrong with it. The error is of the reading.
func (r *Row) AddFile(file string) error {
	picture, wrong, err := video.ReadPicture(file)
	if err != nil {
		return err
	}
	if wrong != "" {
		r.Title += fmt.Sprintf("   %s: %s", filepath.Base(file), wrong)
		picture = placeholder("not decoded")
	}
	r.Pictures = append(r.Pictures, thumbnail(picture))
	return nil
}

// Sheet draws rows, at most PerSheet.
func Sheet(rows []Row) image.Image {
	width, height := 0, gap
	for _, r := range rows {
		wide := gap
		for _, p := range r.Pictures {
			wide += p.Bounds().Dx() + gap
		}
		width, height = max(width, wide, 2*gap+len(r.Title)*basicfont.Face7x13.Advance), height+label+thumb+gap
	}
	sheet := image.NewRGBA(image.Rect(0, 0, width, height))
	// most pictures are white at their edges
	draw.Draw(sheet, sheet.Bounds(), image.NewUniform(color.Gray{0xdd}), image.Point{}, draw.Src)
	y := gap
	for _, r := range rows {
		write(sheet, gap, y+13, r.Title)
		x := gap
		for _, p := range r.Pictures {
			draw.Draw(sheet, image.Rect(x, y+label, x+p.Bounds().Dx(), y+label+thumb), p, p.Bounds().Min, draw.Over)
			x += p.Bounds().Dx() + gap
		}
		y += label + thumb + gap
	}
	return sheet
}

// videoOf returns the video of a sample that shows its solution, or else the first that it has; "" if there is none.
func videoOf(s sample.Sample) (file string) {
	for _, f := range s.Files {
		if sample.IsVideo(f.Name) && (file == "" || strings.HasPrefix(f.Name, "ground_truth.")) {
			file = f.Path
		}
	}
	return file
}

// SavePicture writes a picture as a PNG, in one step.
func SavePicture(file string, picture image.Image) error {
	return atomicfile.Stream(file, func(w io.Writer) error { return png.Encode(w, picture) })
}

// thumbnail scales a picture to the height of the sheet.
func thumbnail(picture image.Image) image.Image {
	b := picture.Bounds()
	small := image.NewRGBA(image.Rect(0, 0, min(max(b.Dx()*thumb/max(b.Dy(), 1), 1), widest), thumb))
	scale.ApproxBiLinear.Scale(small, small.Bounds(), picture, b, draw.Src, nil)
	return small
}

func placeholder(text string) image.Image {
	box := image.NewRGBA(image.Rect(0, 0, thumb, thumb))
	draw.Draw(box, box.Bounds(), image.NewUniform(color.Gray{0xbb}), image.Point{}, draw.Src)
	write(box, gap, thumb/2, text)
	return box
}

func write(to draw.Image, x, y int, text string) {
	d := font.Drawer{Dst: to, Src: image.Black, Face: basicfont.Face7x13, Dot: fixed.P(x, y)}
	d.DrawString(text)
}

// SaveSheets draws a page for each PerSheet of the samples, saves them in a folder as contact-sheet.png,
// contact-sheet-2.png and so on, leaving out names that are taken, and returns the files. dir is as for ContactSheet.
func SaveSheets(ctx context.Context, g *generator.Generator, dir string, samples []sample.Sample,
	to string) (files []string, err error) {
	const frames = 4
	page := 1
	for part := range slices.Chunk(samples, PerSheet) {
		sheet, err := ContactSheet(ctx, g, dir, part, frames)
		if err != nil {
			return nil, err
		}
		file := filepath.Join(to, "contact-sheet.png")
		for ; ; page++ {
			if page > 1 {
				file = filepath.Join(to, fmt.Sprintf("contact-sheet-%d.png", page))
			}
			if _, err := os.Lstat(file); err != nil {
				break
			}
		}
		if err := SavePicture(file, sheet); err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// decodeVideos decodes files below dir with what the generator has for that, and keeps so many frames of each.
func decodeVideos(ctx context.Context, g *generator.Generator, dir string, files []string, frames int) ([]video.Decoded,
	error) {
	if len(files) == 0 {
		return nil, nil
	}
	decoder, err := video.NewDecoder(g.Python)
	if err != nil {
		return nil, err
	}
	defer decoder.Close()
	jobs := make([]video.Job, len(files))
	for i, file := range files {
		jobs[i] = video.Job{Path: file, Spread: frames, Side: shownSide}
	}
	return decoder.Decode(ctx, dir, jobs)
}

// pixelsOf reads every pixel of a PNG and says what is wrong with it, or "".
func pixelsOf(file string) (wrong string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return sample.PNGPixels(f)
}

// decoded says which pictures and videos of samples cannot be decoded; unknown is that nothing here decodes videos.
func decoded(ctx context.Context, g *generator.Generator, dir string, samples []sample.Sample) (wrong, tools []string,
	unknown bool, err error) {
	var files, names []string
	for _, s := range samples {
		for _, f := range s.Files {
			switch {
			case sample.IsVideo(f.Name):
				files, names = append(files, f.Path), append(names, s.ID+"/"+f.Name)
			case filepath.Ext(f.Name) == ".png":
				bad, err := pixelsOf(f.Path)
				if err != nil {
					return nil, nil, false, err
				}
				if bad != "" {
					wrong = append(wrong, fmt.Sprintf("%s/%s: %s", s.ID, f.Name, bad))
				}
			}
		}
	}
	if len(files) == 0 {
		return wrong, nil, false, nil
	}
	videos, err := decodeVideos(ctx, g, dir, files, 0)
	if err != nil {
		return nil, nil, false, err
	}
	for n, v := range videos {
		switch {
		case v.Wrong != "" && v.Tool == "":
			wrong = append(wrong, names[n]+": "+strings.TrimSpace(v.Wrong))
		case v.Tool == "":
			unknown = true
		default:
			if !slices.Contains(tools, v.Tool) {
				tools = append(tools, v.Tool)
			}
		}
	}
	return wrong, tools, unknown, nil
}
