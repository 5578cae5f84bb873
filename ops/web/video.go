package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/video"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// Names in the cache of what was made from a video: its SHA-256 and these.
const (
	encodedSuffix = ".h264.mp4"
	frameSuffix   = ".frame.png" // after the number of the frame
)

const (
	again       = time.Minute // after which a tool that is not there is looked for again
	stripFrames = 16          // at most, of a video that nothing here can re-encode
	stripSide   = 480         // pixels: they are at most so wide and high
)

// tool is a program for videos. It is looked for when a video first needs it.
type tool[T interface{ Close() }] struct {
	find func() (T, error)

	mu     sync.Mutex
	found  T
	failed error
	tried  time.Time // the last time; zero before
}

func (t *tool[T]) get() (T, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wanted() {
		t.found, t.failed = t.find()
		t.tried = time.Now()
	}
	return t.found, t.failed
}

// await is why there is no such tool. If ctx ends before that is known, it is what absent knows.
func (t *tool[T]) await(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { _, err := t.get(); done <- err }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return t.absent()
	}
}

func (t *tool[T]) wanted() bool {
	return t.tried.IsZero() || t.failed != nil && time.Since(t.tried) > again
}

// absent is why there is no such tool, or nil if there is one or nobody knows yet: to ask each Python takes seconds.
func (t *tool[T]) absent() error {
	if !t.mu.TryLock() {
		return nil
	}
	defer t.mu.Unlock()
	if t.wanted() {
		go func() { _, _ = t.get() }()
	}
	return t.failed
}

func (t *tool[T]) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.tried.IsZero() && t.failed == nil {
		t.found.Close()
	}
}

// findTools sets how the tools are found: in the generators' environments on this machine, then in the system.
func (s *Server) findTools(localDir string) {
	s.encoder.find = func() (*export.Encoder, error) {
		e, err := export.NewEncoder(s.background, export.VideoOptions{},
			append(video.Pythons(localDir, "av"), video.Pythons(localDir, "imageio_ffmpeg")...)...)
		if err != nil {
			return nil, ui.WithHint(errors.New("browsers do not play this video, and nothing here can re-encode it"),
				"install ffmpeg, or PyAV with: python3 -m pip install av")
		}
		return e, nil
	}
	s.decoder.find = func() (*video.Decoder, error) {
		return video.FindDecoder(s.background, video.Pythons(localDir, "cv2")...)
	}
}

// playable is how a video is shown.
type playable struct {
	Video   string   `json:"video,omitempty"`   // address of a video that browsers play
	Encoded bool     `json:"encoded,omitempty"` // it is not the original
	Strip   []string `json:"strip,omitempty"`   // addresses of frames, where there is no such video
}

// playable returns how a video is shown, by what is known of the tools.
func (s *Server) playable(c committed, f *sample.File) (p playable) {
	switch {
	case inspect.Plays(f.Name, f.Media):
		p.Video = c.media(f)
	case s.encoder.absent() == nil:
		p.Video, p.Encoded = c.address("/play/", f), true
	case s.decoder.absent() == nil:
		for _, n := range stripOf(f.Media.Frames) {
			p.Strip = append(p.Strip, c.address(fmt.Sprintf("/frame/%d/", n), f))
		}
	}
	return p
}

// stripOf are the numbers of the frames of a strip: evenly spread, with the first and the last one.
func stripOf(frames int) (numbers []int) {
	n := min(frames, stripFrames)
	for i := range n {
		numbers = append(numbers, i*(frames-1)/max(1, n-1))
	}
	return numbers
}

// encodedFile answers with a video that was re-encoded for browsers.
func (s *Server) encodedFile(w http.ResponseWriter, r *http.Request, d *browsed) error {
	c, f, err := d.requestedVideo(r)
	if err != nil {
		return err
	}
	return s.made(w, r, d, "video/mp4", f.SHA256+encodedSuffix, func(ctx context.Context) error {
		encoder, err := s.encoder.get()
		if err != nil {
			return err
		}
		text, err := s.contents(ctx, c, f)
		if err != nil {
			return err
		}
		media := &f.Media
		if media.Frames == 0 {
			media = nil
		}
		row := &export.Row{ID: c.sample.ID, Generator: c.Generator, Files: []export.File{export.NewFile(f.Name, text, media)}}
		if err := encoder.Encode(ctx, row); err != nil {
			return err
		}
		return s.cache.put(f.SHA256+encodedSuffix, row.Files[0].Open())
	})
}

// stripFrame answers with a frame of a strip. All of the strip are cut at once.
func (s *Server) stripFrame(w http.ResponseWriter, r *http.Request, d *browsed) error {
	number, err := strconv.Atoi(r.PathValue("number"))
	if err != nil {
		return notFound("%.40q is no number of a frame", r.PathValue("number"))
	}
	c, f, err := d.requestedVideo(r)
	if err != nil {
		return err
	}
	numbers := stripOf(f.Media.Frames)
	if !slices.Contains(numbers, number) {
		return notFound("frame %d is not among those that are shown of %s", number, f.Name)
	}
	name := func(n int) string { return fmt.Sprintf("%s.%d%s", f.SHA256, n, frameSuffix) }
	return s.made(w, r, d, "image/png", name(number), func(ctx context.Context) error {
		text, err := s.contents(ctx, c, f)
		if err != nil {
			return err
		}
		frames, err := s.cut(ctx, f.Name, text, numbers)
		for i, frame := range frames {
			var picture bytes.Buffer
			if err = png.Encode(&picture, frame); err == nil {
				err = s.cache.put(name(numbers[i]), &picture)
			}
			if err != nil {
				break
			}
		}
		return err
	})
}

func (s *Server) cut(ctx context.Context, name string, text []byte, numbers []int) ([]*video.Frame, error) {
	decoder, err := s.decoder.get()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "frames-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "video"+filepath.Ext(name))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	decoded, err := decoder.Decode(ctx, dir, []video.Job{{Path: file, Numbers: numbers, Side: stripSide}})
	if err != nil {
		return nil, err
	}
	if v := decoded[0]; len(v.Shown) != len(numbers) {
		return nil, fmt.Errorf("no frames of %s: %s", name, v.Wrong)
	}
	return decoded[0].Shown, nil
}

// made answers with a file of the cache that do makes and puts there, unless it is there. Of what several ask for at
// once with one video, whose hash begins the name, and one kind, do is called once.
func (s *Server) made(w http.ResponseWriter, r *http.Request, d *browsed, kind, name string,
	do func(context.Context) error) error {
	file, err := s.cache.open(name)
	if errors.Is(err, os.ErrNotExist) {
		hash, _, _ := strings.Cut(name, ".")
		_, err = share(r.Context(), d, kind+" of "+hash, func(ctx context.Context) (any, error) { return nil, do(ctx) })
		if err == nil {
			file, err = s.cache.open(name)
		}
	}
	if err != nil {
		return err
	}
	defer file.Close()
	serveMedia(w, r, file, kind, name)
	return nil
}

// contents reads a file of at most readLimit bytes.
func (s *Server) contents(ctx context.Context, c committed, f *sample.File) ([]byte, error) {
	file, err := s.fetch(ctx, c, f)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, readLimit+1))
	if err == nil && len(text) > readLimit {
		err = fmt.Errorf("it has more than %s: download it", ui.Size(readLimit))
	}
	return text, err
}
