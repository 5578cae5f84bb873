package environment

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/requirements"
)

type interpreter struct {
	Path    string
	Version string
	Minor   int // of Python 3
	Machine string
	Prefix  string // where it is installed: an environment needs it there
	command string // as it was found: a virtual environment's own pip may have settings
}

// probe prints an interpreter: four fields, each with a NUL at its end, since paths may have any other byte. It runs on
// Python 2 as well. _base_executable is the interpreter itself when this one is a virtual environment's.
const probe = `import sys, os
for field in (getattr(sys, "_base_executable", None) or sys.executable, sys.version.split()[0], os.uname()[4],
        getattr(sys, "base_prefix", sys.prefix)):
    os.write(1, getattr(os, "fsencode", str)(field) + b"\0")`

// findPython returns the interpreter that was asked for, or the first on the
// PATH that is new enough and is what the specifier says, as in ">=3.11,<3.13".
func findPython(ctx context.Context, wanted, specifier string) (interpreter, error) {
	candidates := []string{"python3", "python3.14", "python3.13", "python3.12", "python3.11", "python"}
	if wanted != "" {
		candidates = []string{wanted}
	}
	const remedy = "install Python 3.11 or newer, or name one, then run again"
	found := ""
	for _, name := range candidates {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		cmd := exec.CommandContext(ctx, path, "-S", "-c", probe) // what is installed beside it need not start
		cmd.Env = userEnvironment()
		out, err := cmd.Output()
		if ctx.Err() != nil {
			return interpreter{}, fmt.Errorf("find Python: %w", context.Cause(ctx))
		}
		fields := strings.Split(string(out), "\x00")
		if err != nil || len(fields) != 5 {
			continue // a stub that only tells how to install it
		}
		p := interpreter{Path: fields[0], Version: fields[1], Machine: fields[2], Prefix: fields[3], command: path}
		var major int
		_, _ = fmt.Sscanf(p.Version, "%d.%d", &major, &p.Minor)
		if major == 3 && p.Minor >= requirements.OldestMinor && p.is(specifier) {
			return p, nil
		}
		found = cmp.Or(found, fmt.Sprintf("%s is Python %s", path, p.Version))
	}
	switch {
	case specifier != "":
		return interpreter{}, fmt.Errorf("it requires Python %s and there is none (%s): install one, then run again",
			specifier, found)
	case found != "":
		return interpreter{}, fmt.Errorf("%s, which is too old for the generators: %s", found, remedy)
	case wanted != "":
		return interpreter{}, fmt.Errorf("%s is not a Python that runs: %s", wanted, remedy)
	}
	return interpreter{}, errors.New("there is no python3 on the PATH: " + remedy)
}

// is reports whether the interpreter is what a specifier says; every one is "".
func (p interpreter) is(specifier string) bool { return requirements.Allows(specifier, p.Version) }

// suitable returns an interpreter that a specifier allows: the usual one, one on the
// PATH, or one that uv has or brings in from where it gets them.
func (w *workshop) suitable(ctx context.Context, specifier string) (interpreter, error) {
	if w.python.is(specifier) {
		return w.python, nil
	}
	p, missing := findPython(ctx, "", specifier)
	if missing == nil || ctx.Err() != nil {
		return p, missing
	}
	in, err := w.uv()
	if err != nil {
		return p, err
	}
	env := append(in.settings.environ(), "UV_CACHE_DIR="+in.cacheDir(), "UV_PYTHON_INSTALL_DIR="+filepath.Join(w.dir,
		"python"))
	if _, err := run(ctx, w.dir, []string{in.uv, "python", "install", "--no-bin", specifier}, env,
		func(string) {}); err != nil {
		return p, cmp.Or(context.Cause(ctx), missing)
	}
	cmd := exec.CommandContext(ctx, in.uv, "python", "find", "--no-project", "--managed-python", specifier)
	cmd.Dir, cmd.Env = w.dir, env
	out, err := cmd.Output()
	if err != nil {
		return p, cmp.Or(context.Cause(ctx), missing)
	}
	return findPython(ctx, strings.TrimSpace(string(out)), specifier)
}

// Interpreter finds the Python that environments are made from, and its version. The error says what to install.
func Interpreter(ctx context.Context) (path, version string, err error) {
	p, err := findPython(ctx, "", "")
	return p.Path, p.Version, err
}

// installer puts packages into environments: uv, which links what they share from one cache, where pip copies it.
type installer struct {
	uv       string
	cache    string // on the disk of the environments: what it holds is linked into them
	settings settings
}

// UVRelease is the uv that is brought in where the PATH has none that is as new, of
// the same minor version: hashedBuild is an option that may change with the next.
const UVRelease = "0.13.9"

// newInstaller finds uv on the PATH, or brings it in with pip from the package index.
func newInstaller(ctx context.Context, dir string, python interpreter, say func(Event)) (installer, error) {
	in := installer{cache: filepath.Join(dir, "cache")}
	var err error
	if in.settings, err = pipSettings(ctx, python.command); err != nil {
		return in, err
	}
	if in.uv = uvOnPath(ctx); in.uv != "" {
		return in, nil
	}
	own := filepath.Join(dir, "installer")
	if err := os.MkdirAll(own, 0o755); err != nil {
		return in, fmt.Errorf("bring in uv: %w", err)
	}
	e := environment{id: "uv-" + UVRelease, path: filepath.Join(own, "uv-"+UVRelease), python: python,
		requirements: []string{"uv==" + UVRelease}}
	err = e.ensure(ctx, func(stage Stage, detail string) { say(Event{Environment: e.id, Stage: stage, Detail: detail}) },
		func(line func(string)) error { return e.installUV(ctx, in.settings, line) })
	in.uv = filepath.Join(e.path, "bin", "uv")
	return in, err
}

func uvOnPath(ctx context.Context) string {
	path, err := exec.LookPath("uv")
	if err != nil {
		return ""
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	release := func(text string) (n [3]int) {
		_, _ = fmt.Sscanf(text, "%d.%d.%d", &n[0], &n[1], &n[2])
		return n
	}
	is, oldest := release(strings.TrimPrefix(string(out), "uv ")), release(UVRelease)
	if err != nil || slices.Compare(is[:], oldest[:]) < 0 || !slices.Equal(is[:2], oldest[:2]) {
		return "" // an older one would take no notice of some of its variables
	}
	return path
}

// installUV makes an environment that has pip, and with it uv.
func (e environment) installUV(ctx context.Context, from settings, say func(string)) error {
	out, err := run(ctx, "", []string{e.python.Path, "-m", "venv", e.path}, userEnvironment(), say)
	if err != nil && strings.Contains(out, "ensurepip") {
		return fmt.Errorf("%w: %s has no ensurepip: install python3-venv or uv %s, then run again", errNoUV,
			e.python.Path, UVRelease)
	}
	if err == nil {
		argv := slices.Concat([]string{e.interpreter(), "-m", "pip", "install", "--disable-pip-version-check", "--no-input",
			"--progress-bar", "off", "--only-binary", ":all:"}, e.requirements)
		out, err = run(ctx, e.path, argv, from.environ(), say)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w (%s): connect to the network, set PIP_INDEX_URL / PIP_FIND_LINKS or put uv %s on the "+
			"PATH, then run again", errNoUV, cmp.Or(reasonIn(out), err.Error()), UVRelease)
	}
	return err
}

// install makes the environment and proves that what it was made for can be imported. The error tells a way out.
func (e environment) install(ctx context.Context, w *workshop, say func(string)) error {
	// Without pip: nothing needs it, and it takes seconds. -S: neither is what is installed beside the interpreter.
	if _, err := run(ctx, "", []string{e.python.Path, "-S", "-m", "venv", "--without-pip", e.path}, userEnvironment(),
		say); err != nil {
		return fmt.Errorf("make a Python environment with %s: %w", e.python.Path, err)
	}
	if e.lock.text == nil {
		return nil
	}
	in, err := w.uv()
	if err != nil {
		return err
	}
	settings, lines := in.settings.with(e.requirements)
	if lines, err = e.ownSource(lines, e.source()); err != nil {
		return err
	}
	var installed []string
	note := func(line string) {
		m := installedPattern.FindStringSubmatch(line)
		asked := func(line string) bool { return requirements.PlainName(line) == requirements.PlainName(m[1]) }
		if m != nil && (m[2] != "" || slices.ContainsFunc(lines, asked)) {
			installed = append(installed, requirements.PlainName(m[1]))
		}
		say(line)
	}
	// The lock is complete: nothing is resolved, whatever the index has by now.
	hashed, others, build := e.lock.files()
	own := ownLines(lines, e.source())
	buildList := filepath.Join(e.path, "build.txt")
	if err := os.WriteFile(buildList, []byte(build), 0o644); err != nil {
		return fmt.Errorf("make a Python environment: %w", err)
	}
	for _, part := range []struct{ text, flag string }{{hashed, "--require-hashes"},
		{strings.Join(append(own, others), "\n"), "--no-verify-hashes"}} {
		if strings.TrimSpace(part.text) == "" {
			continue
		}
		list := filepath.Join(e.path, requirements.File)
		if err := os.WriteFile(list, []byte(part.text+"\n"), 0o644); err != nil {
			return fmt.Errorf("make a Python environment: %w", err)
		}
		argv := []string{in.uv, "pip", "install", "--color", "never", "--python", e.interpreter(), "--no-deps", part.flag,
			"-r", list}
		argv = append(argv, hashedBuild(buildList)...)
		if settings.on("no-index") {
			argv = append(argv, "--no-index")
		}
		// Not in the generator's folder: a pyproject.toml there may have settings for uv.
		out, err := run(ctx, e.path, argv, append(settings.environ(), "UV_CACHE_DIR="+in.cacheDir()), note)
		if err != nil && ctx.Err() != nil {
			return err
		}
		if err != nil {
			return installError(e.lock.path, out, err)
		}
	}
	// Once, here, and not in every chunk. Files that no Python 3 compiles lie in
	// some packages; what cannot be compiled is compiled when it is imported.
	compile := []string{e.interpreter(), "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash",
		filepath.Join(e.path, "lib"), e.source()}
	_, _ = run(ctx, e.path, compile, userEnvironment(), func(string) {})
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return e.prove(ctx, installed)
}

// installedPattern is what uv says of a package: its name, and where it is from if that is no index.
var installedPattern = regexp.MustCompile(`^\+ ([A-Za-z0-9._-]+)==\S+( \(from .*\))?$`)

// source is the environment's copy of the generator's folder.
func (e environment) source() string { return filepath.Join(e.path, "source") }

// ownSource copies the generator's folder to another if packages of it are required, and returns the lines with the
// copy in its place. Whoever builds a package writes into its source, and an editable one is used from there.
func (e environment) ownSource(lines []string, to string) ([]string, error) {
	changed := false
	lines = slices.Clone(lines)
	for i, line := range lines {
		lines[i] = ownFolder(e.of).ReplaceAllString(line, "${1}"+strings.ReplaceAll(to, "$", "$$")+"${2}")
		changed = changed || lines[i] != line
	}
	if !changed {
		return lines, nil
	}
	if err := os.CopyFS(to, os.DirFS(e.of)); err != nil {
		return nil, fmt.Errorf("copy the packages of %s: %w", e.of, err)
	}
	return lines, nil
}

func urlPath(path string) string { return (&url.URL{Path: path}).EscapedPath() }

// cacheDir is uv's cache: on the disk of the environments, unless the user has another one.
func (in installer) cacheDir() string { return cmp.Or(os.Getenv("UV_CACHE_DIR"), in.cache) }

// errNoIndex says that packages could not be looked for, which may be otherwise in
// a minute. That an index has no such package is another matter.
var errNoIndex = errors.New("no package index could be reached")

// errNoUV says that there is no installer, for whatever reason.
var errNoUV = errors.New("uv, which installs packages, could not be brought in")

// What uv prints if no index answers now. An answer that a package is not there or not allowed is none of these.
var networkPattern = regexp.MustCompile(`(?i)error sending request|error decoding response body|` +
	`request or response body error|dns error|tcp connect error|operation timed out|` +
	`HTTP status server error|HTTP status client error \(4(?:08|29)`)

// reasonIn is the last error that an installer has printed, or its last line.
func reasonIn(out string) (reason string) {
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		for _, mark := range []string{"ERROR: ", "error: ", "cause: ", "╰─▶ "} {
			if rest, ok := strings.CutPrefix(line, mark); ok {
				reason = rest
			}
		}
	}
	return cmp.Or(reason, generator.LastLine(out))
}

// installError is one sentence about what uv printed: what failed, and the way out.
func installError(file, out string, err error) error {
	reason := cmp.Or(reasonIn(out), fmt.Sprint(err))
	if unlockedPattern.MatchString(out) {
		reason = "a package has no wheel for this Python and machine, and the lock has nothing that builds it (" + reason +
			"): use a Python that it has wheels for, or lock it anew on this machine (ops generators lock NAME --update)"
	}
	if networkPattern.MatchString(out) {
		return fmt.Errorf("install %s: %w (%s): connect to the network or set PIP_INDEX_URL / PIP_FIND_LINKS, then run again",
			file, errNoIndex, reason)
	}
	return fmt.Errorf("install %s: %s", file, reason)
}

// installerTail is how much of an installer's output is searched, from its end, for the reason of its failure.
const installerTail = 16 << 10

// run runs one step of an installer in a process group of its own, which is
// killed whole when the context ends: what it leaves behind is thrown away.
func run(ctx context.Context, dir string, argv, env []string, say func(string)) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second // for a descendant that left the group and holds the pipe
	out := &lineWriter{Tail: generator.Tail{Limit: installerTail}, say: say}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if ctx.Err() != nil {
		return out.String(), context.Cause(ctx)
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", filepath.Base(argv[0]), err, generator.LastLine(out.String()))
	}
	return out.String(), nil
}

// lineWriter keeps the tail and hands on complete lines.
type lineWriter struct {
	generator.Tail
	say  func(string)
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		end := bytes.IndexByte(w.rest, '\n')
		if end < 0 {
			w.rest = w.rest[:min(len(w.rest), installerTail)]
			return w.Tail.Write(p)
		}
		if line := strings.TrimSpace(string(w.rest[:end])); line != "" {
			w.say(strings.ToValidUTF8(line, "?"))
		}
		w.rest = w.rest[end+1:]
	}
}
