package generator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Program is a program that reads what generators made, which is not trusted: it runs in a sandbox as they do.
type Program struct {
	Argv      []string // the first one is a path
	Env       []string // its whole environment
	Scratch   string   // its working folder, and the one that it may write to; absolute
	Readable  []string // what it may read beside the system and its executable
	MaxFile   int64    // bytes of one file
	MaxMemory int64    // bytes of one process
}

// Start starts the program without a network, if the system lets this process take that away. connect is called with
// the command to give it its input and output, again if the first try fails. When ctx ends, all its processes are
// killed. Every program that calls Start must call Main first.
func (p Program) Start(ctx context.Context, connect func(*exec.Cmd) error) (*exec.Cmd, error) {
	ignored, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	defer ignored.Close()
	readable := append([]string{filepath.Dir(p.Argv[0])}, p.Readable...)
	if resolved, err := filepath.EvalSymlinks(p.Argv[0]); err == nil {
		readable = append(readable, filepath.Dir(resolved))
	}
	return launch{Argv: p.Argv, Dir: p.Scratch, Env: p.Env, Scratch: p.Scratch, Readable: readable, MaxFile: p.MaxFile,
		MaxMemory: p.MaxMemory, Apart: true}.start(ctx, defaultGrace, ignored, connect)
}

// Installed are the folders in which a Python interpreter and its packages are: its environment, and the one that this
// was made from.
func Installed(python string) []string {
	dirs := []string{filepath.Dir(filepath.Dir(python))}
	if resolved, err := filepath.EvalSymlinks(python); err == nil {
		dirs = append(dirs, filepath.Dir(filepath.Dir(resolved)))
	}
	return dirs
}

// ReadLeft reads a file below a folder in which a generator, or a program of its environment, could write, at most so
// many bytes of it. What was put in its place may be a pipe, or a link out of there: that is an error.
func ReadLeft(dir, name string, most int64) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no plain file", name))
	}
	return io.ReadAll(io.LimitReader(f, most))
}
