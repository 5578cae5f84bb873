package video

import (
	"fmt"
	"image"
	_ "image/png" // pictures of samples
	"io"
	"os"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// ReadPicture decodes a PNG of at most sample.MaxPixels, or says what is wrong with it. The error is of the reading.
func ReadPicture(file string) (picture image.Image, wrong string, err error) {
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
