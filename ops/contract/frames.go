package contract

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/png" // pictures of samples
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/probe"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

//go:embed frames.py
var framer []byte

// video is the outcome of decoding one.
type video struct {
	Frames int           `json:"frames"`
	Tool   string        `json:"tool"`  // that decoded it; "" if none could
	Wrong  string        `json:"wrong"` // "" also where there was no tool
	shown  []image.Image // small, as thumbnail makes them
}

// decodeVideos decodes files with what the generator's environment has for that
// (PyAV, OpenCV, imageio-ffmpeg), or else the machine's ffmpeg, in the sandbox. It
// keeps thumbnails of count frames of each, spread evenly. The files must lie below dir, in which
// folders are made for the work; no generator may be able to write there itself.
func decodeVideos(ctx context.Context, runs *probe.Runner, g *generator.Generator, dir string, files []string,
	count int) ([]video, error) {
	list, err := json.Marshal(files)
	if err != nil {
		return nil, err
	}
	tool, err := os.MkdirTemp(dir, "frames-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tool)
	scratch, err := os.MkdirTemp(dir, "frames-scratch-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	for name, text := range map[string][]byte{"frames.py": framer, "videos.json": list} {
		if err := os.WriteFile(filepath.Join(tool, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	// A generator of frames: it may read what lies beside it, which are the videos.
	_, err = runs.Run(ctx, generator.Request{
		Samples: len(files), Generator: &generator.Generator{Name: "frames of " + g.Name, Dir: tool, Entry: "frames.py",
			Python: g.Python},
		Command: []string{"python", "frames.py", fmt.Sprint(count), "output"}, Scratch: scratch,
	})
	if err != nil {
		return nil, fmt.Errorf("decode the videos: %w", err)
	}
	// What decodes belongs to the generator's environment.
	broken := func(err error) error {
		return &generator.Failure{Cause: task.CorruptOutput,
			Detail: fmt.Sprintf("what it made of %d files cannot be read: %v", len(files), err)}
	}
	text, err := readLeft(scratch, "output/frames.json", mostFrame)
	if err != nil {
		return nil, broken(err)
	}
	var videos []video
	if err := json.Unmarshal(text, &videos); err != nil {
		return nil, broken(err)
	}
	if len(videos) != len(files) {
		return nil, broken(fmt.Errorf("there are %d answers", len(videos)))
	}
	for n := range videos {
		for i := range count {
			data, err := readLeft(scratch, fmt.Sprintf("output/%d-%d.ppm", n, i), mostFrame)
			if errors.Is(err, fs.ErrNotExist) {
				break // it has fewer frames
			}
			if err != nil {
				return nil, broken(err)
			}
			frame, err := readPPM(data)
			if err != nil {
				return nil, broken(err)
			}
			videos[n].shown = append(videos[n].shown, thumbnail(frame))
		}
	}
	return videos, nil
}

const mostFrame = 3*sample.MaxPixels + 100 // bytes of a decoded one

// frame is a picture as frames.py writes it, three bytes a pixel.
type frame struct {
	width, height int
	pixels        []byte
}

func (f *frame) ColorModel() color.Model { return color.RGBAModel }
func (f *frame) Bounds() image.Rectangle { return image.Rect(0, 0, f.width, f.height) }
func (f *frame) At(x, y int) color.Color {
	p := f.pixels[3*(y*f.width+x):]
	return color.RGBA{p[0], p[1], p[2], 255}
}

func readPPM(data []byte) (*frame, error) {
	f := &frame{}
	parts := bytes.SplitN(data, []byte("\n"), 4)
	if len(parts) != 4 {
		return nil, fmt.Errorf("a frame is no picture")
	}
	if _, err := fmt.Sscan(string(parts[1]), &f.width, &f.height); err != nil || f.width < 1 || f.height < 1 ||
		f.width > sample.MaxPixels || f.height > sample.MaxPixels || len(parts[3]) != 3*f.width*f.height {
		return nil, fmt.Errorf("a frame of %q has %d bytes", parts[1], len(parts[3]))
	}
	f.pixels = parts[3]
	return f, nil
}

// readPicture decodes a picture of a sample, or says what is wrong with it. The error
// is of the reading.
func readPicture(file string) (picture image.Image, wrong string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	from := &sample.Source{Reader: f}
	config, _, bad := image.DecodeConfig(from)
	switch {
	case from.Failed != nil:
		return nil, "", from.Failed
	case bad != nil:
		return nil, bad.Error(), nil
	case config.Width > sample.MaxPixels/max(config.Height, 1):
		return nil, fmt.Sprintf("it has %d by %d pixels, more than are decoded", config.Width, config.Height), nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, "", err
	}
	picture, _, bad = image.Decode(from)
	if from.Failed != nil || bad == nil {
		return picture, "", from.Failed
	}
	return nil, bad.Error(), nil
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

// decoded decodes every picture and video of samples and says what is wrong with
// them. unknown is true when there are videos and nothing to decode them with.
func decoded(ctx context.Context, runs *probe.Runner, g *generator.Generator, dir string,
	samples []sample.Sample) (wrong []string, tools []string, unknown bool, err error) {
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
	var videos []video
	err = runs.Retry(func() error {
		videos, err = decodeVideos(ctx, runs, g, dir, files, 0)
		return err
	})
	if died, ok := errors.AsType[*generator.Failure](err); ok { // a decoder in C did not survive it
		return append(wrong, "the decoder failed: "+died.Detail), nil, false, nil
	}
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
