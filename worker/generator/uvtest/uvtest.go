// Package uvtest gives tests that make Python environments an installer and a cache
// of packages that are there from one test run to the next.
package uvtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// Bin is a folder with the uv that this version brings in, made once on a machine,
// and Cache uv's cache of packages beside it. Both are below the user's cache folder.
// The error says what is missing: Python, or a package index when nothing is there.
func Bin() (bin, cache string, err error) {
	home, err := os.UserCacheDir()
	if err != nil {
		return "", "", fmt.Errorf("look for uv: %w", err)
	}
	dir := filepath.Join(home, "vm-dataset-pipeline-tests")
	source := filepath.Join(dir, "source", "any")
	entry := filepath.Join(source, generator.DefaultEntry)
	if err := os.MkdirAll(filepath.Dir(entry), 0o755); err != nil {
		return "", "", fmt.Errorf("look for uv: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", "", fmt.Errorf("look for uv: %w", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", "", fmt.Errorf("look for uv: %w", err)
	}
	// A generator that needs a package is what uv is brought in for.
	needs := filepath.Join(source, "requirements.txt")
	err = errors.Join(os.WriteFile(entry, nil, 0o644), os.WriteFile(needs, []byte("six==1.17.0\n"), 0o644))
	if err != nil {
		return "", "", fmt.Errorf("look for uv: %w", err)
	}
	b := generator.Builder{Root: filepath.Dir(source), Dir: filepath.Join(dir, "generators")}
	if _, err := b.Build(context.Background()); err != nil {
		return "", "", err
	}
	bin, cache = filepath.Join(dir, "bin"), filepath.Join(dir, "packages")
	found, err := filepath.Glob(filepath.Join(b.Dir, "installer", "uv-*", "bin", "uv"))
	if err != nil || len(found) == 0 { // it is on the PATH already, or cannot be had
		return bin, cache, err
	}
	// Alone: beside it there is a Python.
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", "", fmt.Errorf("keep uv: %w", err)
	}
	link := filepath.Join(bin, "uv")
	if to, _ := os.Readlink(link); to != found[len(found)-1] {
		if err := errors.Join(os.RemoveAll(link), os.Symlink(found[len(found)-1], link)); err != nil {
			return "", "", fmt.Errorf("keep uv: %w", err)
		}
	}
	return bin, cache, nil
}

// Setenv lets this process and those it starts use them.
func Setenv() error {
	bin, cache, err := Bin()
	if err != nil {
		return err
	}
	path := bin + string(os.PathListSeparator) + os.Getenv("PATH")
	return errors.Join(os.Setenv("PATH", path), os.Setenv("UV_CACHE_DIR", cache))
}
