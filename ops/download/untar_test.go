package download

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

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

// A shard that is not what its receipt says is refused, and nothing is written
// that a receipt does not vouch for.
func TestHostileArchives(t *testing.T) {
	body := "the right text"
	sum := sha256.Sum256([]byte(body))
	samples := []store.ReceiptSample{{ID: "d_00000000", Files: []store.ReceiptFile{
		{Name: "prompt.txt", Size: int64(len(body)), SHA256: hex.EncodeToString(sum[:])},
	}}}
	good := member{tar.Header{Name: "d_00000000/prompt.txt"}, body}
	for name, test := range map[string]struct {
		archive []byte
		word    string // "" if it is taken
		files   int
	}{
		"good":              {archive(good), "", 1},
		"nothing":           {archive(), "lacks", 0},
		"no gzip":           {[]byte("hello"), "no gzip", 0},
		"cut off":           {archive(good)[:60], "damaged", 0},
		"leaves the folder": {archive(good, member{tar.Header{Name: "../../escaped"}, "x"}), "does not name", 1},
		"absolute":          {archive(good, member{tar.Header{Name: "/tmp/escaped"}, "x"}), "does not name", 1},
		"symbolic link": {archive(member{tar.Header{Name: "d_00000000", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, ""},
			good), "no plain file", 0},
		"hard link": {archive(member{tar.Header{Name: "d_00000000/prompt.txt", Typeflag: tar.TypeLink,
			Linkname: "/etc/passwd"}, ""}), "no plain file", 0},
		"device": {archive(member{tar.Header{Name: "d_00000000/prompt.txt", Typeflag: tar.TypeChar}, ""}),
			"no plain file", 0},
		"twice":      {archive(good, good), "twice", 1},
		"other text": {archive(member{good.Header, "the wrong text"}), "not what its receipt says", 0},
		"too long":   {archive(member{good.Header, strings.Repeat("x", 1<<20)}), "bytes", 0},
	} {
		t.Run(name, func(t *testing.T) {
			to := filepath.Join(t.TempDir(), "inner", "to")
			must(t, os.MkdirAll(to, 0o755))
			root, err := os.OpenRoot(to)
			must(t, err)
			defer root.Close()
			must(t, root.Mkdir(partial, 0o755))
			d := &download{root: root, Options: Options{Unpack: true}}
			r := store.Receipt{Generator: "maze", ChunkSize: 1, End: 1, Samples: samples,
				Shard: &store.Object{Key: "data/v1/maze/maze_00000000_00000000_c1.tar.gz"}}
			f := samples[0].Files[0]
			missing := map[string]expected{"maze/d_00000000/" + f.Name: {"maze/d_00000000/" + f.Name, f.Size, f.SHA256,
				time.Time{}}}
			err = d.untar(t.Context(), bytes.NewReader(test.archive), r, missing)
			reported := fmt.Sprint(err, d.problems)
			if fine := err == nil && len(d.problems) == 0; fine != (test.word == "") || !strings.Contains(reported, test.word) {
				t.Errorf("%s; want %q", reported, test.word)
			}
			var written []string
			must(t, fs.WalkDir(os.DirFS(filepath.Dir(filepath.Dir(to))), ".", func(path string, e fs.DirEntry, err error) error {
				if err == nil && !e.IsDir() {
					written = append(written, path)
				}
				return err
			}))
			if len(written) != test.files {
				t.Errorf("written are %v", written)
			}
		})
	}
}

// A receipt that names a path out of the folder writes nothing there.
func TestStaysInside(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	defer root.Close()
	d := &download{root: root}
	if err := d.save(expected{name: "../escaped", size: 1}, strings.NewReader("x")); err == nil {
		t.Error("../escaped was saved")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
