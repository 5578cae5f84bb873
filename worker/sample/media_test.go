package sample

import (
	"bytes"
	"encoding/json"
	"image"
	"image/gif"
	"image/jpeg"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/Eyevinn/mp4ff/mp4"
)

func describe(t *testing.T, name string, data []byte) Media {
	t.Helper()
	m, err := checkFile(name, bytes.NewReader(data), int64(len(data)), nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return m
}

// Files of every container say what they are; what they do not say is absent.
func TestMedia(t *testing.T) {
	var jpg, anim bytes.Buffer
	if err := jpeg.Encode(&jpg, image.NewGray(image.Rect(0, 0, 6, 5)), nil); err != nil {
		t.Fatal(err)
	}
	if err := gif.Encode(&anim, image.NewGray(image.Rect(0, 0, 7, 5)), nil); err != nil {
		t.Fatal(err)
	}
	start := mp4.CreateEmptyInit()
	start.AddEmptyTrack(25, "video", "und")
	fragment, err := mp4.CreateFragment(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		fragment.AddFullSample(mp4.FullSample{Sample: mp4.Sample{Dur: 2, Size: 9}, Data: make([]byte, 9)})
	}
	var fragmented bytes.Buffer
	if err := start.Encode(&fragmented); err != nil {
		t.Fatal(err)
	}
	if err := fragment.Encode(&fragmented); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		data []byte
		want Media
	}{
		{"a.png", picture(t), Media{Width: 4, Height: 4, Colour: "#000000"}},
		{"a.jpg", jpg.Bytes(), Media{Width: 6, Height: 5}},
		{"a.gif", anim.Bytes(), Media{Width: 7, Height: 5}},
		{"a.jpeg", []byte("no picture"), Media{}},
		{"a.mp4", video(t, 10, 20), Media{Frames: 2, FPS: 25, Seconds: 0.08}},
		{"f.mp4", fragmented.Bytes(), Media{Frames: 4, FPS: 12.5, Seconds: 0.32}},
		{"a.webm", matroska(1, 3), Media{Frames: 3}},
		{"a.avi", avi(20), Media{}},
		{"prompt.txt", []byte("a maze"), Media{}},
	} {
		if got := describe(t, test.name, test.data); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

// PyAV finds what a file says of itself. Real writers (ffmpeg's libraries, as
// generators use them) and the decoder are its own.
func TestMediaAsPyAV(t *testing.T) {
	python := os.Getenv("AV_PYTHON")
	if python == "" {
		t.Skip("AV_PYTHON is not set: no PyAV to try")
	}
	const program = `
import av, json, sys
from fractions import Fraction
dir = sys.argv[1]
cases = [("h264.mp4", "libx264", "yuv420p", 24, {}), ("mpeg4.mp4", "mpeg4", "yuv420p", 30, {}),
         ("high.mp4", "libx264", "yuv420p10le", 25, {}), ("444.mov", "libx264", "yuv444p", Fraction(30000, 1001), {}),
         ("full.mp4", "libx264", "yuvj420p", 10, {}), ("rgb.mp4", "libx264rgb", "rgb24", 10, {}),
         ("gray.mp4", "libx264", "gray", 10, {}), ("hevc.mp4", "libx265", "yuv420p", 16, {}),
         ("hevc10.mkv", "libx265", "yuv422p10le", 16, {}), ("mjpeg.mp4", "mjpeg", "yuvj420p", 8, {}),
         ("vp9.mp4", "libvpx-vp9", "yuv420p", 24, {}), ("vp9.webm", "libvpx-vp9", "yuv420p", 24, {}),
         ("vp8.webm", "libvpx", "yuv420p", Fraction(24000, 1001), {}), ("h264.mkv", "libx264", "yuv422p", 24, {}),
         ("av1.mp4", "libsvtav1", "yuv420p", 24, {}), ("av1.webm", "libsvtav1", "yuv420p10le", 24, {}),
         ("mpeg4.mkv", "mpeg4", "yuv420p", 12, {}), ("ffv1.mkv", "ffv1", "yuv420p", 5, {}),
         ("mpeg4.avi", "mpeg4", "yuv420p", 15, {}), ("mjpeg.avi", "mjpeg", "yuvj420p", 15, {}),
         ("raw.avi", "rawvideo", "bgr24", 15, {}), ("h264.avi", "libx264", "yuv420p", 15, {}),
         ("fragmented.mp4", "libx264", "yuv420p", 24, {"movflags": "frag_keyframe+empty_moov"}),
         ("fragments.mp4", "mpeg4", "yuv420p", 24, {"movflags": "frag_every_frame+empty_moov+default_base_moof"})]
found = {}
for name, codec, pixels, rate, options in cases:
    with av.open(f"{dir}/{name}", "w", options=options) as f:
        s = f.add_stream(codec, rate=rate)
        s.width, s.height, s.pix_fmt = 130, 98, pixels
        s.codec_context.gop_size = 5
        for i in range(13):
            frame = av.VideoFrame(130, 98, "rgb24")
            for plane in frame.planes: plane.update(bytes([17 * i]) * plane.buffer_size)
            f.mux(s.encode(frame.reformat(format=pixels)))
        f.mux(s.encode(None))
    with av.open(f"{dir}/{name}") as f:
        s = f.streams.video[0]
        rate, codec = s.average_rate, s.codec_context.codec.canonical_name
        frames = list(f.decode(s))
        found[name] = dict(width=frames[0].width, height=frames[0].height, frames=len(frames), fps=float(rate), codec=codec,
                           pixel_format=frames[0].format.name, seconds=float(len(frames) / rate))
print(json.dumps(found))
`
	dir := t.TempDir()
	command := exec.Command(python, "-c", program, dir)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	var want map[string]Media
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatal(err)
	}
	// What the container does not say, but a decoder finds.
	unsaid := map[string]bool{"mjpeg.mp4": true, "mjpeg.avi": true, "h264.avi": true, "ffv1.mkv": true}
	for name, want := range want {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if unsaid[name] {
			want.PixelFormat = ""
		}
		got := describe(t, name, data)
		near := func(a, b float64) bool { return a-b < 0.002 && b-a < 0.002 } // a unit of time of Matroska
		if near(got.FPS, want.FPS) && near(got.Seconds, want.Seconds) {
			want.FPS, want.Seconds = got.FPS, got.Seconds
		}
		if got != want {
			t.Errorf("%s: %+v, PyAV says %+v", name, got, want)
		}
	}
}
