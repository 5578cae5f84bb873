package generator

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Builder finds the generators below Root, makes the Python environments they
// need, and writes the index that workers read. Generators with the same
// requirements share an environment; one that is there already is used again.
type Builder struct {
	Root     string       // the generators' folder
	Dir      string       // where the index and the environments go
	Progress func(string) // is told a line at a time; may be nil
}

// Build makes what is missing and returns the new index. A generator whose
// requirements cannot be installed is in it with its Problem; the error is for
// what concerns all of them.
func (b *Builder) Build(ctx context.Context) (*Index, error) {
	list, err := Discover(b.Root)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(b.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "environments"), 0o755); err != nil {
		return nil, err
	}
	python, version, err := findPython(ctx)
	if err != nil {
		return nil, err
	}
	problems := map[string]string{}
	for i := range list {
		g := &list[i]
		if g.Problem != "" {
			continue
		}
		e := environment{dir: dir, python: python, version: version, requirements: g.Requirements}
		g.Environment = e.id()
		if _, tried := problems[e.id()]; !tried {
			err := e.ensure(ctx, b.say)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			problems[e.id()] = ""
			if err != nil {
				problems[e.id()] = err.Error()
				b.say(fmt.Sprintf("environment of %s: %v", g.Name, err))
			}
		}
		if g.Problem = problems[e.id()]; g.Problem == "" {
			g.Python = e.interpreter()
		}
	}
	x := &Index{Generators: list}
	return x, x.write(dir)
}

func (b *Builder) say(line string) {
	if b.Progress != nil {
		b.Progress(line)
	}
}

// oldest is the oldest Python the generators are written for.
const oldestMinor = 11

// findPython returns the newest interpreter on the PATH and its version.
func findPython(ctx context.Context) (path, version string, err error) {
	found := ""
	for _, name := range []string{"python3", "python3.14", "python3.13", "python3.12", "python3.11", "python"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, path, "-c", "import sys, platform; print(*sys.version_info[:3], sep='.'); print(platform.machine())").Output()
		if err != nil {
			continue
		}
		version := strings.Join(strings.Fields(string(out)), "-")
		var major, minor int
		if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err == nil && major == 3 && minor >= oldestMinor {
			return path, version, nil
		}
		found = version
	}
	if found != "" {
		return "", "", fmt.Errorf("the generators need Python 3.%d or newer and the PATH has only %s: install a newer one", oldestMinor, found)
	}
	return "", "", fmt.Errorf("the generators need Python 3.%d or newer and there is no python3 on the PATH: install it", oldestMinor)
}

// environment is one Python environment: an interpreter and a requirement set.
type environment struct {
	dir, python, version string
	requirements         []string
}

// layout is part of every id, so that environments made in another way by
// another version of this code are not taken for these.
const layout = "1"

func (e environment) id() string {
	sum := sha256.Sum256([]byte(strings.Join(append([]string{layout, e.version}, e.requirements...), "\n")))
	return fmt.Sprintf("%x", sum[:6])
}

func (e environment) path() string        { return filepath.Join(e.dir, "environments", e.id()) }
func (e environment) interpreter() string { return filepath.Join(e.path(), "bin", "python") }

// complete is written last: an environment without it is half-made.
func (e environment) complete() string { return filepath.Join(e.path(), "complete") }

// ensure makes the environment unless it is there. A lock keeps two processes
// from making the same one; what an interrupted one left is removed first.
func (e environment) ensure(ctx context.Context, say func(string)) error {
	lock, err := os.OpenFile(e.path()+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := flock(ctx, lock, say); err != nil {
		return err
	}
	if _, err := os.Stat(e.complete()); err == nil {
		return nil
	}
	if err := os.RemoveAll(e.path()); err != nil {
		return err
	}
	began := time.Now()
	if err := e.make(ctx, say); err != nil {
		return errors.Join(err, os.RemoveAll(e.path()))
	}
	if err := os.WriteFile(e.complete(), []byte(strings.Join(e.requirements, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	say(fmt.Sprintf("environment %s ready in %.0f s", e.id(), time.Since(began).Seconds()))
	return nil
}

func flock(ctx context.Context, f *os.File, say func(string)) error {
	for waited := false; ; waited = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil || !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if !waited {
			say("waiting for another process that makes the same environment")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (e environment) make(ctx context.Context, say func(string)) error {
	wanted := "no packages"
	if len(e.requirements) > 0 {
		wanted = strings.Join(e.requirements, ", ")
	}
	list := filepath.Join(e.dir, "environments", e.id()+".txt")
	if err := os.WriteFile(list, []byte(strings.Join(e.requirements, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	uv, err := exec.LookPath("uv")
	var steps [][]string
	if err == nil {
		say(fmt.Sprintf("making Python environment %s with uv: %s", e.id(), wanted))
		steps = append(steps, []string{uv, "venv", "--quiet", "--python", e.python, e.path()})
		if len(e.requirements) > 0 {
			steps = append(steps, []string{uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", e.interpreter(), "-r", list})
		}
	} else {
		say(fmt.Sprintf("making Python environment %s with pip: %s", e.id(), wanted))
		steps = append(steps, []string{e.python, "-m", "venv", e.path()})
		if len(e.requirements) > 0 {
			steps = append(steps, []string{e.interpreter(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "-r", list})
		}
	}
	for _, step := range steps {
		if err := install(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

// install runs one step of an installer in a process group of its own, which is
// killed when the context ends. The user's settings for pip and uv apply.
func install(ctx context.Context, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out := &tail{limit: 4096}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		said := lastLines(out.String(), 3)
		for _, sign := range []string{"NewConnectionError", "Temporary failure in name resolution", "Connection refused", "ConnectTimeoutError", "error sending request", "dns error", "Failed to fetch", "No matching distribution found"} {
			if strings.Contains(out.String(), sign) {
				return fmt.Errorf("the package index could not be reached, or does not have what is asked for: connect to the network, or set PIP_INDEX_URL or PIP_FIND_LINKS, and run again (%s)", said)
			}
		}
		return fmt.Errorf("%s failed: %s", filepath.Base(argv[0]), said)
	}
	return nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
