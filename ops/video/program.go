// Package video runs programs that decode and encode videos. What they read comes from generators, so they run in a
// sandbox.
package video

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/png" // pictures of samples
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// Bounds of a program.
const (
	maxMemory   = 8 << 30 // bytes
	maxFile     = 1 << 30 // bytes
	shownOutput = 8 << 10 // bytes
)

// Program is one that decodes or encodes.
type Program struct {
	path     string
	readable []string // what it may read beside the system
}

// Find finds a program that is on PATH or has this path.
func Find(name string) (p Program, err error) {
	if p.path, err = exec.LookPath(name); err == nil {
		p.path, err = filepath.Abs(p.path)
	}
	return p, err
}

// python returns an interpreter, which may read its packages.
func python(name string) (Program, error) {
	p, err := Find(name)
	if err != nil {
		return p, err
	}
	p.readable = generator.Installed(p.path)
	if home, err := os.UserHomeDir(); err == nil {
		p.readable = append(p.readable, filepath.Join(home, ".local", "lib")) // of pip install --user
	}
	return p, nil
}

// Pythons are the interpreters of generators' environments below a local folder that have a package.
func Pythons(localDir, name string) (list []string) {
	found, _ := filepath.Glob(filepath.Join(localDir, "generators", "environments", "*", "lib", "python*", "site-packages",
		name))
	for _, dir := range found {
		list = append(list, filepath.Join(dir, "..", "..", "..", "..", "bin", "python"))
	}
	return list
}

// FindPython finds the first Python that runs a program with the argument "version", and returns what that prints.
// Names may be empty. dir is a folder for the work.
func FindPython(ctx context.Context, dir, text string, names []string) (found Program, version string, err error) {
	limited, cancel := context.WithTimeout(ctx, time.Minute) // one may hang
	defer cancel()
	var tried []string
	for _, name := range names {
		if name == "" {
			continue
		}
		p, err := python(name)
		if err == nil {
			version, err = p.Output(limited, dir, "-c", text, "version")
		}
		if err == nil {
			return p, strings.TrimSpace(version), nil
		}
		tried = append(tried, fmt.Sprintf("%s has none (%v)", name, err))
	}
	return Program{}, "", errors.New(strings.Join(tried, ", "))
}

// Start starts the program. It may read dir and what is readable, write to dir alone, and knows nothing of this
// process, whose environment may have credentials.
func (p Program) Start(ctx context.Context, dir string, args []string, connect func(*exec.Cmd) error,
	readable ...string) (*exec.Cmd, error) {
	return generator.Program{Argv: append([]string{p.path}, args...), Scratch: dir,
		Readable: append(readable, p.readable...), MaxFile: maxFile, MaxMemory: maxMemory,
		Env: []string{"PATH=" + filepath.Dir(p.path) + ":/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8",
			"PYTHONUTF8=1", "PYTHONDONTWRITEBYTECODE=1", "OPENCV_FFMPEG_THREADS=1", "TMPDIR=" + dir}}.Start(ctx, connect)
}

// Output returns the end of what the program prints. An error has the last line of its stderr.
func (p Program) Output(ctx context.Context, dir string, args ...string) (string, error) {
	stdout, stderr := NewTail(), NewTail()
	cmd, err := p.Start(ctx, dir, args, func(c *exec.Cmd) error { c.Stdout, c.Stderr = stdout, stderr; return nil })
	if err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%w: %s", err, LastLine(stderr))
	}
	return stdout.String(), nil
}

// NewTail keeps the end of what a program prints.
func NewTail() *generator.Tail { return &generator.Tail{Limit: shownOutput} }

// LastLine is the last line of what a program has printed.
func LastLine(t *generator.Tail) string {
	text := strings.TrimSpace(t.String())
	return text[strings.LastIndex(text, "\n")+1:]
}

// Format is the only one as which a file is read: a file that is another, such as a playlist, could name others.
func Format(file string) string {
	formats := map[string]string{".avi": "avi", ".webm": "matroska", ".mkv": "matroska", ".png": "png_pipe"}
	return cmp.Or(formats[path.Ext(file)], "mp4")
}

//go:embed decode.py
var decodeProgram string

// Decoder decodes videos and PNG pictures, as many at once as there are CPUs.
type Decoder struct {
	Version string        // of what decodes, if it was looked for
	Timeout time.Duration // for one file

	python Program
	dir    string
	seats  chan struct{}
}

// NewDecoder returns the decoder of a Python, which may have nothing to decode with: then Decoded.Tool is empty.
func NewDecoder(name string) (*Decoder, error) {
	p, err := python(name)
	if err != nil {
		return nil, err
	}
	return newDecoder(p)
}

// FindDecoder returns the decoder of the first of the Pythons, or else python3, that has PyAV, OpenCV or an ffmpeg.
func FindDecoder(ctx context.Context, pythons ...string) (*Decoder, error) {
	d, err := newDecoder(Program{})
	if err != nil {
		return nil, err
	}
	d.python, d.Version, err = FindPython(ctx, d.dir, decodeProgram, append(pythons, "python3"))
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func newDecoder(p Program) (*Decoder, error) {
	dir, err := os.MkdirTemp("", "decode-")
	if err != nil {
		return nil, err
	}
	return &Decoder{Timeout: 5 * time.Minute, python: p, dir: dir, seats: make(chan struct{}, runtime.NumCPU())}, nil
}

// Close removes what is left.
func (d *Decoder) Close() { _ = os.RemoveAll(d.dir) }

// Job is a file to decode, and which of its frames are wanted.
type Job struct {
	Path    string `json:"path"`             // absolute
	Format  string `json:"format"`           // default: that of Format
	Numbers []int  `json:"frames,omitempty"` // of frames, from 0 and in order; no more than these are decoded
	Spread  int    `json:"spread,omitempty"` // so many frames, with the first and the last one
	Every   bool   `json:"every,omitempty"`  // all frames
	Side    int    `json:"side,omitempty"`   // they are scaled to be at most so many pixels wide and high; 0: they are not
	Square  int    `json:"square,omitempty"` // they are scaled to so many pixels, wide and high
	To      string `json:"to"`
}

// Decoded is the outcome of a job.
type Decoded struct {
	Tool   string   `json:"tool"`   // that decoded it: av, cv2 or ffmpeg; "" if none could
	Frames int      `json:"frames"` // that were decoded
	Wrong  string   `json:"wrong"`  // "" also where there is nothing to decode with
	Shown  []*Frame `json:"-"`      // those that were wanted
}

// maxFrames are the bytes of all frames of a job.
const maxFrames = 256 << 20

// Decode does jobs, one after the other, whose files lie below a folder. What is wrong with a file is in its Decoded.
func (d *Decoder) Decode(ctx context.Context, below string, jobs []Job) ([]Decoded, error) {
	select {
	case d.seats <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-d.seats }()
	dir, err := os.MkdirTemp(d.dir, "")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var all []Decoded
	for len(all) < len(jobs) {
		some, err := d.process(ctx, dir, below, jobs[len(all):])
		if err != nil {
			return nil, fmt.Errorf("decode %d files: %w", len(jobs), err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// process does jobs until one of them kills the process; that one is among the outcomes.
func (d *Decoder) process(ctx context.Context, dir, below string, jobs []Job) (all []Decoded, err error) {
	var in bytes.Buffer
	for i, j := range jobs {
		j.Format, j.To = cmp.Or(j.Format, Format(j.Path)), filepath.Join(dir, strconv.Itoa(i))
		if err := json.NewEncoder(&in).Encode(j); err != nil {
			return nil, err
		}
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	stderr := NewTail()
	var answers *bufio.Reader
	cmd, err := d.python.Start(running, dir, []string{"-u", "-c", decodeProgram}, func(c *exec.Cmd) error {
		c.Stdin, c.Stderr = bytes.NewReader(in.Bytes()), stderr
		out, err := c.StdoutPipe()
		answers = bufio.NewReaderSize(out, 64<<10)
		return err
	}, below)
	if err != nil {
		return nil, err
	}
	end := sync.OnceValue(func() error {
		stop()
		return cmd.Wait()
	})
	defer func() { _ = end() }()
	for i := range jobs {
		late := time.AfterFunc(d.Timeout, stop)
		line, err := answers.ReadSlice('\n')
		inTime := late.Stop()
		var x Decoded
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case !inTime:
			return append(all, Decoded{Wrong: fmt.Sprintf("it was not decoded within %s", d.Timeout)}), nil
		case err != nil:
			return append(all, Decoded{Wrong: fmt.Sprintf("what decodes it has ended: %v: %s", cmp.Or(end(), err),
				LastLine(stderr))}), nil
		}
		if err := json.Unmarshal(line, &x); err != nil {
			return append(all, Decoded{Wrong: "what decodes it answers no JSON"}), nil
		}
		if x.Shown, err = readFrames(dir, strconv.Itoa(i)); err != nil {
			x = Decoded{Wrong: fmt.Sprintf("what was made of it cannot be read: %v", err)}
		}
		if x.Tool == "" {
			x.Shown = nil
		}
		all = append(all, x)
	}
	return all, nil
}

// readFrames reads and removes a file of frames, if there is one.
func readFrames(dir, name string) (frames []*Frame, err error) {
	text, err := generator.ReadLeft(dir, name, maxFrames+1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(text) > maxFrames {
		return nil, fmt.Errorf("its frames have more than %d MB", maxFrames>>20)
	}
	_ = os.Remove(filepath.Join(dir, name))
	for len(text) > 0 {
		f := &Frame{}
		if _, err := fmt.Sscanf(string(text[:min(len(text), 40)]), "P6\n%d %d\n255\n", &f.Width, &f.Height); err != nil {
			return nil, err
		}
		size := len(fmt.Sprintf("P6\n%d %d\n255\n", f.Width, f.Height))
		if f.Width < 1 || f.Height < 1 || f.Width > maxFrames/f.Height || len(text)-size < 3*f.Width*f.Height {
			return nil, fmt.Errorf("a frame of %d by %d pixels has %d bytes", f.Width, f.Height, len(text)-size)
		}
		text = text[size:]
		f.Pixels, text = text[:3*f.Width*f.Height], text[3*f.Width*f.Height:]
		frames = append(frames, f)
	}
	return frames, nil
}

// Frame is a decoded picture, three bytes a pixel.
type Frame struct {
	Width, Height int
	Pixels        []byte
}

// ColorModel is the model of the pixels.
func (f *Frame) ColorModel() color.Model { return color.RGBAModel }

// Bounds are those of the picture, from 0, 0.
func (f *Frame) Bounds() image.Rectangle { return image.Rect(0, 0, f.Width, f.Height) }

// At returns a pixel.
func (f *Frame) At(x, y int) color.Color {
	p := f.Pixels[3*(y*f.Width+x):]
	return color.RGBA{p[0], p[1], p[2], 255}
}

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
