// Package indextest is for tests that install packages: packages made in a moment, and an index that serves them.
package indextest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
)

// Wheel makes a version of a package that is one module, in a folder.
func Wheel(dir, module, version, source string) error {
	return wheel(dir, module, version, anywhere, module+".py", source)
}

// PlatformWheel makes the wheel of such a version for one platform, as in manylinux_2_28_x86_64.
func PlatformWheel(dir, module, version, platform, source string) error {
	return wheel(dir, module, version, "py3-none-"+platform, module+".py", source)
}

const anywhere = "py3-none-any"

// Program makes a version of a package that is one program of its name, in a folder.
func Program(dir, name, version, script string) error {
	return wheel(dir, name, version, anywhere, name+"-"+version+".data/scripts/"+name, script)
}

func wheel(dir, name, version, tag, file, text string) error {
	info := name + "-" + version + ".dist-info/"
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range []struct{ name, text string }{
		{file, text},
		{info + "METADATA", "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n"},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: " + tag + "\n"},
		{info + "RECORD", file + ",,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n"},
	} {
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate}
		h.SetMode(0o755)
		w, err := z.CreateHeader(h)
		if err == nil {
			_, err = w.Write([]byte(f.text))
		}
		if err != nil {
			return err
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	return write(dir, name+"-"+version+"-"+tag+".whl", b.Bytes())
}

// builder is a build backend that needs no other, but a module that is imported: its value becomes the package's.
const builder = `import os, zipfile
import %[3]s
def build_wheel(folder, config_settings=None, metadata_directory=None):
    info = "%[1]s-%[2]s.dist-info/"
    with zipfile.ZipFile(os.path.join(folder, "%[1]s-%[2]s-py3-none-any.whl"), "w") as z:
        z.writestr("%[1]s.py", "value = " + repr(%[3]s.value))
        z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: %[1]s\nVersion: %[2]s\n")
        z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(info + "RECORD", "")
    return "%[1]s-%[2]s-py3-none-any.whl"
`

// Sources are the files of a package of one module, built with a tool that is such a package: its value is the tool's.
func Sources(module, version, tool string) map[string]string {
	return map[string]string{
		"PKG-INFO": "Metadata-Version: 2.1\nName: " + module + "\nVersion: " + version + "\n",
		"pyproject.toml": fmt.Sprintf(
			"[build-system]\nrequires = [%q]\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n",
			strings.ReplaceAll(tool, "_", "-")),
		"backend.py": fmt.Sprintf(builder, module, version, tool),
	}
}

// Source makes a version of a package that has no wheel, of Sources.
func Source(dir, module, version, tool string) error {
	var b bytes.Buffer
	packed := gzip.NewWriter(&b)
	archive := tar.NewWriter(packed)
	for name, text := range Sources(module, version, tool) {
		err := archive.WriteHeader(&tar.Header{Name: module + "-" + version + "/" + name, Mode: 0o644, Size: int64(len(text)),
			Typeflag: tar.TypeReg})
		if err == nil {
			_, err = archive.Write([]byte(text))
		}
		if err != nil {
			return err
		}
	}
	if err := errors.Join(archive.Close(), packed.Close()); err != nil {
		return err
	}
	return write(dir, module+"-"+version+".tar.gz", b.Bytes())
}

func write(dir, name string, text []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), text, 0o644)
}

// Index serves the packages in a folder, as the simple repository API has it. Those of the versions Old were uploaded
// in January 2026, and all else in March.
type Index struct {
	Dir     string
	Old     []string    // nil is 1.0 alone
	Undated atomic.Bool // it does not tell when files were uploaded
}

// ServeHTTP answers below /simple and /files.
func (x *Index) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if file, ok := strings.CutPrefix(r.URL.Path, "/files/"); ok {
		http.ServeFile(w, r, filepath.Join(x.Dir, filepath.Base(file)))
		return
	}
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, "/simple/"), "/")
	packages, _ := filepath.Glob(filepath.Join(x.Dir, strings.ReplaceAll(name, "-", "_")+"-*"))
	if len(packages) == 0 {
		http.NotFound(w, r)
		return
	}
	var files []map[string]any
	for _, path := range packages {
		text, _ := os.ReadFile(path)
		f := map[string]any{"filename": filepath.Base(path), "url": "/files/" + filepath.Base(path),
			"hashes": map[string]string{"sha256": fmt.Sprintf("%x", sha256.Sum256(text))}}
		if !x.Undated.Load() {
			f["upload-time"] = "2026-03-01T00:00:00Z"
			version := strings.Split(strings.TrimSuffix(filepath.Base(path), ".tar.gz"), "-")[1]
			if slices.Contains(x.Old, version) || x.Old == nil && version == "1.0" {
				f["upload-time"] = "2026-01-01T00:00:00Z"
			}
		}
		files = append(files, f)
	}
	w.Header().Set("Content-Type", "application/vnd.pypi.simple.v1+json")
	_ = json.NewEncoder(w).Encode(map[string]any{"meta": map[string]string{"api-version": "1.1"}, "name": name,
		"files": files})
}
