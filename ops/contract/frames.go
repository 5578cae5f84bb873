package contract

import (
	"context"
	"fmt"
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
