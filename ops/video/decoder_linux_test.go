package video_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/video"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fake makes a Python that is a shell script: it has the directory of a job's frames in $to, and answers with answer.
func fake(t *testing.T, script string) *video.Decoder {
	t.Helper()
	python := filepath.Join(t.TempDir(), "bin", "python")
	check(t, os.Mkdir(filepath.Dir(python), 0o755))
	check(t, os.WriteFile(python, []byte("#!/bin/sh\nwhile read -r job; do to=${job##*\\\"to\\\":\\\"}; to=${to%%\\\"*}\n"+
		script+"\ndone\n"),
		0o755))
	d, err := video.NewDecoder(python)
	check(t, err)
	t.Cleanup(d.Close)
	return d
}

// What decodes videos of generators knows nothing of this process, reaches no file of its user, names no file of another
// folder as its picture, and runs at most once for each CPU.
func TestDecoderConfined(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "from-the-environment")
	elsewhere := t.TempDir()
	secret := filepath.Join(elsewhere, "credentials")
	check(t, os.WriteFile(secret, []byte("from-a-file"), 0o600))
	d := fake(t, `begin=$(date +%s%N)
sleep 0.2
leaks=$(env | grep -c from-the-environment)$(cat `+secret+` 2>/dev/null)
echo x > `+elsewhere+`/written
echo "{\"tool\": \"$begin $(date +%s%N) $leaks\"}"`)
	type span struct{ begin, end int64 }
	all := make([]span, 3*runtime.NumCPU())
	var group errgroup.Group
	for i := range all {
		group.Go(func() error {
			decoded, err := d.Decode(t.Context(), t.TempDir(), []video.Job{{Path: "/ground_truth.mp4"}})
			if err != nil {
				return err
			}
			leaks := ""
			_, err = fmt.Sscan(decoded[0].Tool, &all[i].begin, &all[i].end, &leaks)
			if leaks != "0" {
				return fmt.Errorf("it knows %+v, %w", decoded, err)
			}
			return err
		})
	}
	check(t, group.Wait())
	for _, a := range all {
		n := len(slices.DeleteFunc(slices.Clone(all), func(b span) bool { return a.begin < b.begin || b.end <= a.begin }))
		if n > runtime.NumCPU() {
			t.Errorf("%d run at once on %d CPUs", n, runtime.NumCPU())
		}
	}
	if _, err := os.Stat(filepath.Join(elsewhere, "written")); err == nil {
		t.Error("it has written to another folder")
	}
	d = fake(t, `ln -s `+secret+` $to; echo '{"tool": "av"}'`)
	decoded, err := d.Decode(t.Context(), t.TempDir(), []video.Job{{Path: "/ground_truth.mp4"}})
	if err != nil || !strings.Contains(decoded[0].Wrong, "path escapes from parent") {
		t.Errorf("a link as a picture: %+v, %v", decoded, err)
	}
}

// A file that kills what decodes it, or makes it run for ever, costs the others nothing.
func TestDecoderDies(t *testing.T) {
	d := fake(t, `case $job in
*bad*) echo "no such codec" >&2; exit 3;;
*slow*) sleep 60;;
*) echo '{"tool": "av", "frames": 5}';;
esac`)
	d.Timeout = time.Second
	var jobs []video.Job
	for _, name := range []string{"a", "bad", "b", "slow", "bad2", "c"} {
		jobs = append(jobs, video.Job{Path: "/" + name + ".mp4"})
	}
	decoded, err := d.Decode(t.Context(), t.TempDir(), jobs)
	check(t, err)
	var got []string
	for _, x := range decoded {
		got = append(got, fmt.Sprintf("%s %d %s", x.Tool, x.Frames, x.Wrong))
	}
	died := " 0 what decodes it has ended: exit status 3: no such codec"
	want := []string{"av 5 ", died, "av 5 ", " 0 it was not decoded within 1s", died, "av 5 "}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Every tool decodes the same frames, whatever of them is wanted.
func TestDecoderTools(t *testing.T) {
	pythons := map[string]string{"av": os.Getenv("EXPORT_PYTHON"), "cv2": os.Getenv("CV_PYTHON"),
		"ffmpeg": os.Getenv("FFMPEG_PYTHON")}
	if pythons["av"] == "" {
		t.Skip("EXPORT_PYTHON is not set: it names a Python with PyAV")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "ground_truth.mp4")
	const frames, width, height = 9, 64, 48
	write := fmt.Sprintf(`
import av, sys
with av.open(sys.argv[1], "w") as out:
    s = out.add_stream("mpeg4", rate=16)
    s.width, s.height, s.pix_fmt = %d, %d, "yuv420p"
    for n in range(%d):
        f = av.VideoFrame(s.width, s.height, "rgb24")
        f.planes[0].update(bytes([20 * n, 100, 200]) * (s.width * s.height))
        out.mux(s.encode(f))
    out.mux(s.encode())
`, width, height, frames)
	if out, err := exec.CommandContext(t.Context(), pythons["av"], "-c", write, file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for tool, python := range pythons {
		if python == "" {
			if os.Getenv("CI") != "" {
				t.Errorf("the variable that names a Python with %s is not set", tool)
			}
			continue
		}
		d, err := video.FindDecoder(t.Context(), python)
		check(t, err)
		defer d.Close()
		damaged := filepath.Join(dir, "damaged.mp4")
		text, err := os.ReadFile(file)
		check(t, err)
		check(t, os.WriteFile(damaged, text[:len(text)/2], 0o644))
		decoded, err := d.Decode(t.Context(), dir, []video.Job{
			{Path: file}, {Path: file, Numbers: []int{0, 4, 8}, Side: 32}, {Path: file, Spread: 3},
			{Path: file, Every: true, Square: 8},
			{Path: damaged, Every: true}, {Path: file, Numbers: []int{0, 9}}})
		check(t, err)
		var got []string
		for _, x := range decoded {
			text := fmt.Sprintf("%s %d %t", x.Tool, x.Frames, x.Wrong != "")
			for _, f := range x.Shown {
				r := f.Pixels[3*(f.Width*f.Height/2)]
				text += fmt.Sprintf(" %dx%d:%d", f.Width, f.Height, (int(r)+10)/20)
			}
			got = append(got, text)
		}
		want := []string{tool + " 9 false", tool + " 9 false 32x24:0 32x24:4 32x24:8",
			tool + " 9 false 64x48:0 64x48:4 64x48:8",
			tool + " 9 false 8x8:0 8x8:1 8x8:2 8x8:3 8x8:4 8x8:5 8x8:6 8x8:7 8x8:8", " 0 true", " 0 true"}
		if !slices.Equal(got, want) {
			a, _ := json.Marshal(got)
			t.Errorf("%s: got %s, want %q", d.Version, a, want)
		}
	}
}
