// Package uvtest gives tests that make Python environments an installer and a cache
// of packages, which stay on the machine from one test run to the next.
package uvtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// Bin returns a folder that has only the uv which this version brings in, and uv's cache of packages. Both are below
// the user's cache folder and made once. The error says what is missing: Python, or a package index the first time.
func Bin() (bin, cache string, err error) {
	home, err := os.UserCacheDir()
	if err != nil {
		return "", "", fmt.Errorf("find uv: %w", err)
	}
	dir := filepath.Join(home, "vm-dataset-pipeline-tests")
	source := filepath.Join(dir, "source", "any")
	entry := filepath.Join(source, generator.DefaultEntry)
	if err := os.MkdirAll(filepath.Dir(entry), 0o755); err != nil {
		return "", "", fmt.Errorf("find uv: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err == nil {
		defer lock.Close()
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		return "", "", fmt.Errorf("find uv: %w", err)
	}
	bin, cache = filepath.Join(dir, "bin"), filepath.Join(dir, "packages")
	link := filepath.Join(bin, "uv")
	to, err := os.Readlink(link)
	if err == nil && filepath.Base(filepath.Dir(filepath.Dir(to))) == "uv-"+environment.UVRelease {
		if _, err := os.Stat(link); err == nil {
			return bin, cache, nil
		}
	}
	// A generator that needs a package is what uv is brought in for.
	needs := filepath.Join(source, "requirements.txt")
	err = errors.Join(os.WriteFile(entry, nil, 0o644), os.WriteFile(needs, []byte("six==1.17.0\n"), 0o644))
	if err != nil {
		return "", "", fmt.Errorf("find uv: %w", err)
	}
	b := environment.Builder{Root: filepath.Dir(source), Dir: filepath.Join(dir, "generators")}
	if _, err := b.Build(context.Background()); err != nil {
		return "", "", err
	}
	found := filepath.Join(b.Dir, "installer", "uv-"+environment.UVRelease, "bin", "uv")
	if _, err := os.Stat(found); err != nil { // it is on the PATH, or cannot be had
		return bin, cache, nil
	}
	err = errors.Join(os.MkdirAll(bin, 0o755), os.RemoveAll(link), os.Symlink(found, link))
	return bin, cache, err
}

// Setenv lets this process and those it starts use them, and the Python on the PATH without a shim that starts it.
func Setenv() error {
	bin, cache, err := Bin()
	if err != nil {
		return err
	}
	python, _, err := environment.Interpreter(context.Background())
	path := strings.Join([]string{bin, filepath.Dir(python), os.Getenv("PATH")}, string(os.PathListSeparator))
	return errors.Join(err, os.Setenv("PATH", path), os.Setenv("UV_CACHE_DIR", cache))
}
