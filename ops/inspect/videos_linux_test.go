package inspect_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/video"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// makeVideos makes samples of a dot that moves, whose names are their faults.
const makeVideos = `
import os, sys
import av
from PIL import Image, ImageDraw
def picture(x):
    p = Image.new("RGB", (256, 256), (240, 240, 240))
    d = ImageDraw.Draw(p)
    for n in range(16): d.line((n * 16, 0, n * 16, 255), fill=(60, 60, 60))
    d.ellipse((x, 120, x + 16, 136), fill=(200, 30, 30))
    return p
way = [picture(10 + 8 * n) for n in range(25)]
cases = {
    "healthy": (way, 256), "smaller": (way, 128), "starts-late": (way[3:], 256), "ends-early": (way[:-3], 256),
    "frozen": (way[:1] * 25, 256), "one-frame": (way[:1], 256), "damaged": (way, 256), "pictures-swapped": (way[::-1], 256),
}
for name, (frames, side) in cases.items():
    folder = os.path.join(sys.argv[1], name)
    os.makedirs(folder)
    way[0].save(os.path.join(folder, "first_frame.png"))
    (way[0] if name in ("frozen", "one-frame") else way[-1]).save(os.path.join(folder, "final_frame.png"))
    video = os.path.join(folder, "ground_truth.mp4")
    with av.open(video, "w") as out:
        s = out.add_stream("mpeg4", rate=16)
        s.width = s.height = side
        s.pix_fmt = "yuv420p"
        s.bit_rate = 4_000_000
        for p in frames: out.mux(s.encode(av.VideoFrame.from_image(p.resize((side, side)))))
        out.mux(s.encode())
    if name == "damaged":
        with open(video, "r+b") as f: f.truncate(os.path.getsize(video) // 2)
`

// Each hint of a decoded video is found in the sample that provokes it, whatever decodes it, and none in healthy ones.
func TestVideos(t *testing.T) {
	pythons := map[string]string{"EXPORT_PYTHON": os.Getenv("EXPORT_PYTHON"), "CV_PYTHON": os.Getenv("CV_PYTHON")}
	if pythons["EXPORT_PYTHON"] == "" {
		t.Skip("EXPORT_PYTHON is not set: it names a Python with PyAV and Pillow")
	}
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), pythons["EXPORT_PYTHON"], "-c", makeVideos, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wants := map[string]string{
		"healthy": "", "smaller": "", "starts-late": "video-first-frame ", "ends-early": "video-final-frame ",
		"frozen": "video-frozen ", "one-frame": "video-frozen ", "damaged": "video-undecoded ",
		"pictures-swapped": "video-first-frame video-final-frame ",
	}
	var samples []sample.Sample
	for name := range wants {
		s := sample.Sample{ID: name, Index: len(samples)}
		for _, file := range []string{"final_frame.png", "first_frame.png", "ground_truth.mp4"} {
			s.Files = append(s.Files, sample.File{Name: file, Path: filepath.Join(dir, name, file)})
		}
		samples = append(samples, s)
	}
	for variable, python := range pythons {
		if python == "" {
			t.Logf("%s is not set", variable)
			continue
		}
		d, err := video.FindDecoder(t.Context(), python)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		hints, err := inspect.VideosOf(t.Context(), d, dir, samples)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range samples {
			got := ""
			for _, h := range hints[s.Index] {
				got += string(h.Kind) + " "
			}
			if got != wants[s.ID] {
				t.Errorf("%s, %s: %v, want %q", d.Version, s.ID, hints[s.Index], wants[s.ID])
			}
			t.Log(fmt.Sprintf("%s, %s: ", d.Version, s.ID), hints[s.Index])
		}
	}
}
