// Package video runs programs that decode and encode videos. What they read comes from generators, so they run in a
// sandbox. A program that calls it must call generator.Main first.
package video

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// Bounds of a program.
const (
	maxMemory   = 8 << 30 // bytes
	maxFile     = 1 << 30 // bytes
	shownOutput = 8 << 10 // bytes
)

// Program is one that decodes or encodes.
type Program struct {
	path     string
	readable []string // what it may read beside the system
}

// Find finds a program that is on PATH or has this path.
func Find(name string) (p Program, err error) {
	if p.path, err = exec.LookPath(name); err == nil {
		p.path, err = filepath.Abs(p.path)
	}
	return p, err
}

// python returns an interpreter, which may read its packages.
func python(name string) (Program, error) {
	p, err := Find(name)
	if err != nil {
		return p, err
	}
	p.readable = generator.Installed(p.path)
	if home, err := os.UserHomeDir(); err == nil {
		p.readable = append(p.readable, filepath.Join(home, ".local", "lib")) // of pip install --user
	}
	return p, nil
}

// Pythons are the interpreters of generators' environments below a local folder that have a package.
func Pythons(localDir, name string) (list []string) {
	found, _ := filepath.Glob(filepath.Join(localDir, "generators", "environments", "*", "lib", "python*", "site-packages",
		name))
	for _, dir := range found {
		list = append(list, filepath.Join(dir, "..", "..", "..", "..", "bin", "python"))
	}
	return list
}

// FindPython finds the first Python that runs a program with the argument "version", and returns what that prints. Names
// may be empty. dir is a folder for the work.
func FindPython(ctx context.Context, dir, text string, names []string) (found Program, version string, err error) {
	limited, cancel := context.WithTimeout(ctx, time.Minute) // one may hang
	defer cancel()
	var tried []string
	for _, name := range names {
		if name == "" {
			continue
		}
		p, err := python(name)
		if err == nil {
			version, err = p.Output(limited, dir, "-c", text, "version")
		}
		if err == nil {
			return p, strings.TrimSpace(version), nil
		}
		tried = append(tried, fmt.Sprintf("%s has none (%v)", name, err))
	}
	return Program{}, "", errors.New(strings.Join(tried, ", "))
}

// Start starts the program. It may read dir and what is readable, write to dir alone, and knows nothing of this process,
// whose environment may have credentials.
func (p Program) Start(ctx context.Context, dir string, args []string, connect func(*exec.Cmd) error,
	readable ...string) (*exec.Cmd, error) {
	return generator.Program{Argv: append([]string{p.path}, args...), Scratch: dir,
		Readable: append(readable, p.readable...), MaxFile: maxFile, MaxMemory: maxMemory,
		Env: []string{"PATH=" + filepath.Dir(p.path) + ":/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8",
			"PYTHONUTF8=1", "PYTHONDONTWRITEBYTECODE=1", "OPENCV_FFMPEG_THREADS=1", "TMPDIR=" + dir}}.Start(ctx, connect)
}

// Output returns the end of what the program prints. An error has the last line of its stderr.
func (p Program) Output(ctx context.Context, dir string, args ...string) (string, error) {
	stdout, stderr := NewTail(), NewTail()
	cmd, err := p.Start(ctx, dir, args, func(c *exec.Cmd) error { c.Stdout, c.Stderr = stdout, stderr; return nil })
	if err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%w: %s", err, LastLine(stderr))
	}
	return stdout.String(), nil
}

// NewTail keeps the end of what a program prints.
func NewTail() *generator.Tail { return &generator.Tail{Limit: shownOutput} }

// LastLine is the last line of what a program has printed.
func LastLine(t *generator.Tail) string {
	text := strings.TrimSpace(t.String())
	return text[strings.LastIndex(text, "\n")+1:]
}

// Format is the only one as which a file is read: a file that is another, such as a playlist, could name others.
func Format(file string) string {
	return cmp.Or(map[string]string{".avi": "avi", ".webm": "matroska", ".mkv": "matroska", ".png": "png_pipe"}[path.Ext(file)],
		"mp4")
}
