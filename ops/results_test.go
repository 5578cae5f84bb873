package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// fetch downloads into a folder and returns the summary and the error.
func fetch(t *testing.T, c *cloud, to string, unpack bool, generators ...string) (string, error) {
	t.Helper()
	var said bytes.Buffer
	o := &Output{&ui.Output{Style: &ui.Style{JSON: true}, Stdout: &said, Stderr: io.Discard}, &target.Flags{}}
	err := (&ResultsDownloadCmd{To: to, Unpack: unpack, Generator: generators}).Run(t.Context(), o, c.store)
	return said.String(), err
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			name, _ := filepath.Rel(dir, path)
			list = append(list, filepath.ToSlash(name))
		}
		return err
	}))
	return list
}

// A download holds every file a receipt names, and again costs nothing.
func TestDownload(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	stored(t, c.store, "maze", task.Range{Start: 0, End: 5}, task.Files, "")
	stored(t, c.store, "maze", task.Range{Start: 5, End: 10}, task.Tar, "")
	stored(t, c.store, "chess", task.Range{Start: 0, End: 3}, task.Files, "")
	to := filepath.Join(t.TempDir(), "new", "folder")
	if said, err := fetch(t, c, to, false); err != nil || !strings.Contains(said, `"files": 17`) {
		t.Errorf("%s %v", said, err)
	}
	if got := files(t, to); len(got) != 17 || !slices.Contains(got, "maze/maze_00000005_00000009.tar.gz") ||
		!slices.Contains(got, "chess/d_00000002/prompt.txt") {
		t.Errorf("%v", got)
	}
	// One is damaged here: it alone is fetched again.
	must(t, os.WriteFile(filepath.Join(to, "chess", "d_00000001", "prompt.txt"), []byte("damaged!"), 0o600))
	if said, err := fetch(t, c, to, false); err != nil || !strings.Contains(said, `"files": 1,`) ||
		!strings.Contains(said, `"present": 16`) {
		t.Errorf("%s %v", said, err)
	}
	if text, _ := os.ReadFile(filepath.Join(to, "chess", "d_00000001", "prompt.txt")); string(text) != "chess 1 " {
		t.Errorf("it holds %q", text)
	}
	// A shard that was made again takes the place of the old one: readers of the folder
	// take all that is there.
	again := stored(t, c.store, "maze", task.Range{Start: 5, End: 10}, task.Tar, "again")
	if said, err := fetch(t, c, to, false); err != nil || !strings.Contains(said, `"files": 1,`) ||
		!strings.Contains(said, `"present": 16`) {
		t.Errorf("%s %v", said, err)
	}
	if data, err := os.ReadFile(filepath.Join(to, "maze", "maze_00000005_00000009.tar.gz")); len(files(t, to)) != 17 ||
		hashOf(data) != again.Shard.SHA256 {
		t.Errorf("%v: %v", files(t, to), err)
	}
	// Unpacked, the shard's samples lie as the others do.
	flat := t.TempDir()
	if said, err := fetch(t, c, flat, true, "maze"); err != nil || !strings.Contains(said, `"files": 20`) {
		t.Errorf("%s %v", said, err)
	}
	if got := files(t, flat); len(got) != 20 ||
		slices.ContainsFunc(got, func(s string) bool {
			return strings.HasSuffix(s, ".tar.gz") ||
				strings.HasSuffix(s, ".part")
		}) {
		t.Errorf("%v", got)
	}
	if said, err := fetch(t, c, flat, true, "maze"); err != nil || !strings.Contains(said, `"files": 0,`) {
		t.Errorf("%s %v", said, err)
	}
	if _, err := fetch(t, c, flat, true, "mazes"); err == nil || !strings.Contains(err.Error(), "maze") {
		t.Errorf("an unknown generator: %v", err)
	}
}

// What was replaced is not downloaded, neither as files nor out of shards.
func TestDownloadSuperseded(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	stored(t, c.store, "maze", task.Range{Start: 0, End: 10}, task.Tar, "old")
	layer{(task.Task{Indices: []int{4, 5}, ChunkSize: 10, Attempt: 1}).Chunks()[0], task.Files, "new"}.store(t, c, "maze")
	to := t.TempDir()
	if said, err := fetch(t, c, to, true); err != nil {
		t.Errorf("%s %v", said, err)
	}
	for i := range 10 {
		want := map[bool]string{true: "new", false: "old"}[i == 4 || i == 5]
		text, err := os.ReadFile(filepath.Join(to, "maze", task.SampleID("d", i), "prompt.txt"))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%d holds %q, %v", i, text, err)
		}
	}
}

// What does not fit its receipt is named and not kept.
func TestDownloadDamaged(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	stored(t, c.store, "maze", task.Range{Start: 0, End: 5}, task.Files, "")
	place(t, c.store, "maze", 2, "prompt.txt", "maze 3 ") // as long as what it was
	must(t, c.store.Delete(t.Context(), []string{task.DefaultDataset.FileKey("maze", "d_00000004", "prompt.txt")}))
	to := t.TempDir()
	said, err := fetch(t, c, to, false)
	var status *ui.StatusError
	if !errors.As(err, &status) || status.ExitCode() != ui.ExitProblem {
		t.Errorf("%v", err)
	}
	for _, word := range []string{"maze/d_00000002/prompt.txt is not what its receipt says",
		"maze/d_00000004/prompt.txt is not in the bucket"} {
		if !strings.Contains(said, word) {
			t.Errorf("%q is not in %s", word, said)
		}
	}
	if got := files(t, to); len(got) != 8 || slices.Contains(got, "maze/d_00000002/prompt.txt") {
		t.Errorf("kept are %v", got)
	}
}

type member struct {
	tar.Header
	body string
}

func archive(members ...member) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	a := tar.NewWriter(z)
	for _, m := range members {
		h := m.Header
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		h.Size, h.Mode = int64(len(m.body)), 0o644
		if err := errors.Join(a.WriteHeader(&h),
			func() error { _, err := io.WriteString(a, m.body); return err }()); err != nil {
			panic(err)
		}
	}
	_ = a.Close()
	_ = z.Close()
	return b.Bytes()
}

// A link that somebody put into the folder leads to nothing that is written.
func TestDownloadStaysInside(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	stored(t, c.store, "maze", task.Range{Start: 0, End: 1}, task.Files, "")
	outside := t.TempDir()
	to := t.TempDir()
	must(t, os.Symlink(outside, filepath.Join(to, "maze")))
	if said, err := fetch(t, c, to, false); err == nil {
		t.Errorf("through a link: %s", said)
	}
	if got := files(t, outside); len(got) > 0 {
		t.Errorf("written through a link: %v", got)
	}
}

// members reads an archive back.
func members(t testing.TB, data []byte) []member {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	must(t, err)
	var list []member
	for a := tar.NewReader(z); ; {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		must(t, err)
		body, err := io.ReadAll(a)
		must(t, err)
		list = append(list, member{tar.Header{Name: h.Name, Typeflag: h.Typeflag}, string(body)})
	}
}

// repairCRC sets the checksum of a PNG's last data chunk right.
func repairCRC(data []byte) []byte {
	at := bytes.Index(data, []byte("IDAT"))
	length := int(binary.BigEndian.Uint32(data[at-4:]))
	binary.BigEndian.PutUint32(data[at+4+length:], crc32.ChecksumIEEE(data[at:at+4+length]))
	return data
}
