package contract

import (
	"context"
	"fmt"
	"image"
	_ "image/png" // pictures of samples
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/video"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// decodeVideos decodes files that lie below dir with what the generator's environment has for that, and keeps so many
// frames of each, spread evenly.
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
func decoded(ctx context.Context, g *generator.Generator, dir string, samples []sample.Sample) (wrong []string, tools []string, unknown bool, err error) {
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
