package export

import (
	"bufio"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/video"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// Encoder encodes videos, as many at once as there are CPUs, in a sandbox: they come from generators.
type Encoder struct {
	Version string // of the program; others may give other bytes
	options VideoOptions
	start   func(seat *seat) error
	seats   chan *seat // those that are free
	dir     string
}

// seat is the place of an engine.
type seat struct {
	engine        // nil until it is needed
	dir    string // of its own
}

// engine encodes one video after the other. If the error is errEnded, another one has to take its place.
type engine interface {
	encode(ctx context.Context, from, to string, filters [][2]string, rate string) error
	end()
}

var errEnded = errors.New("the encoder has ended")

//go:embed encode.py
var encodeProgram string

// NewEncoder finds a program that encodes: PyAV in the Python that EXPORT_PYTHON names, in one of pythons or in
// python3, else ffmpeg, also that of imageio-ffmpeg beside one of pythons. It works until ctx ends.
func NewEncoder(ctx context.Context, o VideoOptions, pythons ...string) (*Encoder, error) {
	dir, err := os.MkdirTemp("", "export-video-")
	if err != nil {
		return nil, err
	}
	e := &Encoder{options: o, dir: dir, seats: make(chan *seat, runtime.NumCPU())}
	for n := range cap(e.seats) {
		s := &seat{dir: filepath.Join(dir, strconv.Itoa(n))}
		err = cmp.Or(err, os.Mkdir(s.dir, 0o700))
		e.seats <- s
	}
	if err == nil {
		err = e.find(ctx, pythons)
	}
	if err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// find sets how an engine is started, and its version.
func (e *Encoder) find(ctx context.Context, pythons []string) error {
	dir := filepath.Join(e.dir, "0")
	list := slices.Concat([]string{os.Getenv("EXPORT_PYTHON")}, pythons, []string{"python3"})
	python, version, absent := video.FindPython(ctx, dir, encodeProgram, list)
	if absent == nil {
		e.Version = version
		e.start = func(s *seat) (err error) { s.engine, err = startPython(ctx, s.dir, python); return err }
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	names := []string{"ffmpeg"}
	for _, python := range pythons { // imageio-ffmpeg, which many of them have, has one
		more, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(python)), "lib", "python*", "site-packages",
			"imageio_ffmpeg", "binaries", "ffmpeg-*"))
		names = append(names, more...)
	}
	for _, name := range names {
		p, err := video.Find(name)
		if err != nil {
			continue
		}
		about, err := p.Output(limited, dir, "-h", "encoder=libx264") // some are built without it
		if err != nil || !strings.Contains(about, "x264-params") {
			continue
		}
		if e.Version, err = p.Output(limited, dir, "-version"); err != nil {
			continue
		}
		e.Version, _, _ = strings.Cut(e.Version, " Copyright")
		e.start = func(s *seat) error { s.engine = ffmpeg{p, s.dir}; return nil }
		return nil
	}
	return fmt.Errorf("--video needs PyAV or an ffmpeg with libx264: %w, and there is no such ffmpeg", absent)
}

// longestVideo is how long encoding a video may take.
const longestVideo = time.Hour

// Close ends the programs, after what they encode now.
func (e *Encoder) Close() {
	for range cap(e.seats) {
		if s := <-e.seats; s.engine != nil {
			s.end()
		}
	}
	_ = os.RemoveAll(e.dir)
}

// Encode encodes the videos of a row again.
func (e *Encoder) Encode(ctx context.Context, r *Row) error {
	names := map[string]bool{}
	for i := range r.Files {
		f := &r.Files[i]
		name := EncodedName("h264", f.Name)
		if names[name] {
			return fmt.Errorf("%s of %s: two of its videos would be %s", r.ID, r.Generator, name)
		}
		names[name] = true
		if !sample.IsVideo(f.Name) {
			continue
		}
		encoded, err := e.file(ctx, f, name)
		if err != nil {
			return fmt.Errorf("%s of %s of %s cannot be encoded: %w", f.Name, r.ID, r.Generator, err)
		}
		f.release()
		*f = encoded
	}
	slices.SortFunc(r.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

func (e *Encoder) file(ctx context.Context, f *File, name string) (File, error) {
	var s *seat
	select {
	case s = <-e.seats:
	case <-ctx.Done():
		return File{}, ctx.Err()
	}
	defer func() { e.seats <- s }()
	if s.engine == nil {
		if err := e.start(s); err != nil {
			return File{}, err
		}
	}
	dir, err := os.MkdirTemp(s.dir, "")
	if err != nil {
		return File{}, err
	}
	defer os.RemoveAll(dir)
	from, to := filepath.Join(dir, "from"+path.Ext(f.Name)), filepath.Join(dir, "to.mp4")
	original, err := os.Create(from)
	if err != nil {
		return File{}, err
	}
	_, err = io.Copy(original, f.Open())
	if err := errors.Join(err, original.Close()); err != nil {
		return File{}, err
	}
	media := f.Media
	if media == nil { // of a receipt that is older than these facts
		text, err := f.Bytes()
		if err != nil {
			return File{}, err
		}
		m, err := sample.Describe(f.Name, text)
		if err != nil {
			return File{}, err
		}
		media = &m
	}
	filters, rate, err := e.options.filters(*media)
	if err != nil {
		return File{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, longestVideo)
	defer cancel()
	if err := s.encode(ctx, from, to, filters, rate); err != nil {
		if errors.Is(err, errEnded) || ctx.Err() != nil {
			s.end()
			s.engine = nil
		}
		return File{}, cmp.Or(ctx.Err(), err)
	}
	encoded, err := os.ReadFile(to)
	if err != nil {
		return File{}, err
	}
	m, err := sample.Describe(name, encoded)
	if err != nil {
		return File{}, fmt.Errorf("what was encoded is damaged: %w", err)
	}
	if err := e.options.check(*media, m); err != nil {
		return File{}, err
	}
	result := NewFile(name, encoded, &m)
	result.Original = cmp.Or(f.Original, f.SHA256)
	return result, nil
}

type pythonEngine struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Reader
	stderr  *generator.Tail
}

func startPython(ctx context.Context, dir string, python video.Program) (engine, error) {
	e := &pythonEngine{stderr: video.NewTail()}
	var err error
	e.cmd, err = python.Start(ctx, dir, []string{"-u", "-c", encodeProgram}, func(c *exec.Cmd) (err error) {
		c.Stderr = e.stderr
		if e.in, err = c.StdinPipe(); err != nil {
			return err
		}
		out, err := c.StdoutPipe()
		e.answers = bufio.NewReaderSize(out, 64<<10)
		return err
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

func (e *pythonEngine) encode(ctx context.Context, from, to string, filters [][2]string, rate string) error {
	job, err := json.Marshal(map[string]any{"from": from, "format": video.Format(from), "to": to, "filters": filters,
		"rate": rate, "options": quality})
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = e.cmd.Cancel() })()
	_, _ = e.in.Write(append(job, '\n')) // if it has ended, there is no answer
	line, err := e.answers.ReadSlice('\n')
	if err != nil {
		_ = e.cmd.Cancel()
		err = cmp.Or(e.cmd.Wait(), err)
		return fmt.Errorf("%w: %w: %s", errEnded, err, video.LastLine(e.stderr))
	}
	var answer struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return err
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	return nil
}

func (e *pythonEngine) end() {
	_ = e.in.Close()
	_ = e.cmd.Cancel()
	_ = e.cmd.Wait()
}

// ffmpeg encodes in a process for each video.
type ffmpeg struct {
	video.Program
	dir string
}

func (f ffmpeg) encode(ctx context.Context, from, to string, filters [][2]string, rate string) error {
	var chain []string
	for _, f := range filters {
		chain = append(chain, strings.TrimSuffix(f[0]+"="+f[1], "="))
	}
	_, err := f.Output(ctx, f.dir, "-nostdin", "-loglevel", "error", "-xerror", "-y", "-f", video.Format(from), "-i", from,
		"-map", "0:v:0", "-vf", strings.Join(chain, ","), "-r", rate, "-c:v", "libx264", "-preset", quality["preset"],
		"-crf", quality["crf"], "-threads", "1", "-filter_threads", "1", "-flags:v", "+bitexact", "-fflags", "+bitexact",
		"-map_metadata", "-1", "-movflags", "+faststart", to)
	if err != nil {
		err = fmt.Errorf("ffmpeg: %w", err)
	}
	return err
}

func (ffmpeg) end() {}

// VideoOptions say how videos are encoded again. What is zero stays as it is.
type VideoOptions struct {
	Width, Height int // pixels, even; what has another shape is fitted in, with black beside it
	FPS           float64
	Frames        int // spread evenly over the video, from its first frame to its last
}

var videoRule = regexp.MustCompile(`^h264(?::(\d+)x(\d+))?(?:@(\d+(?:\.\d+)?))?(?:x(\d+))?$`)

// ParseVideo reads h264[:WxH][@FPS][xFRAMES]; of an empty rule it returns nil.
func ParseVideo(rule string) (*VideoOptions, error) {
	if rule == "" {
		return nil, nil //nolint:nilnil // no rule, no options
	}
	m := videoRule.FindStringSubmatch(rule)
	if m == nil {
		return nil, fmt.Errorf("%q must be h264[:WxH][@FPS][xFRAMES], such as h264:832x480@16x81", rule)
	}
	o := &VideoOptions{}
	o.Width, _ = strconv.Atoi(m[1])
	o.Height, _ = strconv.Atoi(m[2])
	o.FPS, _ = strconv.ParseFloat(cmp.Or(m[3], "0"), 64)
	o.Frames, _ = strconv.Atoi(m[4])
	switch {
	case m[1] != "" && (o.Width < 16 || o.Height < 16 || o.Width > 8192 || o.Height > 8192 || o.Width%2+o.Height%2 > 0):
		return nil, fmt.Errorf("%q: width and height must be even numbers from 16 to 8192", rule)
	case m[3] != "" && (o.FPS < 1 || o.FPS > 240):
		return nil, fmt.Errorf("%q: the rate must be from 1 to 240 frames a second", rule)
	case m[4] != "" && (o.Frames < 1 || o.Frames > 100_000):
		return nil, fmt.Errorf("%q: the number of frames must be from 1 to 100000", rule)
	}
	return o, nil
}

// EncodedName is the name of a file in an export with this --video.
func EncodedName(rule, name string) string {
	if ext := path.Ext(name); rule != "" && sample.IsVideo(name) {
		return strings.TrimSuffix(name, ext) + ".mp4"
	}
	return name
}

// quality is the same for all: hardly to be told from the original.
var quality = map[string]string{"preset": "medium", "crf": "17"}

// filters returns the filters of libavfilter for a video, and the rate of what they let pass.
func (o *VideoOptions) filters(m Media) (list [][2]string, rate string, err error) {
	if m.Frames == 0 || m.FPS == 0 {
		return nil, "", errors.New("its number of frames is not known")
	}
	fps := cmp.Or(o.FPS, m.FPS)
	if o.Frames > 0 && o.FPS == 0 && m.Seconds > 0 {
		fps = float64(o.Frames) / m.Seconds
	}
	rate = rational(fps)
	switch {
	case o.Frames > 0:
		// In microseconds, because a video's own clock may tick once a frame. The rate picks for each of its frames the
		// latest that is there by then, from the first to the last; to show that one, something has to follow it.
		each := float64(o.Frames-1) / float64(max(1, m.Frames-1)) // output frames from one frame to the next
		list = append(list, [2]string{"settb", "AVTB"}, [2]string{"setpts", fmt.Sprintf("N*%.9f/(%s)/TB", each, rate)},
			[2]string{"tpad", fmt.Sprintf("stop_mode=clone:stop=%d", int(m.FPS/fps)+2)},
			[2]string{"fps", "fps=" + rate + ":round=up"}, [2]string{"trim", fmt.Sprintf("end_frame=%d", o.Frames)},
			[2]string{"setpts", "PTS-STARTPTS"})
	case o.FPS > 0:
		list = append(list, [2]string{"fps", "fps=" + rate})
	}
	if o.Width > 0 {
		size := fmt.Sprintf("w=%d:h=%d", o.Width, o.Height)
		list = append(list, [2]string{"scale", size + ":force_original_aspect_ratio=decrease"},
			[2]string{"pad", size + ":x=(ow-iw)/2:y=(oh-ih)/2"}, [2]string{"setsar", "1"})
	} else {
		list = append(list, [2]string{"pad", "w=ceil(iw/2)*2:h=ceil(ih/2)*2"})
	}
	return append(list, [2]string{"format", "yuv420p"}), rate, nil
}

// check compares the number of frames with the one that was asked for, or with the original's. At another rate it may
// differ by what the original's last frame lasts, and one.
func (o *VideoOptions) check(original, encoded Media) error {
	want, off := cmp.Or(o.Frames, original.Frames), 0
	if o.Frames == 0 && o.FPS > 0 {
		ratio := o.FPS / original.FPS
		want, off = int(math.Round(float64(original.Frames)*ratio)), 1+int(math.Ceil(ratio))
	}
	if n := encoded.Frames; n < want-off || n > want+off {
		return fmt.Errorf("it came out with %d frames and not %d: it may be damaged", n, want)
	}
	return nil
}

// rational is a frame rate as a fraction: 29.97 and the like are what they stand for.
func rational(fps float64) string {
	if near := math.Round(fps * 1.001); math.Abs(fps*1.001-near) < 1e-4 && math.Abs(fps-math.Round(fps)) > 1e-6 {
		return fmt.Sprintf("%d/1001", int(near)*1000)
	}
	return new(big.Rat).SetFrac64(int64(math.Round(fps*1e6)), 1e6).RatString()
}
