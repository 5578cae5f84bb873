package export_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestParseVideo(t *testing.T) {
	for _, c := range []struct {
		rule string
		want export.VideoOptions
	}{
		{"h264", export.VideoOptions{}},
		{"h264:832x480", export.VideoOptions{Width: 832, Height: 480}},
		{"h264@16", export.VideoOptions{FPS: 16}},
		{"h264x81", export.VideoOptions{Frames: 81}},
		{"h264:832x480@29.97x81", export.VideoOptions{Width: 832, Height: 480, FPS: 29.97, Frames: 81}},
	} {
		if got, err := export.ParseVideo(c.rule); err != nil || *got != c.want {
			t.Errorf("%s: %+v, %v", c.rule, got, err)
		}
	}
	for _, rule := range []string{"h265", "h264:832", "h264:833x480", "h264:8x8", "h264@0.5", "h264@16@16", "h264x0",
		"x81"} {
		if got, err := export.ParseVideo(rule); err == nil || !strings.Contains(err.Error(), rule) {
			t.Errorf("%s: %+v, %v", rule, got, err)
		}
	}
}

func key(g s3test.Generator, index int) string {
	return strings.ReplaceAll(g.Name, ".", "-") + task.SampleID("", index)
}

// Videos that are encoded again have the size, rate and number of frames that were asked for, decode, are the same
// bytes each time, and keep the hash of the original.
func TestVideo(t *testing.T) {
	generators := withVideos(t)
	b := newBucket(t)
	for _, g := range generators {
		b.commit(t, "v1", task.Tar, g)
	}
	originals := map[string]string{} // content by <key>/<name in the export>
	for _, g := range generators {
		for i := range 2 {
			for name, text := range g.Files(i) {
				if sample.IsVideo(name) {
					originals[key(g, i)+"/"+export.EncodedName("h264", name)] = text
				}
			}
		}
	}
	run := func(t *testing.T, rule string) string {
		dir := t.TempDir()
		o, err := export.ParseVideo(rule)
		check(t, err)
		encoder, err := export.NewEncoder(t.Context(), *o)
		check(t, err)
		defer encoder.Close()
		_, err = exported(t.Context(), t, export.Export{Store: b.store.In("v1"), Format: export.Webdataset(),
			Encode:  encoder.Encode,
			Options: export.Options{ShardSize: 1 << 20, PerGenerator: 2, Video: rule, Encoder: encoder.Version}}, dir)
		check(t, err)
		return dir
	}
	for _, c := range []struct {
		rule string
		want sample.Media
	}{
		{"h264", sample.Media{Width: 64, Height: 48, Frames: 17, FPS: 16, Seconds: 1.0625}},
		{"h264:96x96@8", sample.Media{Width: 96, Height: 96, Frames: 9, FPS: 8, Seconds: 1.125}}, // nearest to 1.0625
		{"h264:128x64@16x33", sample.Media{Width: 128, Height: 64, Frames: 33, FPS: 16, Seconds: 2.0625}},
		{"h264x9", sample.Media{Width: 64, Height: 48, Frames: 9, FPS: 8.470588, Seconds: 1.0625}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			dir := run(t, c.rule)
			files := content(t, dir)
			seen, pairs, videos := 0, []string(nil), t.TempDir()
			write := func(text string) {
				pairs = append(pairs, filepath.Join(videos, fmt.Sprint(len(pairs))))
				check(t, os.WriteFile(pairs[len(pairs)-1], []byte(text), 0o600))
			}
			for name, text := range files {
				if !strings.HasSuffix(name, ".tar") {
					continue
				}
				for _, m := range members(t, text) {
					id, field, _ := strings.Cut(m.name, ".")
					if strings.HasPrefix(field, "ground_truth") || strings.HasPrefix(field, "first_video") {
						media, err := sample.Describe(field, []byte(m.text))
						want := c.want
						want.Codec, want.PixelFormat = "h264", "yuv420p"
						if seen++; err != nil || media != want {
							t.Errorf("%s: %+v, %v, not %+v", m.name, media, err, want)
						}
						write(m.text)
						write(originals[id+"/"+field])
					}
					if field == "json" {
						var d struct {
							Files []struct {
								Name     string `json:"name"`
								Original string `json:"original_sha256"`
							} `json:"files"`
						}
						check(t, json.Unmarshal([]byte(m.text), &d))
						for _, f := range d.Files {
							want := ""
							if original := originals[id+"/"+f.Name]; original != "" {
								want = sumOf(original)
							}
							if f.Original != want {
								t.Errorf("%s: the original of %s is %q, not %q", m.name, f.Name, f.Original, want)
							}
						}
					}
				}
			}
			python(t.Context(), t, "decodes.py", pairs...)
			if seen != 8 {
				t.Errorf("%d videos", seen)
			}
			if c.rule == "h264" {
				again := content(t, run(t, c.rule))
				for name := range files {
					if files[name] != again[name] {
						t.Errorf("%s differs the second time", name)
					}
				}
			}
		})
	}
	t.Run("ffmpeg", func(t *testing.T) {
		bin := t.TempDir()
		python(t.Context(), t, "ffmpeg.py", filepath.Join(bin, "ffmpeg"))
		t.Setenv("EXPORT_PYTHON", "")
		t.Setenv("PATH", bin)
		for name, text := range content(t, run(t, "h264:128x64@16x33")) {
			if strings.HasSuffix(name, ".tar") {
				for _, m := range members(t, text) {
					if strings.HasSuffix(m.name, ".ground_truth.mp4") {
						media, err := sample.Describe(m.name, []byte(m.text))
						if err != nil || media.Frames != 33 || media.Width != 128 || media.FPS != 16 {
							t.Errorf("%s: %+v, %v", m.name, media, err)
						}
					}
				}
			}
		}
	})
}

// A video that decodes in part is an error and no shorter video.
func TestVideoDamaged(t *testing.T) {
	files := withVideos(t)[0].Files(0)
	good := files["ground_truth.mp4"]
	media, err := sample.Describe("ground_truth.mp4", []byte(good))
	check(t, err)
	data := strings.Index(good, "mdat") + 4
	third := (len(good) - data) / 3
	cut, zeros := good[:data+2*third], good[:data+third]+strings.Repeat("\x00", third)+good[data+2*third:]
	encode := func(t *testing.T) {
		for _, rule := range []string{"h264", "h264@8", "h264@60", "h264x9"} {
			o, err := export.ParseVideo(rule)
			check(t, err)
			encoder, err := export.NewEncoder(t.Context(), *o)
			check(t, err)
			row := func(video string, media sample.Media) *export.Row {
				return &export.Row{ID: "maze_00000000", Generator: "maze",
					Files: []export.File{export.NewFile("ground_truth.mp4", []byte(video), &media)}}
			}
			check(t, encoder.Encode(t.Context(), row(good, media)))
			longer := media
			longer.Frames, longer.Seconds = 30, 1.875
			for name, r := range map[string]*export.Row{"cut off": row(cut, media), "zeros": row(zeros, media),
				"shorter than its receipt says": row(good, longer)} {
				err := encoder.Encode(t.Context(), r)
				if err == nil || !strings.HasPrefix(err.Error(), "ground_truth.mp4 of maze_00000000 of maze cannot be encoded: ") {
					t.Errorf("%s, %s, %s: %v", encoder.Version, rule, name, err)
				} else {
					t.Logf("%s, %s: %v", rule, name, err)
				}
			}
			encoder.Close()
		}
	}
	t.Run("PyAV", encode)
	bin := t.TempDir()
	python(t.Context(), t, "ffmpeg.py", filepath.Join(bin, "ffmpeg"))
	t.Setenv("EXPORT_PYTHON", "")
	t.Setenv("PATH", bin)
	t.Run("ffmpeg", encode)
}

// Who has named a Python with EXPORT_PYTHON is told what is wrong with it.
func TestNoEncoder(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken")
	check(t, os.WriteFile(broken, []byte("#!/bin/sh\necho 'ImportError: libavcodec.so.60 is missing' >&2\nexit 1\n"), 0o755))
	t.Setenv("EXPORT_PYTHON", broken)
	t.Setenv("PATH", t.TempDir())
	_, err := export.NewEncoder(t.Context(), export.VideoOptions{}, "/nowhere/python")
	for _, part := range []string{broken + " has none (", "ImportError: libavcodec.so.60 is missing",
		"/nowhere/python has none (", "no such file or directory", "python3 has none (", "and there is no such ffmpeg"} {
		if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: it is without %q", err, part)
		}
	}
}
