// Package sample turns what a generator wrote into checked samples: it finds
// them, checks that each is whole, and gives them their global indices.
package sample

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
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

// Limits of what one chunk may write. They stop a generator that runs wild, and
// are far above what real ones write (at most 730 kB and 8 files a sample).
const (
	MaxFiles = 100     // files in one sample
	MaxBytes = 4 << 30 // bytes in one chunk
	maxName  = 255     // bytes of a file name
)

// File is one file of a sample.
type File struct {
	Name   string // base name, as in the bucket
	Path   string // where it lies now
	Size   int64  // bytes
	SHA256 string // hexadecimal
}

// Sample is one checked sample.
type Sample struct {
	Index       int    // global
	ID          string // <domain>_<index as 8 digits>
	Fingerprint string // equal for equal samples: metadata.json's param_hash, else a hash of prompt and frames
	Files       []File // sorted by name
}

// Place says which sample of the generator's output is kept, and as which index.
type Place struct {
	Offset int // 0 is the first
	Index  int // global
}

// Rules are what a generator's samples must be like.
type Rules struct {
	Required  []string // files beyond first_frame.png, prompt.txt and ground_truth.*
	Videoless bool     // there is no ground_truth.*
	FilesVary bool     // the samples may have different files
}

// Error says why the output of a generator was refused.
type Error struct {
	Cause  task.Cause // incomplete_output, corrupt_output or unsafe_output
	Detail string
}

func (e *Error) Error() string { return string(e.Cause) + ": " + e.Detail }

func refuse(cause task.Cause, format string, args ...any) error {
	return &Error{Cause: cause, Detail: fmt.Sprintf(format, args...)}
}

// Collect checks the samples below the folder output and returns those that places
// names, in its order. The generator was asked for want samples; it must have
// written just as many, every one of them whole. Files stay where they are: to
// move them is a third of what the rest of it takes. The error is an *Error if the
// generator is to blame.
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
		if !rules.FilesVary && !slices.Equal(f.files, folders[0].files) {
			return "", nil, refuse(task.IncompleteOutput, "%s holds %s, but %s holds %s", f.path, strings.Join(f.files, " "), folders[0].path, strings.Join(folders[0].files, " "))
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

// folder is one sample as the generator left it.
type folder struct {
	path   string // below output, with slashes
	domain string
	files  []string // base names, sorted
}

// find returns the sample folders in natural order: those below a <domain>_task
// folder that hold files. Nothing but plain files and folders is accepted
// anywhere in the output, because a link could lead a reader out of it.
func find(output string) ([]folder, error) {
	found := map[string]*folder{}
	var total int64
	err := filepath.WalkDir(output, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
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
		case entry.IsDir():
			return nil
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
		domain := domainOf(dir)
		if domain == "" {
			return nil // beside the samples: a dataset.json, a log
		}
		f := found[dir]
		if f == nil {
			f = &folder{path: dir, domain: domain}
			found[dir] = f
		}
		if f.files = append(f.files, path.Base(name)); len(f.files) > MaxFiles {
			return refuse(task.UnsafeOutput, "%s holds more than %d files", dir, MaxFiles)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	list := make([]folder, 0, len(found))
	for _, f := range found {
		slices.Sort(f.files)
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b folder) int { return natural(a.path, b.path) })
	for i := 1; i < len(list); i++ {
		if strings.HasPrefix(list[i].path, list[i-1].path+"/") {
			return nil, refuse(task.IncompleteOutput, "%s lies inside another sample", list[i].path)
		}
	}
	return list, nil
}

// domainOf returns the domain of a sample folder, or "" when the folder is not
// below a <domain>_task folder.
func domainOf(dir string) string {
	parts := strings.Split(dir, "/")
	for _, part := range parts[:len(parts)-1] {
		if domain, ok := strings.CutSuffix(part, "_task"); ok && task.CheckName(domain) == nil {
			return domain
		}
	}
	return ""
}

func checkName(name string) error {
	switch {
	case !utf8.ValidString(name):
		return fmt.Errorf("is not valid UTF-8")
	case len(name) > maxName:
		return fmt.Errorf("is longer than %d bytes", maxName)
	case strings.ContainsFunc(name, unicode.IsControl) || strings.Contains(name, `\`):
		return fmt.Errorf("holds a character that no file name should")
	}
	return nil
}

// natural orders task_2 before task_10: runs of digits compare as numbers.
func natural(a, b string) int {
	for a != "" && b != "" {
		da, db := digits(a), digits(b)
		if da > 0 && db > 0 {
			na, nb := strings.TrimLeft(a[:da], "0"), strings.TrimLeft(b[:db], "0")
			if c := len(na) - len(nb); c != 0 {
				return c
			}
			if c := strings.Compare(na, nb); c != 0 {
				return c
			}
			if da != db { // equal numbers, other zeros in front
				return da - db
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

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func (f folder) hasRequired(rules Rules) error {
	for _, name := range append([]string{"first_frame.png", "prompt.txt"}, rules.Required...) {
		if !slices.Contains(f.files, name) {
			return refuse(task.IncompleteOutput, "%s has no %s", f.path, name)
		}
	}
	isVideo := func(name string) bool {
		ext := path.Ext(name)
		return strings.TrimSuffix(name, ext) == "ground_truth" && slices.Contains([]string{".mp4", ".avi", ".webm", ".mkv", ".mov"}, ext)
	}
	if !rules.Videoless && !slices.ContainsFunc(f.files, isVideo) {
		return refuse(task.IncompleteOutput, "%s has no ground_truth video", f.path)
	}
	return nil
}

// check reads every file once: for its hash, and to see that it is whole. An
// empty id means that the sample is not kept.
func (f folder) check(output, id string, buffer []byte) (Sample, error) {
	s := Sample{ID: id}
	dir := filepath.Join(output, filepath.FromSlash(f.path))
	if slices.Contains(f.files, "metadata.json") {
		hash, err := setTaskID(filepath.Join(dir, "metadata.json"), id)
		if bad, ok := err.(*formatError); ok { //nolint:errorlint // setTaskID returns it bare
			return s, refuse(task.CorruptOutput, "%s/metadata.json %s", f.path, bad.reason)
		}
		if err != nil {
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
		file := File{Name: name, Path: filepath.Join(dir, name)}
		h := sha256.New()
		file.Size, err = io.CopyBuffer(h, struct{ io.Reader }{data}, buffer) // an *os.File would take one of its own
		if err == nil {
			file.SHA256 = hex.EncodeToString(h.Sum(nil))
			err = checkFile(name, data, file.Size, buffer)
		}
		data.Close()
		if bad, ok := err.(*formatError); ok { //nolint:errorlint // checkFile returns it bare
			return s, refuse(task.CorruptOutput, "%s/%s: %s", f.path, name, bad.reason)
		}
		if err != nil {
			return s, err
		}
		switch name {
		case "prompt.txt", "first_frame.png", "final_frame.png":
			_ = binary.Write(mark, binary.BigEndian, uint64(len(name)))
			_, _ = io.WriteString(mark, name+file.SHA256)
		}
		s.Files = append(s.Files, file)
	}
	if s.Fingerprint == "" {
		s.Fingerprint = hex.EncodeToString(mark.Sum(nil))
	}
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
