package contract

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// SaveSheets draws contact sheets of samples, a page for each PerSheet of them, saves
// them as contact-sheet.png, contact-sheet-2.png and so on in a folder, and returns the
// files. A name that is taken is left out. dir is as for ContactSheet.
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
