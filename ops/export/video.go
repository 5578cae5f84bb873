package export

import (
	"bufio"
	"cmp"
	"context"
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

	_ "embed"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

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

// Encoder encodes videos, several side by side.
type Encoder struct {
	Version string // of the program; others may give other bytes
	options VideoOptions
	engines chan engine // those that are free
	all     []engine
	dir     string
}

// engine encodes one video after the other.
type engine interface {
	encode(ctx context.Context, from, to string, filters [][2]string, rate string) error
	end()
}

//go:embed encode.py
var encodeProgram string

// NewEncoder finds a program that encodes: PyAV in the Python that EXPORT_PYTHON names, or in python3, else ffmpeg.
func NewEncoder(ctx context.Context, o VideoOptions) (*Encoder, error) {
	dir, err := os.MkdirTemp("", "export-video-")
	if err != nil {
		return nil, err
	}
	e := &Encoder{options: o, dir: dir, engines: make(chan engine, runtime.NumCPU())}
	start, err := e.find(ctx)
	for range runtime.NumCPU() {
		if err != nil {
			break
		}
		var one engine
		if one, err = start(); err == nil {
			e.all = append(e.all, one)
			e.engines <- one
		}
	}
	if err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// find returns how an engine is started.
func (e *Encoder) find(ctx context.Context) (func() (engine, error), error) {
	program := filepath.Join(e.dir, "encode.py")
	if err := os.WriteFile(program, []byte(encodeProgram), 0o600); err != nil {
		return nil, err
	}
	var tried []string
	for _, python := range []string{os.Getenv("EXPORT_PYTHON"), "python3"} {
		if python == "" {
			continue
		}
		version, err := exec.CommandContext(ctx, python, program, "version").Output()
		if err == nil {
			e.Version = strings.TrimSpace(string(version))
			return func() (engine, error) { return startPython(ctx, python, program) }, nil
		}
		tried = append(tried, python+" has no PyAV")
	}
	version, err := exec.CommandContext(ctx, "ffmpeg", "-version").Output()
	if err != nil {
		return nil, fmt.Errorf("--video needs PyAV or ffmpeg: %s, and there is no ffmpeg", strings.Join(tried, ", "))
	}
	e.Version, _, _ = strings.Cut(string(version), " Copyright")
	return func() (engine, error) { return ffmpeg{}, nil }, nil
}

// Close ends the programs.
func (e *Encoder) Close() {
	for _, one := range e.all {
		one.end()
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
	var one engine
	select {
	case one = <-e.engines:
	case <-ctx.Done():
		return File{}, ctx.Err()
	}
	defer func() { e.engines <- one }()
	dir, err := os.MkdirTemp(e.dir, "")
	if err != nil {
		return File{}, err
	}
	defer os.RemoveAll(dir)
	from, to := filepath.Join(dir, "from"+path.Ext(f.Name)), filepath.Join(dir, "to.mp4")
	text, err := f.Bytes()
	if err != nil {
		return File{}, err
	}
	if err := os.WriteFile(from, text, 0o600); err != nil {
		return File{}, err
	}
	media := f.Media
	if media == nil { // of a receipt that is older than these facts
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
	if err := one.encode(ctx, from, to, filters, rate); err != nil {
		return File{}, err
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

// pythonEngine is a Python process that encodes.
type pythonEngine struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Reader
	stderr  *strings.Builder
}

func startPython(ctx context.Context, python, program string) (engine, error) {
	e := &pythonEngine{cmd: exec.CommandContext(ctx, python, "-u", program), stderr: &strings.Builder{}}
	e.cmd.WaitDelay = 5 * time.Second
	e.cmd.Stderr = e.stderr
	var err error
	if e.in, err = e.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	e.answers = bufio.NewReader(out)
	return e, e.cmd.Start()
}

func (e *pythonEngine) encode(_ context.Context, from, to string, filters [][2]string, rate string) error {
	job, err := json.Marshal(map[string]any{"from": from, "to": to, "filters": filters, "rate": rate, "options": quality})
	if err != nil {
		return err
	}
	_, _ = e.in.Write(append(job, '\n')) // if it has ended, there is no answer
	line, err := e.answers.ReadBytes('\n')
	if err != nil {
		err = cmp.Or(e.cmd.Wait(), err)
		return fmt.Errorf("the Python process has ended: %w: %s", err, lastLine(e.stderr.String()))
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

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndex(text, "\n")+1:]
}

func (e *pythonEngine) end() {
	_ = e.in.Close()
	_ = e.cmd.Wait()
}

// ffmpeg encodes in a process for each video.
type ffmpeg struct{}

func (ffmpeg) encode(ctx context.Context, from, to string, filters [][2]string, rate string) error {
	var chain []string
	for _, f := range filters {
		chain = append(chain, strings.TrimSuffix(f[0]+"="+f[1], "="))
	}
	args := []string{"-nostdin", "-loglevel", "error", "-xerror", "-y", "-i", from, "-map", "0:v:0", "-vf",
		strings.Join(chain, ","), "-r", rate, "-c:v", "libx264", "-preset", quality["preset"], "-crf", quality["crf"],
		"-threads", "1", "-filter_threads", "1", "-flags:v", "+bitexact", "-fflags", "+bitexact", "-map_metadata", "-1",
		"-movflags", "+faststart", to}
	said, err := exec.CommandContext(ctx, "ffmpeg", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ffmpeg: %w: %s", err, lastLine(string(said)))
	}
	return nil
}

func (ffmpeg) end() {}
