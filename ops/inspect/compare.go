package inspect

import (
	"github.com/vm-dataset/vm-dataset-pipeline/ops/video"
)

// square is how many pixels wide and high pictures are compared: each is the mean of a block of the picture.
const square = 64

// Distance is how far two pictures are from each other, whatever their sizes, from 0 to 1: black and white have 1.
type Distance struct {
	Mean  float64 `json:"mean"`  // of all blocks
	Worst float64 `json:"worst"` // of the block that differs most
}

// distance compares two pictures that are scaled to squares.
func distance(a, b *video.Frame) (d Distance) {
	sum, worst := 0, 0
	for i := 0; i+2 < len(a.Pixels) && i+2 < len(b.Pixels); i += 3 {
		block := 0
		for c := range 3 {
			x := int(a.Pixels[i+c]) - int(b.Pixels[i+c])
			block += max(x, -x)
		}
		sum, worst = sum+block, max(worst, block)
	}
	return Distance{float64(sum) / float64(255*max(len(a.Pixels), 1)), float64(worst) / (3 * 255)}
}
