package sample

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// picture is a whole PNG.
func picture(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 4, 4))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// video is a whole MP4 whose frames, which nobody decodes, are of the given sizes.
func video(t testing.TB, frames ...uint32) []byte {
	t.Helper()
	start := mp4.CreateEmptyInit()
	start.AddEmptyTrack(25, "video", "und")
	table := start.Moov.Trak.Mdia.Minf.Stbl
	table.Stsz.SampleSize, table.Stsz.SampleNumber = frames, uint32(len(frames))
	table.Stts.SampleCount, table.Stts.SampleTimeDelta = []uint32{uint32(len(frames))}, []uint32{1}
	if err := table.Stsc.AddEntry(1, uint32(len(frames)), 1); err != nil {
		t.Fatal(err)
	}
	data := &mp4.MdatBox{}
	for _, size := range frames {
		data.Data = append(data.Data, make([]byte, size)...)
	}
	table.Stco.ChunkOffset = []uint32{0}
	table.Stco.ChunkOffset[0] = uint32(start.Ftyp.Size() + start.Moov.Size() + data.HeaderSize())
	var b bytes.Buffer
	for _, box := range []mp4.Box{start.Ftyp, start.Moov, data} {
		if err := box.Encode(&b); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// avi is a whole AVI with one list of frames.
func avi(frames int) []byte {
	movi := append([]byte("LIST\x00\x00\x00\x00movi"), make([]byte, frames)...)
	movi[4] = byte(4 + frames)
	return append([]byte{'R', 'I', 'F', 'F', byte(4 + len(movi)), 0, 0, 0, 'A', 'V', 'I', ' '}, movi...)
}

// whole are the files of a good sample.
func whole(t testing.TB, n int) map[string][]byte {
	return map[string][]byte{
		"first_frame.png":  picture(t),
		"final_frame.png":  picture(t),
		"prompt.txt":       fmt.Appendf(nil, "sample %d", n),
		"ground_truth.mp4": video(t, 10, 20, 30),
	}
}

// write lays files below a folder.
func write(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

// output is a generator's output with n good samples, in the published layout.
func output(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		write(t, filepath.Join(dir, "maze_task", fmt.Sprintf("maze_%d", i)), whole(t, i))
	}
	return dir
}

func places(first, n int) []Place {
	list := make([]Place, n)
	for i := range list {
		list[i] = Place{Offset: i, Index: first + i}
	}
	return list
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Twelve samples, of which the third to the last are kept: they come in natural
// order, under their global indices, from where they are.
func TestCollect(t *testing.T) {
	dir := output(t, 12)
	write(t, dir, map[string][]byte{"dataset.json": []byte("beside the samples"), "maze_task/index.json": []byte("{}")})
	domain, samples, err := Collect(dir, 12, places(100, 12)[2:], Rules{})
	if err != nil {
		t.Fatal(err)
	}
	if domain != "maze" || len(samples) != 10 {
		t.Fatalf("%d samples of %q", len(samples), domain)
	}
	for n, s := range samples {
		if s.Index != 102+n || s.ID != fmt.Sprintf("maze_%08d", 102+n) {
			t.Errorf("sample %d is %s, index %d", n, s.ID, s.Index)
		}
		names := make([]string, 0, len(s.Files))
		for _, f := range s.Files {
			names = append(names, f.Name)
			if f.Path != filepath.Join(dir, "maze_task", fmt.Sprintf("maze_%d", n+2), f.Name) ||
				f.Size != int64(len(read(t, f.Path))) {
				t.Errorf("%s: %+v", s.ID, f)
			}
		}
		if !slices.Equal(names, slices.Sorted(maps.Keys(whole(t, n)))) {
			t.Errorf("%s holds %v", s.ID, names)
		}
		if got := read(t, s.Files[slices.Index(names, "prompt.txt")].Path); got != fmt.Sprintf("sample %d", n+2) {
			t.Errorf("%s is %q", s.ID, got)
		}
	}
}

// Samples are in the order of their places, also where their names are those that
// others of them will have.
func TestCollectOrder(t *testing.T) {
	list := []Place{{0, 3}, {1, 2}, {2, 1}, {3, 0}}
	dir := t.TempDir()
	for i := range list {
		write(t, filepath.Join(dir, "maze_task", task.SampleID("maze", i)), whole(t, i))
	}
	_, samples, err := Collect(dir, len(list), list, Rules{})
	if err != nil || len(samples) != len(list) {
		t.Fatalf("%d samples, %v", len(samples), err)
	}
	for n, p := range list {
		s := samples[n]
		at := slices.IndexFunc(s.Files, func(f File) bool { return f.Name == "prompt.txt" })
		if got := read(t, s.Files[at].Path); s.Index != p.Index || s.ID != task.SampleID("maze", p.Index) ||
			got != fmt.Sprintf("sample %d", p.Offset) {
			t.Errorf("place %d: %s, index %d, holds %q", n, s.ID, s.Index, got)
		}
	}
}

// What is wrong with an output is refused with its cause, and the refusal names
// the sample.
func TestCollectRefuses(t *testing.T) {
	const good = "maze_task/maze_1/"
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		rules Rules
		cause task.Cause
		word  string
	}{
		{"nothing", func(t *testing.T, dir string) { remove(t, dir, "maze_task") }, Rules{}, task.IncompleteOutput,
			"no sample"},
		{"one too few", func(t *testing.T, dir string) { remove(t, dir, good) }, Rules{}, task.IncompleteOutput,
			"2 written of 3"},
		{"one too many", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "maze_task/maze_9"), whole(t, 9)) },
			Rules{}, task.IncompleteOutput, "4 written of 3"},
		{"two domains", func(t *testing.T, dir string) {
			remove(t, dir, good)
			write(t, filepath.Join(dir, "chess_task/chess_1"), whole(t, 1))
		}, Rules{}, task.IncompleteOutput, "two domains"},
		{"a sample in a sample", func(t *testing.T, dir string) {
			remove(t, dir, "maze_task/maze_2")
			write(t, filepath.Join(dir, good, "inner"), whole(t, 1))
		}, Rules{}, task.IncompleteOutput, "inside"},
		{"no prompt", func(t *testing.T, dir string) { remove(t, dir, good+"prompt.txt") }, Rules{FilesVary: true},
			task.IncompleteOutput, "prompt.txt"},
		{"no first frame", func(t *testing.T, dir string) { remove(t, dir, good+"first_frame.png") }, Rules{FilesVary: true},
			task.IncompleteOutput, "first_frame.png"},
		{"no video", func(t *testing.T, dir string) { remove(t, dir, good+"ground_truth.mp4") }, Rules{FilesVary: true},
			task.IncompleteOutput, "ground_truth"},
		{"no rubric, though required", func(*testing.T, string) {}, Rules{Required: []string{"rubric.txt"}},
			task.IncompleteOutput, "rubric.txt"},
		{"files vary", func(t *testing.T, dir string) { remove(t, dir, good+"final_frame.png") }, Rules{},
			task.IncompleteOutput, "final_frame.png"},
		{"empty prompt", func(t *testing.T, dir string) { write(t, dir, map[string][]byte{good + "prompt.txt": nil}) },
			Rules{}, task.CorruptOutput, "empty"},
		{"blank prompt", func(t *testing.T, dir string) {
			write(t, dir, map[string][]byte{good + "prompt.txt": []byte(" \n\t")})
		}, Rules{}, task.CorruptOutput, "blanks"},
		{"cut picture", func(t *testing.T, dir string) { cut(t, dir, good+"final_frame.png", 5) }, Rules{},
			task.CorruptOutput, "truncated PNG"},
		{"cut video", func(t *testing.T, dir string) { cut(t, dir, good+"ground_truth.mp4", 1) }, Rules{}, task.CorruptOutput,
			"truncated MP4"},
		{"text as a video", func(t *testing.T, dir string) {
			write(t, dir, map[string][]byte{good + "ground_truth.mp4": []byte("no video at all")})
		}, Rules{}, task.CorruptOutput, "MP4"},
		{"symbolic link to a file", func(t *testing.T, dir string) {
			link(t, os.Symlink("/etc/passwd", filepath.Join(dir, good, "extra.png")))
		}, Rules{}, task.UnsafeOutput, "extra.png is a symbolic link"},
		{"symbolic link in place of a file", func(t *testing.T, dir string) {
			remove(t, dir, good+"prompt.txt")
			link(t, os.Symlink("/etc/hostname", filepath.Join(dir, good, "prompt.txt")))
		}, Rules{}, task.UnsafeOutput, "prompt.txt is a symbolic link"},
		{"symbolic link to a folder", func(t *testing.T, dir string) {
			link(t, os.Symlink("/etc", filepath.Join(dir, "maze_task", "maze_7")))
		}, Rules{}, task.UnsafeOutput, "maze_7 is a symbolic link"},
		{"dangling link outside a sample", func(t *testing.T, dir string) {
			link(t, os.Symlink("nowhere", filepath.Join(dir, "log")))
		}, Rules{}, task.UnsafeOutput, "log is a symbolic link"},
		{"hard link", func(t *testing.T, dir string) {
			link(t, os.Link(filepath.Join(dir, good, "prompt.txt"), filepath.Join(dir, good, "prompt2.txt")))
		}, Rules{}, task.UnsafeOutput, "hard link"},
		{"named pipe", func(t *testing.T, dir string) {
			link(t, syscall.Mkfifo(filepath.Join(dir, good, "pipe.png"), 0o644))
		}, Rules{}, task.UnsafeOutput, "no plain file"},
		{"name that is no UTF-8", func(t *testing.T, dir string) {
			write(t, dir, map[string][]byte{good + "a\xff.txt": []byte("x")})
		}, Rules{}, task.UnsafeOutput, "UTF-8"},
		{"name with a line break", func(t *testing.T, dir string) {
			write(t, dir, map[string][]byte{good + "a\nb.txt": []byte("x")})
		}, Rules{}, task.UnsafeOutput, "character"},
		{"name with a backslash", func(t *testing.T, dir string) {
			write(t, dir, map[string][]byte{good + `..\b.txt`: []byte("x")})
		}, Rules{}, task.UnsafeOutput, "character"},
		{"too many files", func(t *testing.T, dir string) {
			for i := range MaxFiles {
				write(t, dir, map[string][]byte{fmt.Sprintf("%s%d.bin", good, i): []byte("x")})
			}
		}, Rules{}, task.UnsafeOutput, fmt.Sprintf("more than %d files", MaxFiles)},
		{"too many files in folders", func(t *testing.T, dir string) {
			for i := range MaxFiles {
				write(t, dir, map[string][]byte{fmt.Sprintf("%sframes/%d/%d.bin", good, i%3, i): []byte("x")})
			}
		}, Rules{}, task.UnsafeOutput, "maze_1 holds more than"},
		{"a folder that others have not", func(t *testing.T, dir string) {
			write(t, dir, map[string][]byte{good + "frames/0.png": picture(t)})
		}, Rules{}, task.IncompleteOutput, "frames/"},
		{"cut picture in a folder", func(t *testing.T, dir string) {
			write(t, dir, map[string][]byte{good + "frames/0.png": picture(t)[:20]})
		}, Rules{FilesVary: true}, task.CorruptOutput, "maze_1/frames/0.png: is a truncated PNG"},
		{"folder with a backslash", func(t *testing.T, dir string) {
			write(t, dir, map[string][]byte{good + `a\..\b/c.txt`: []byte("x")})
		}, Rules{}, task.UnsafeOutput, "character"},
		{"folder with a line break", func(t *testing.T, dir string) {
			write(t, dir, map[string][]byte{good + "a\n/c.txt": []byte("x")})
		}, Rules{}, task.UnsafeOutput, "character"},
		{"folder that is no UTF-8", func(t *testing.T, dir string) {
			write(t, dir, map[string][]byte{good + "a\xff/c.txt": []byte("x")})
		}, Rules{}, task.UnsafeOutput, "UTF-8"},
		{"too deep", func(t *testing.T, dir string) {
			write(t, dir, map[string][]byte{good + strings.Repeat("a/", maxFolders+1) + "c.txt": []byte("x")})
		}, Rules{}, task.UnsafeOutput, "more than 8 folders"},
		{"too long", func(t *testing.T, dir string) {
			write(t, dir, map[string][]byte{good + strings.Repeat(strings.Repeat("a", 200)+"/", 3) + "c.txt": []byte("x")})
		}, Rules{}, task.UnsafeOutput, "longer than 512 bytes"},
		{"symbolic link to a folder in a sample", func(t *testing.T, dir string) {
			link(t, os.Symlink("/etc", filepath.Join(dir, good, "frames")))
		}, Rules{}, task.UnsafeOutput, "frames is a symbolic link"},
		{"symbolic link in a folder", func(t *testing.T, dir string) {
			write(t, dir, map[string][]byte{good + "frames/0.png": picture(t)})
			link(t, os.Symlink("/etc/passwd", filepath.Join(dir, good, "frames", "1.png")))
		}, Rules{}, task.UnsafeOutput, "1.png is a symbolic link"},
		{"too many bytes", func(t *testing.T, dir string) {
			write(t, dir, map[string][]byte{good + "big.bin": []byte("x")})
			link(t, os.Truncate(filepath.Join(dir, good, "big.bin"), MaxBytes)) // sparse
		}, Rules{}, task.UnsafeOutput, "bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := output(t, 3)
			test.spoil(t, dir)
			_, samples, err := Collect(dir, 3, places(0, 3), test.rules)
			var refused *Error
			if !errors.As(err, &refused) || refused.Cause != test.cause || !strings.Contains(refused.Detail, test.word) {
				t.Errorf("%d samples, %v; want %s because of %q", len(samples), err, test.cause, test.word)
			}
		})
	}
}

func link(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, dir, name string, bytes int64) {
	t.Helper()
	path := filepath.Join(dir, name)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-bytes); err != nil {
		t.Fatal(err)
	}
}

// What the rules allow is taken: no video, files that vary, folders at any depth.
func TestCollectAllows(t *testing.T) {
	dir := output(t, 2)
	remove(t, dir, "maze_task/maze_0/ground_truth.mp4")
	remove(t, dir, "maze_task/maze_1/final_frame.png")
	if _, _, err := Collect(dir, 2, places(0, 2), Rules{Videoless: true, FilesVary: true}); err != nil {
		t.Error(err)
	}
	deep := t.TempDir()
	for i := range 2 {
		files := whole(t, i)
		files["ground_truth.avi"] = avi(10)
		delete(files, "ground_truth.mp4")
		write(t, filepath.Join(deep, "out", "maze_task", "level", fmt.Sprint(i)), files)
	}
	domain, samples, err := Collect(deep, 2, places(0, 2), Rules{})
	if err != nil || domain != "maze" || len(samples) != 2 {
		t.Errorf("%d samples of %q, %v", len(samples), domain, err)
	}
}

// Folders of a sample are its own, with other files in each sample; empty ones are
// nothing, and a sample's name may begin with another's.
func TestCollectFolders(t *testing.T) {
	dir := output(t, 2)
	for _, name := range []string{"maze_0", "maze_0 b", "maze_1"} {
		files := whole(t, 1)
		for i := range len(name) {
			files[fmt.Sprintf("frames/%d.png", i)] = picture(t)
		}
		files["masks/left/prompt.txt"] = []byte("a mask")
		files["masks/metadata.json"] = []byte(`{"task_id": 1, NaN`)
		write(t, filepath.Join(dir, "maze_task", name), files)
		link(t, os.MkdirAll(filepath.Join(dir, "maze_task", name, "none", "at", "all"), 0o755))
	}
	_, samples, err := Collect(dir, 3, places(0, 3), Rules{})
	if err != nil || len(samples) != 3 {
		t.Fatalf("%d samples, %v", len(samples), err)
	}
	for n, frames := range []string{"0 1 2 3 4 5", "0 1 2 3 4 5 6 7", "0 1 2 3 4 5"} {
		want := []string{"final_frame.png", "first_frame.png"}
		for _, i := range strings.Fields(frames) {
			want = append(want, "frames/"+i+".png")
		}
		want = append(want, "ground_truth.mp4", "masks/left/prompt.txt", "masks/metadata.json", "prompt.txt")
		var names []string
		for _, f := range samples[n].Files {
			if names = append(names, f.Name); f.Size != int64(len(read(t, f.Path))) {
				t.Errorf("%+v", f)
			}
		}
		if !slices.Equal(names, want) {
			t.Errorf("sample %d holds %v", n, names)
		}
	}
}

// Fingerprints are equal for equal samples, whatever their indices: param_hash
// where there is one, else prompt and frames.
func TestFingerprint(t *testing.T) {
	collect := func(change func(dir string)) string {
		dir := output(t, 1)
		change(filepath.Join(dir, "maze_task", "maze_0"))
		_, samples, err := Collect(dir, 1, places(rand.IntN(1000), 1), Rules{})
		if err != nil {
			t.Fatal(err)
		}
		return samples[0].Fingerprint
	}
	set := func(name, text string) func(string) {
		return func(dir string) { write(t, dir, map[string][]byte{name: []byte(text)}) }
	}
	plain := collect(func(string) {})
	if plain != collect(set("rubric.txt", "not part of it")) ||
		plain != collect(set("metadata.json", `{"task_id":"x","param_hash":""}`)) {
		t.Error("equal samples have different fingerprints")
	}
	if plain == collect(set("prompt.txt", "another")) {
		t.Error("different prompts have one fingerprint")
	}
	if got := collect(set("metadata.json", `{"param_hash":"abc"}`)); got != "abc" {
		t.Errorf("the fingerprint is %q and not the param_hash", got)
	}
}

// Natural order is a total order that puts numbers by value.
func TestNatural(t *testing.T) {
	want := []string{"a", "a_1", "a_01", "a_2", "a_10", "a_10_b", "a_99999999999999999999999", "b"}
	for range 100 {
		got := slices.Clone(want)
		rand.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		slices.SortFunc(got, natural)
		if !slices.Equal(got, want) {
			t.Fatalf("sorted %v", got)
		}
	}
}

func FuzzNatural(f *testing.F) {
	f.Add("a_01", "a_1", "a1b2")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if (natural(a, b) == 0) != (a == b) || sign(natural(a, b)) != -sign(natural(b, a)) {
			t.Errorf("%q and %q: %d and %d", a, b, natural(a, b), natural(b, a))
		}
		if natural(a, b) < 0 && natural(b, c) < 0 && natural(a, c) >= 0 {
			t.Errorf("%q < %q < %q, but not the first and the last", a, b, c)
		}
	})
}

func sign(n int) int { return max(-1, min(1, n)) }
