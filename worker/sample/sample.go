// Package sample turns what a generator wrote into checked samples: it finds
// them, checks that each is complete, and gives them their global indices.
package sample

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Limits of what one chunk may write. They stop a generator that runs wild, and are far above what real ones write (at
// most 730 kB and 8 files a sample). Names have room in a key of S3, which has 1,024 bytes.
const (
	MaxFiles   = 500     // files in one sample: every frame of 20 s of video
	MaxBytes   = 4 << 30 // bytes in one chunk
	maxFolders = 8       // in each other, of a sample
	maxName    = 255     // bytes of the name of a file or folder
	maxPath    = 512     // bytes of a file's path in its sample, where that has folders
)

// File is one file of a sample. As JSON it is a part of a receipt.
type File struct {
	Name   string `json:"name"`           // its path in the sample, as in the bucket: prompt.txt, frames/0.png
	Path   string `json:"-"`              // where it lies now
	Size   int64  `json:"size"`           // bytes
	SHA256 string `json:"sha256"`         // hexadecimal
	Media  Media  `json:"media,omitzero"` // of a video or a picture
	Text   Text   `json:"text,omitzero"`  // of the prompt
}

// Sample is one checked sample. As JSON it is a part of a receipt.
type Sample struct {
	ID    string `json:"id"`    // <domain>_<index as 8 digits>
	Index int    `json:"index"` // global
	// equal for equal samples: metadata.json's param_hash, else a hash of prompt and frames
	Fingerprint string `json:"fingerprint"`
	Files       []File `json:"files"` // sorted by name
}

// Place is which sample of the generator's output is kept, and as which index.
type Place struct {
	Offset int // 0 is the first
	Index  int // global
}

// Rules are what a generator's samples must be like.
type Rules struct {
	Required  []string // files beyond first_frame.png, prompt.txt and ground_truth.*
	Videoless bool     // there is no ground_truth.*
	FilesVary bool     // the samples may have different files; else only those in sub-folders may differ
}

// Error is why the output of a generator was refused.
type Error struct {
	Cause  task.Cause // incomplete_output, corrupt_output or unsafe_output
	Detail string
}

func (e *Error) Error() string { return string(e.Cause) + ": " + e.Detail }

func refuse(cause task.Cause, format string, args ...any) error {
	return &Error{Cause: cause, Detail: fmt.Sprintf(format, args...)}
}

// Collect checks the samples below the folder output and returns those that places names, in its order. The generator
// was asked for want samples; it must have written just as many, every one of them complete. Files stay where they are:
// to move them is a third of what the rest of it takes. The error is an *Error if the generator is to blame.
func Collect(output string, want int, places []Place, rules Rules) (domain string, samples []Sample, err error) {
	folders, err := find(output)
	if err != nil {
		return "", nil, err
	}
	if len(folders) == 0 {
		return "", nil, refuse(task.IncompleteOutput, "no sample below a *_task folder, %d were asked for", want)
	}
	domain = folders[0].domain
	for _, f := range folders {
		if f.domain != domain {
			return "", nil, refuse(task.IncompleteOutput, "samples of two domains, %s and %s", domain, f.domain)
		}
	}
	if len(folders) != want {
		return "", nil, refuse(task.IncompleteOutput, "%d written of %d samples asked for", len(folders), want)
	}
	keep := make(map[int]int, len(places))
	for n, p := range places {
		keep[p.Offset] = n
	}
	samples = make([]Sample, len(places))
	buffer := make([]byte, 32<<10)
	for offset, f := range folders {
		if err := f.hasRequired(rules); err != nil {
			return "", nil, err
		}
		if is, first := Shape(f.files), Shape(folders[0].files); !rules.FilesVary && !slices.Equal(is, first) {
			return "", nil, refuse(task.IncompleteOutput, "%s holds %s, but %s holds %s", f.path, strings.Join(is, " "),
				folders[0].path, strings.Join(first, " "))
		}
		n, kept := keep[offset]
		id := ""
		if kept {
			id = task.SampleID(domain, places[n].Index)
		}
		s, err := f.check(output, id, buffer)
		if err != nil {
			return "", nil, err
		}
		if kept {
			s.Index = places[n].Index
			samples[n] = s
		}
	}
	return domain, samples, nil
}

type folder struct {
	path   string // below output, with slashes
	domain string
	files  []string // paths below it, sorted
}

// find returns the sample folders in natural order: those below a <domain>_task folder that hold files, and whose
// folders above them hold none. What lies in folders below is the sample's, too; a folder without files is nothing.
// Nothing but plain files and folders is accepted anywhere in the output, because a link could lead a reader out of it.
func find(output string) ([]folder, error) {
	holds := map[string][]string{} // base names by folder
	var total int64
	err := filepath.WalkDir(output, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(output, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			return refuse(task.UnsafeOutput, "%s is a symbolic link", name)
		case !info.Mode().IsRegular():
			return refuse(task.UnsafeOutput, "%s is no plain file", name)
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Nlink > 1 {
			return refuse(task.UnsafeOutput, "%s is a hard link to another file", name)
		}
		if err := checkName(path.Base(name)); err != nil {
			return refuse(task.UnsafeOutput, "%q %v", name, err)
		}
		if total += info.Size(); total > MaxBytes {
			return refuse(task.UnsafeOutput, "more than %d bytes were written", int64(MaxBytes))
		}
		dir := path.Dir(name)
		if domainOf(dir) == "" {
			return nil // beside the samples: a dataset.json, a log
		}
		if holds[dir] = append(holds[dir], path.Base(name)); len(holds[dir]) > MaxFiles {
			return refuse(task.UnsafeOutput, "%s holds more than %d files", dir, MaxFiles)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	found := map[string]*folder{}
	for _, dir := range slices.Sorted(maps.Keys(holds)) {
		top := dir
		for up := path.Dir(dir); domainOf(up) != ""; up = path.Dir(up) {
			if holds[up] != nil {
				top = up
			}
		}
		if top != dir && slices.Contains(holds[dir], "first_frame.png") && slices.Contains(holds[dir], "prompt.txt") {
			return nil, refuse(task.IncompleteOutput, "%s lies inside another sample", dir)
		}
		f := found[top]
		if f == nil {
			f = &folder{path: top, domain: domainOf(top)}
			found[top] = f
		}
		for _, base := range holds[dir] {
			name := strings.TrimPrefix(dir+"/"+base, top+"/")
			if err := CheckName(name); err != nil {
				return nil, refuse(task.UnsafeOutput, "%q in %s %v", name, top, err)
			}
			if f.files = append(f.files, name); len(f.files) > MaxFiles {
				return nil, refuse(task.UnsafeOutput, "%s holds more than %d files", top, MaxFiles)
			}
		}
	}
	list := make([]folder, 0, len(found))
	for _, f := range found {
		slices.Sort(f.files)
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b folder) int { return natural(a.path, b.path) })
	return list, nil
}

// domainOf returns the domain of a sample folder, or "" when the folder is not below a <domain>_task folder.
func domainOf(dir string) string {
	parts := strings.Split(dir, "/")
	for _, part := range parts[:len(parts)-1] {
		if domain, ok := strings.CutSuffix(part, "_task"); ok && task.CheckName(domain) == nil {
			return domain
		}
	}
	return ""
}

// Shape returns what the samples of a generator have in common: the sorted names of
// the files in a sample's own folder, and its sub-folders, with a slash.
func Shape(files []string) (list []string) {
	for _, name := range files {
		if folder, _, nested := strings.Cut(name, "/"); nested {
			name = folder + "/"
		}
		list = append(list, name)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// CheckName reports what is wrong with the path of a file in its sample, or nil.
func CheckName(name string) error {
	parts := strings.Split(name, "/")
	if len(parts) > 1+maxFolders {
		return fmt.Errorf("lies in more than %d folders", maxFolders)
	}
	if len(parts) > 1 && len(name) > maxPath {
		return fmt.Errorf("is longer than %d bytes", maxPath)
	}
	for _, part := range parts {
		if err := checkName(part); err != nil {
			return err
		}
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("is no path of a file")
	case !utf8.ValidString(name):
		return fmt.Errorf("is not valid UTF-8")
	case len(name) > maxName:
		return fmt.Errorf("is longer than %d bytes", maxName)
	case strings.ContainsFunc(name, unicode.IsControl) || strings.Contains(name, `\`):
		return fmt.Errorf("holds a control character or a backslash")
	}
	return nil
}

// natural orders task_2 before task_10: runs of digits compare as numbers.
func natural(a, b string) int {
	for a != "" && b != "" {
		da, db := digits(a), digits(b)
		if da > 0 && db > 0 {
			na, nb := strings.TrimLeft(a[:da], "0"), strings.TrimLeft(b[:db], "0")
			if c := cmp.Or(len(na)-len(nb), strings.Compare(na, nb), da-db); c != 0 { // last the zeros in front
				return c
			}
			a, b = a[da:], b[db:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

// digits is how many digits a text begins with.
func digits(s string) int { return len(s) - len(strings.TrimLeft(s, "0123456789")) }

// IsVideo reports whether the name of a file is that of a video.
func IsVideo(name string) bool {
	return slices.Contains([]string{".mp4", ".avi", ".webm", ".mkv", ".mov"}, path.Ext(name))
}

// IsGroundTruth reports whether a file of a sample is its video.
func IsGroundTruth(name string) bool {
	return IsVideo(name) && strings.TrimSuffix(name, path.Ext(name)) == "ground_truth"
}

func (f folder) hasRequired(rules Rules) error {
	for _, name := range append([]string{"first_frame.png", "prompt.txt"}, rules.Required...) {
		if !slices.Contains(f.files, name) {
			return refuse(task.IncompleteOutput, "%s has no %s", f.path, name)
		}
	}
	if !rules.Videoless && !slices.ContainsFunc(f.files, IsGroundTruth) {
		return refuse(task.IncompleteOutput, "%s has no ground_truth video", f.path)
	}
	return nil
}

// check reads every file once: for its hash, and to check that it is complete. Without an id the sample is not kept.
func (f folder) check(output, id string, buffer []byte) (Sample, error) {
	s := Sample{ID: id}
	dir := filepath.Join(output, filepath.FromSlash(f.path))
	if slices.Contains(f.files, "metadata.json") {
		hash, err := setTaskID(filepath.Join(dir, "metadata.json"), id)
		if wrong, err := reason(err); wrong != "" {
			return s, refuse(task.CorruptOutput, "%s/metadata.json %s", f.path, wrong)
		} else if err != nil {
			return s, err
		}
		s.Fingerprint = hash
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return s, err
	}
	defer root.Close()
	mark := sha256.New() // over prompt, first and final frame
	for _, name := range f.files {
		data, err := open(root, name)
		if err != nil {
			return s, err
		}
		file := File{Name: name, Path: filepath.Join(dir, filepath.FromSlash(name))}
		h := sha256.New()
		file.Size, err = io.CopyBuffer(h, struct{ io.Reader }{data}, buffer) // an *os.File would take one of its own
		if err == nil {
			file.SHA256 = hex.EncodeToString(h.Sum(nil))
			file.Media, err = checkFile(name, data, file.Size, buffer)
		}
		if err == nil && name == "prompt.txt" {
			file.Text, err = describePrompt(data)
		}
		data.Close()
		if wrong, err := reason(err); wrong != "" {
			return s, refuse(task.CorruptOutput, "%s/%s: %s", f.path, name, wrong)
		} else if err != nil {
			return s, err
		}
		switch name {
		case "prompt.txt", "first_frame.png", "final_frame.png":
			_ = binary.Write(mark, binary.BigEndian, uint64(len(name)))
			_, _ = io.WriteString(mark, name+file.SHA256)
		}
		s.Files = append(s.Files, file)
	}
	s.Fingerprint = cmp.Or(s.Fingerprint, hex.EncodeToString(mark.Sum(nil)))
	return s, nil
}

func open(root *os.Root, name string) (*os.File, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, refuse(task.UnsafeOutput, "%s is no plain file", name)
	}
	return root.Open(name)
}
