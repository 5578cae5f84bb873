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

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
)

// KeepsNetwork reports whether this system lets a sandbox keep generators from the network: that
// needs root's rights or user namespaces. It starts a process to find out.
func KeepsNetwork(ctx context.Context) (bool, error) {
	dir, err := os.MkdirTemp("", "vm-dataset-network-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	source, scratch := filepath.Join(dir, "source", "true"), filepath.Join(dir, "scratch")
	if err := errors.Join(os.MkdirAll(source, 0o700), os.Mkdir(scratch, 0o700)); err != nil {
		return false, err
	}
	program, err := exec.LookPath("true") // not every system has it in /bin
	if err != nil {
		return false, err
	}
	g := &Generator{Name: "true", Dir: source, Entry: "-", Python: program, Flags: contractFlags}
	r, err := Run(ctx, Request{Generator: g, Samples: 1, Scratch: scratch, Apart: true})
	return r.Apart.Network, err
}

// Readable are the folders a generator must read beside the system's own: its environment, the interpreter that was
// made from, itself and what stands beside it, because generators may share code.
func Readable(g *Generator) []string {
	dirs := append(Installed(g.Python), filepath.Dir(g.Dir))
	if resolved, err := filepath.EvalSymlinks(g.Dir); err == nil {
		dirs = append(dirs, resolved)
	}
	return dirs
}

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
// killed.
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
	return sandbox.Order{Argv: p.Argv, Dir: p.Scratch, Env: p.Env, Scratch: p.Scratch, Readable: readable,
		MaxFile: p.MaxFile, MaxMemory: p.MaxMemory, Apart: true}.Start(ctx, sandbox.DefaultGrace, ignored, connect)
}

// Installed are the folders in which a Python and its packages are: its environment, and the one this was made from.
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
