package inspect

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/probe"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// Judge has a generator's own judge score the videos of n of its samples, spread evenly, and returns hints for those
// that do not have all points, and how many were scored. probe.Blame recognizes the error if the judge is at fault.
func (d *Deep) Judge(ctx context.Context, g *generator.Generator, n int) (Hints, int, error) {
	hints, scored := Hints{}, 0
	all := func(string) bool { return true }
	err := d.files(ctx, "scores of "+g.Name, g.Name, n, all, func(ctx context.Context, dir string,
		samples []sample.Sample) (func(), error) {
		scratch := filepath.Join(dir, "judge")
		if err := os.Mkdir(scratch, 0o700); err != nil {
			return nil, err
		}
		scores, err := probe.Judge(ctx, g, scratch, samples)
		return func() {
			for i, s := range scores {
				if scored++; s.Low() {
					at := slices.IndexFunc(samples[i].Files, func(f sample.File) bool { return sample.IsGroundTruth(f.Name) })
					hint := Hint{Kind: LowScore, Number: s.Score, Text: s.Percent()}
					if at >= 0 {
						hint.File = samples[i].Files[at].Name
					}
					if len(s.Faults) > 0 {
						hint.Text += ": " + strings.Join(s.Faults[:min(len(s.Faults), shownFaults)], "; ")
					}
					hints[samples[i].Index] = append(hints[samples[i].Index], hint)
				}
			}
		}, err
	})
	if err != nil {
		err = fmt.Errorf("judge samples of %s: %w", g.Name, err)
	}
	return hints, scored, err
}

const shownFaults = 3
