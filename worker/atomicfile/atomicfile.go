// Package atomicfile writes files in one step: whoever reads one, also after a crash
// or on a full disk, finds the old file or the whole new one.
package atomicfile

import (
	"cmp"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
)

// Write replaces a file by one that holds text.
func Write(path string, text []byte) error {
	return Stream(path, func(w io.Writer) error { _, err := w.Write(text); return err })
}

// Stream replaces a file in a folder by what fill writes, once it is on the disk. An error of fill is returned as is.
func Stream(path string, fill func(io.Writer) error) error {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer root.Close()
	// Short, whatever the file's own name: that may be as long as names can be.
	return Create(root, "."+rand.Text()+".tmp", filepath.Base(path), func(f *os.File) error {
		if err := fill(f); err != nil {
			return err
		}
		return f.Sync()
	})
}

// Create has fill write a new file of the temporary name below root, and gives it its
// own name once fill and the closing have succeeded. If they have not, nothing is left
// of it. Both names must lie on one file system. It does not wait for the disk.
func Create(root *os.Root, temporary, name string, fill func(*os.File) error) error {
	f, err := root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	err = fill(f)
	if err = cmp.Or(err, f.Close()); err == nil {
		err = root.Rename(temporary, name)
	}
	if err != nil {
		_ = root.Remove(temporary)
	}
	return err
}
