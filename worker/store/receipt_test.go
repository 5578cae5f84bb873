package store_test

import (
	"encoding/json"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// A receipt keeps what files say of themselves, and takes no byte for what they do not.
func TestReceiptMedia(t *testing.T) {
	s := sample.Sample{ID: "maze_00000001", Index: 1, Files: []sample.File{
		{Name: "first_frame.png", Size: 1, SHA256: "ab", Media: sample.Media{Width: 512, Height: 256}},
		{Name: "ground_truth.mp4", Size: 2, SHA256: "cd", Media: sample.Media{Width: 512, Height: 256, Frames: 48, FPS: 24,
			Seconds: 2, Codec: "mpeg4", PixelFormat: "yuv420p"}},
		{Name: "prompt.txt", Size: 3, SHA256: "ef"},
	}}
	const want = `[{"name":"first_frame.png","size":1,"sha256":"ab","media":{"width":512,"height":256}},` +
		`{"name":"ground_truth.mp4","size":2,"sha256":"cd","media":{"width":512,"height":256,"frames":48,"fps":24,` +
		`"seconds":2,"codec":"mpeg4","pixel_format":"yuv420p"}},{"name":"prompt.txt","size":3,"sha256":"ef"}]`
	got, err := json.Marshal(s.Files)
	if err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}
