package web_test

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/web"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Files of both formats come whole and in ranges, and from the bucket once.
func TestMedia(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	for _, format := range []task.Format{task.Files, task.Tar} {
		t.Run(string(format), func(t *testing.T) {
			d := "d-" + string(format)
			b.commit(t, task.Dataset(d), format, maze(20))
			s := b.serve(t)
			files := plain(13)
			for name, want := range files {
				a := s.get("/media/maze-generator/13/" + name + "?dataset=" + d)
				if a.want(t, 200); a.text != want {
					t.Errorf("%s is %.40q, want %.40q", name, a.text, want)
				}
			}
			before := b.requests.Load()
			video, path := files["ground_truth.mp4"], "/media/maze-generator/13/ground_truth.mp4?dataset="+d
			whole := s.get(path)
			for _, c := range []struct {
				headers []string
				status  int
				text    string
			}{
				{[]string{"Range", "bytes=10-19"}, 206, video[10:20]},
				{[]string{"Range", "bytes=100-"}, 206, video[100:]},
				{[]string{"Range", "bytes=-5"}, 206, video[len(video)-5:]},
				{[]string{"Range", "bytes=99999-"}, 416, "invalid range: failed to overlap\n"},
				{[]string{"Range", "bytes=0-3", "If-Range", `"other"`}, 200, video},
				{[]string{"If-None-Match", whole.Header.Get("ETag")}, 304, ""},
			} {
				a := s.get(path, c.headers...)
				if a.want(t, c.status); a.text != c.text {
					t.Errorf("%v is answered %.60q, want %.60q", c.headers, a.text, c.text)
				}
			}
			if n := b.requests.Load() - before; n > 2 { // a listing, if a second has passed
				t.Errorf("ranges of a file that was read took %d requests to the bucket", n)
			}
			a := s.get("/media/maze-generator/13/ground_truth.mp4?download=1&dataset=" + d)
			if got := a.Header.Get("Content-Disposition"); got != `attachment; filename=maze_00000013_ground_truth.mp4` {
				t.Errorf("the disposition is %q", got)
			}
		})
	}
}

// What no browser plays is said to be re-encoded, or that nothing here can do it.
func TestUnplayable(t *testing.T) {
	b := newBucket(t)
	g := maze(2)
	g.Media = func(i int, file string) sample.Media {
		m := videos("mpeg4")(i, file)
		if i == 1 {
			m.Frames = 0
		}
		return m
	}
	b.commit(t, "v1", task.Files, g)
	t.Setenv("PATH", t.TempDir())
	t.Setenv("EXPORT_PYTHON", "")
	s := b.serve(t)
	s.get("/sample/maze-generator/0").want(t, 200, "nothing here can re-encode it", "install ffmpeg", "mpeg4",
		"Nothing here reads its frames: the first and the final one are below", `id="first"`, `id="final"`)
	s.get("/sample/maze-generator/1").want(t, 200, "nothing here can re-encode it",
		"Its receipt does not say how many frames it has: the first and the final one are below")
	s.get("/play/maze-generator/0/ground_truth.mp4").want(t, 500, "install ffmpeg")
	s.get("/frame/0/maze-generator/0/ground_truth.mp4").want(t, 500)
	s.get("/frame/99/maze-generator/0/ground_truth.mp4").want(t, 404)
	if _, list := s.search(nil); list[0].Encoded || list[0].Video != "" || list[0].Strip != nil {
		t.Errorf("the grid has %+v", list[0])
	}
}

// mpeg4 is a generator of one sample, whose video of 17 frames a Python with PyAV writes as MPEG-4 part 2.
func mpeg4(t *testing.T, python, name string) s3test.Generator {
	t.Helper()
	const write = `
import av, sys
with av.open(sys.argv[1], "w") as out:
    stream = out.add_stream("mpeg4", rate=16)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for n in range(17):
        frame = av.VideoFrame(64, 48, "rgb24")
        frame.planes[0].update(bytes([n * 9] * frame.planes[0].buffer_size))
        out.mux(stream.encode(frame))
    out.mux(stream.encode())
`
	file := filepath.Join(t.TempDir(), name)
	if out, err := exec.CommandContext(t.Context(), python, "-c", write, file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	video, err := os.ReadFile(file)
	check(t, err)
	g := maze(1)
	g.Name, g.Media = strings.ReplaceAll(name, ".", "-"), videos("mpeg4")
	g.Files = func(i int) map[string]string {
		files := plain(i)
		delete(files, "ground_truth.mp4")
		files[name] = string(video)
		return files
	}
	return g
}

// A video that no browser plays comes re-encoded, from EXPORT_PYTHON's PyAV, and is encoded once.
func TestEncoded(t *testing.T) {
	t.Parallel()
	python := os.Getenv("EXPORT_PYTHON")
	if python == "" {
		t.Skip("EXPORT_PYTHON is not set: it names a Python with PyAV")
	}
	b := newBucket(t)
	for _, name := range []string{"ground_truth.mp4", "ground_truth.avi"} {
		b.commit(t, "v1", task.Files, mpeg4(t, python, name))
	}
	s := b.serve(t)
	_, list := s.search(nil)
	for _, x := range list {
		if !x.Encoded || x.Video == "" {
			t.Errorf("%s: %+v", x.Generator, x)
			continue
		}
		began := time.Now()
		a := s.get(x.Video)
		first := time.Since(began)
		a.want(t, 200)
		m, err := sample.Describe("ground_truth.mp4", []byte(a.text))
		if err != nil || m.Codec != "h264" || m.Frames != 17 || m.PixelFormat != "yuv420p" {
			t.Errorf("%s is shown as %+v: %v", x.Generator, m, err)
		}
		began = time.Now()
		if part := s.get(x.Video, "Range", "bytes=5-9"); part.StatusCode != 206 || part.text != a.text[5:10] {
			t.Errorf("a range is answered %s", part.Status)
		}
		t.Logf("%s: encoded in %s, then read in %s", x.Generator, first, time.Since(began))
		s.get("/sample/"+x.Generator+"/0").want(t, 200, "re-encoded for this browser", "encoded again as H.264")
	}
}

// environment makes a Python's folder the environment of a generator of a server.
func environment(t *testing.T, folder string) func(*web.Config) {
	return func(c *web.Config) {
		dir := filepath.Join(c.Flags.LocalDir, "generators", "environments")
		check(t, os.MkdirAll(dir, 0o755))
		check(t, os.Symlink(folder, filepath.Join(dir, "a")))
	}
}

// Where there is neither PyAV nor ffmpeg, but a generator's environment has OpenCV, as most have, a strip of frames is
// shown: real ones, evenly spread, with the first and the last one. They are cut once.
func TestStrip(t *testing.T) {
	python := os.Getenv("CV_PYTHON")
	if python == "" {
		t.Skip("CV_PYTHON is not set: it names a Python with OpenCV and without PyAV")
	}
	const write = `
import cv2, numpy, sys
for name, code in (("ground_truth.mp4", "mp4v"), ("ground_truth.avi", "XVID")):
    out = cv2.VideoWriter(sys.argv[1] + "/" + name, cv2.VideoWriter_fourcc(*code), 16, (640, 360))
    for n in range(33):
        out.write(numpy.full((360, 640, 3), 7 * n, numpy.uint8))
    out.release()
`
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), python, "-c", write, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b := newBucket(t)
	for _, name := range []string{"ground_truth.mp4", "ground_truth.avi"} {
		video, err := os.ReadFile(filepath.Join(dir, name))
		check(t, err)
		media, err := sample.Describe(name, video)
		check(t, err)
		if media.Codec != "mpeg4" || media.Frames != 33 {
			t.Fatalf("%s is %+v", name, media)
		}
		g := maze(1)
		g.Name = strings.ReplaceAll(name, ".", "-")
		g.Media = func(_ int, file string) (m sample.Media) {
			if file == name {
				m = media
			}
			return m
		}
		g.Files = func(i int) map[string]string {
			files := plain(i)
			delete(files, "ground_truth.mp4")
			files[name] = string(video)
			return files
		}
		b.commit(t, "v1", task.Files, g)
	}
	t.Setenv("PATH", t.TempDir())
	t.Setenv("EXPORT_PYTHON", "")
	var folder string
	var strips []string
	s := b.serve(t, environment(t, filepath.Dir(filepath.Dir(python))), func(c *web.Config) { folder = c.Flags.LocalDir })
	for _, generator := range []string{"ground_truth-mp4", "ground_truth-avi"} {
		t.Run(generator, func(t *testing.T) {
			page := s.get("/sample/" + generator + "/0")
			page.want(t, 200, "frames only", "These are 16 of its 33 frames", "nothing here can re-encode it", "install ffmpeg",
				`alt="frame 1"`, `alt="frame 33"`)
			if n := strings.Count(page.text, `src="/frame/`); n != 16 {
				t.Errorf("the page has %d frames", n)
			}
			_, list := s.search(url.Values{"generator": {generator}})
			if len(list) != 1 || len(list[0].Strip) != 16 || list[0].Video != "" || list[0].Encoded {
				t.Fatalf("the grid has %+v", list)
			}
			before := b.requests.Load()
			greys := make([]int, 16)
			began := time.Now()
			var group errgroup.Group
			for i, address := range list[0].Strip {
				group.Go(func() error {
					a := s.get(address)
					picture, err := png.Decode(strings.NewReader(a.text))
					if err != nil {
						return fmt.Errorf("%s: %s: %.100s", address, a.Status, a.text)
					}
					if size := picture.Bounds().Size(); size != image.Pt(480, 270) {
						return fmt.Errorf("%s is %v", address, size)
					}
					r, _, _, _ := picture.At(100, 100).RGBA()
					greys[i] = int(r >> 8)
					return nil
				})
			}
			check(t, group.Wait())
			t.Logf("16 frames in %s: %v", time.Since(began), greys)
			for i, grey := range greys {
				number := i * 32 / 15
				if want := 7 * number; grey < want-4 || grey > want+4 {
					t.Errorf("frame %d has the grey %d, want about %d", number, grey, want)
				}
			}
			if n := b.requests.Load() - before; n > 3 { // the video, and a listing if a second has passed
				t.Errorf("a strip takes %d requests to the bucket", n)
			}
			strips = append(strips, list[0].Strip...)
			s.get("/frame/1/"+generator+"/0/"+strings.ReplaceAll(generator, "-", ".")).want(t, 404)
		})
	}
	check(t, os.RemoveAll(filepath.Join(folder, "generators"))) // nothing is cut again
	for _, address := range strips {
		s.get(address).want(t, 200)
	}
	video := filepath.Join(b.Folder, "data", "v1", "ground_truth-mp4", "maze_00000000", "ground_truth.mp4")
	text, err := os.ReadFile(video)
	check(t, err)
	check(t, os.WriteFile(video, bytes.Repeat([]byte("x"), len(text)), 0o644))
	s = b.serve(t, environment(t, filepath.Dir(filepath.Dir(python))))
	s.get("/frame/0/ground_truth-mp4/0/ground_truth.mp4").want(t, 500, "is not what its receipt says", "verify --deep")
}

// The ffmpeg that imageio-ffmpeg brings into a generator's environment re-encodes where there is no other.
func TestEncodedByImageio(t *testing.T) {
	python := os.Getenv("EXPORT_PYTHON")
	found, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(python)), "lib", "python*", "site-packages",
		"imageio_ffmpeg", "binaries", "ffmpeg-*"))
	if python == "" || len(found) == 0 {
		t.Skip("EXPORT_PYTHON does not name a Python with PyAV and imageio-ffmpeg")
	}
	dir := t.TempDir()
	to := filepath.Join(dir, "lib", "python3.11", "site-packages", "imageio_ffmpeg", "binaries", filepath.Base(found[0]))
	check(t, os.MkdirAll(filepath.Dir(to), 0o755))
	program, err := os.ReadFile(found[0])
	check(t, err)
	check(t, os.WriteFile(to, program, 0o755))
	b := newBucket(t)
	b.commit(t, "v1", task.Files, mpeg4(t, python, "ground_truth.mp4"))
	t.Setenv("PATH", t.TempDir())
	t.Setenv("EXPORT_PYTHON", "")
	s := b.serve(t, environment(t, dir))
	s.get("/sample/ground_truth-mp4/0").want(t, 200, "re-encoded for this browser")
	a := s.get("/play/ground_truth-mp4/0/ground_truth.mp4")
	a.want(t, 200)
	m, err := sample.Describe("ground_truth.mp4", []byte(a.text))
	if err != nil || m.Codec != "h264" || m.Frames != 17 {
		t.Errorf("it is shown as %+v: %v", m, err)
	}
}
