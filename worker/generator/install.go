package generator

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The oldest Python the generators are written for is 3.11.
const oldestMinor = 11

// interpreter is a Python that environments are made from.
type interpreter struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Minor   int    `json:"minor"` // of Python 3; 0 for Python 2
	Machine string `json:"machine"`
	Prefix  string `json:"prefix"` // where it is installed: an environment needs it there
}

// probe prints an interpreter. It runs on Python 2 as well. _base_executable is
// the interpreter itself when this one is a virtual environment's.
const probe = `import sys, json, platform
print(json.dumps({"path": getattr(sys, "_base_executable", None) or sys.executable, "version": platform.python_version(),
"minor": sys.version_info[1] if sys.version_info[0] == 3 else 0, "machine": platform.machine(), "prefix": getattr(sys, "base_prefix", sys.prefix)}))`

// findPython returns the interpreter that was asked for, or the first on the
// PATH that is new enough.
func findPython(ctx context.Context, asked string) (interpreter, error) {
	candidates := []string{"python3", "python3.14", "python3.13", "python3.12", "python3.11", "python"}
	if asked != "" {
		candidates = []string{asked}
	}
	const remedy = "install Python 3.11 or newer, or name one, then run again"
	found := ""
	for _, name := range candidates {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		cmd := exec.CommandContext(ctx, path, "-c", probe)
		cmd.Env = installerEnvironment(nil)
		out, err := cmd.Output()
		if ctx.Err() != nil {
			return interpreter{}, fmt.Errorf("look for Python: %w", context.Cause(ctx))
		}
		var p interpreter
		if err != nil || json.Unmarshal(out, &p) != nil {
			continue // a stub that only tells how to install it
		}
		if p.Minor >= oldestMinor {
			return p, nil
		}
		if found == "" {
			found = fmt.Sprintf("%s is Python %s", path, p.Version)
		}
	}
	switch {
	case found != "":
		return interpreter{}, fmt.Errorf("%s, which is too old for the generators: %s", found, remedy)
	case asked != "":
		return interpreter{}, fmt.Errorf("%s is not a Python that runs: %s", asked, remedy)
	}
	return interpreter{}, errors.New("there is no python3 on the PATH: " + remedy)
}

// Interpreter finds the Python that environments are made from, and its version.
// The error says what to install.
func Interpreter(ctx context.Context) (path, version string, err error) {
	p, err := findPython(ctx, "")
	return p.Path, p.Version, err
}

// installer puts packages into environments: uv, or pip where uv is "".
type installer struct {
	uv    string
	cache string   // of uv, on the disk of the environments: what it holds is linked into them
	also  []string // what pip's configuration files say, as variables: uv reads none
}

// uvRequirement is the uv that is brought in where there is none on the PATH.
const uvRequirement = "uv==0.13.9"

// chooseInstaller returns uv where it is on the PATH, and else pip while there is
// one environment to make. From the second on it brings uv in: environments share
// most of their packages, of which pip puts a copy into each. The seven
// requirement sets of the catalogue are 2.1 GB with pip in 129 s, 0.7 GB with uv
// in 19 s. Where uv cannot be had, pip does it.
func chooseInstaller(ctx context.Context, dir string, python interpreter, groups []members, wanted func(members) bool, say func(Event)) (installer, error) {
	in := installer{cache: filepath.Join(dir, "cache")}
	if path, err := exec.LookPath("uv"); err == nil {
		in.uv = path
		return in, nil
	}
	sets, missing := 0, 0
	for _, m := range groups {
		if len(m.environment.requirements) > 0 {
			sets++
			if wanted(m) && !m.environment.whole() {
				missing++
			}
		}
	}
	if sets < 2 || missing == 0 {
		return in, nil
	}
	own := filepath.Join(dir, "installer")
	if err := os.MkdirAll(filepath.Join(own, "environments"), 0o755); err != nil {
		return in, fmt.Errorf("build environments: %w", err)
	}
	e := newEnvironment(own, python, &Generator{Dir: own, Requirements: []string{uvRequirement}})
	tell := func(stage Stage, detail string) { say(Event{Environment: e.id, Stage: stage, Detail: detail}) }
	switch err := e.ensure(ctx, installer{}, false, tell); {
	case ctx.Err() != nil:
		return in, fmt.Errorf("build environments: %w", context.Cause(ctx))
	case err != nil:
		tell(Failed, err.Error()+"; going on with pip, which needs more disk and time")
		return in, nil
	}
	in.uv = filepath.Join(e.path, "bin", "uv")
	in.also = pipSettings(ctx, e.interpreter())
	return in, nil
}

var pipSettingPattern = regexp.MustCompile(`(?m)^(?:global|install)\.(index-url|extra-index-url|find-links|no-index|cert)=(.*)$`)

// pipSettings returns what pip's configuration files say of where packages come
// from, as the variables that mean the same.
func pipSettings(ctx context.Context, python string) (list []string) {
	cmd := exec.CommandContext(ctx, python, "-m", "pip", "config", "list", "--disable-pip-version-check")
	cmd.Env = installerEnvironment(nil)
	out, err := cmd.Output()
	if err != nil {
		return nil // then there is none that it can read
	}
	for _, m := range pipSettingPattern.FindAllStringSubmatch(string(out), -1) {
		value := strings.Join(strings.Fields(strings.ReplaceAll(strings.Trim(m[2], `'"`), `\n`, " ")), " ")
		list = append(list, "PIP_"+strings.ToUpper(strings.ReplaceAll(m[1], "-", "_"))+"="+value)
	}
	return list
}

// install makes the environment. The error is one sentence with the way out.
func (e environment) install(ctx context.Context, in installer, say func(string)) error {
	run := func(argv []string, say func(string)) (string, error) {
		return run(ctx, e.of, argv, installerEnvironment(slices.Concat(in.also, []string{"UV_CACHE_DIR=" + in.cache})), say)
	}
	venv := []string{e.python.Path, "-m", "venv", e.path}
	switch {
	case in.uv != "":
		venv = []string{in.uv, "venv", "--quiet", "--python", e.python.Path, e.path}
	case len(e.requirements) == 0:
		venv = []string{e.python.Path, "-m", "venv", "--without-pip", e.path}
	}
	if out, err := run(venv, say); err != nil {
		if strings.Contains(out, "ensurepip") {
			return fmt.Errorf("make a Python environment with %s: it has no ensurepip: install python3-venv or uv, then run again", e.python.Path)
		}
		return fmt.Errorf("make a Python environment with %s: %w", e.python.Path, err)
	}
	if len(e.requirements) == 0 {
		return nil
	}
	list := filepath.Join(e.path, requirementsFile)
	if err := os.WriteFile(list, []byte(strings.Join(e.requirements, "\n")+"\n"), 0o644); err != nil {
		return fmt.Errorf("make a Python environment: %w", err)
	}
	log := filepath.Join(e.path, "pip.log")
	install := []string{e.interpreter(), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--log", log, "-r", list}
	if in.uv != "" {
		install = []string{in.uv, "pip", "install", "--python", e.interpreter(), "-r", list}
	}
	out, err := run(install, say)
	if err != nil && ctx.Err() != nil {
		return err
	}
	if err != nil {
		return installError(filepath.Join(e.of, requirementsFile), out, unfetched(log))
	}
	_ = os.Remove(log)
	// Once, here, and not in every chunk. Files that no Python 3 compiles lie in
	// some packages; what cannot be compiled is compiled when it is imported.
	_, _ = run([]string{e.interpreter(), "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", filepath.Join(e.path, "lib")}, func(string) {})
	return context.Cause(ctx)
}

// unfetched is what pip could not get, which it tells its log alone: an index that
// is broken looks on its output like one that has no such package.
func unfetched(log string) string {
	text, _ := os.ReadFile(log) // uv writes none
	var list []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "Could not fetch URL") {
			list = append(list, line)
		}
	}
	return strings.Join(list, "")
}

// errNoIndex says that packages could not be looked for, which may be otherwise in
// a minute. That an index has no such package is another matter.
var errNoIndex = errors.New("no package index could be reached")

// What pip and uv say when no index answers, or one that cannot now. An answer
// that something is not there or not allowed is none of these.
var networkPattern = regexp.MustCompile(`NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|SSLError|ProtocolError|IncompleteRead|` +
	`Connection refused|Temporary failure in name resolution|Name or service not known|Network is unreachable|No route to host|` +
	`too many \d+ error responses|5\d\d Server Error|4(?:08|29) Client Error|HTTP status server error|HTTP status client error \(4(?:08|29)|` +
	`(?i:error sending request|error decoding response body|request or response body error|dns error|tcp connect error|operation timed out)`)

// installError says in one sentence what failed and what to do. It reads what the
// installer has printed and what it could not fetch.
func installError(file, out, unfetched string) error {
	reason := ""
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		for _, mark := range []string{"ERROR: ", "error: ", "cause: ", "╰─▶ "} {
			if rest, ok := strings.CutPrefix(line, mark); ok {
				reason = rest
			}
		}
	}
	if reason == "" {
		reason = lastLine(out)
	}
	if signs := networkPattern.FindString(out + unfetched); signs != "" {
		return fmt.Errorf("install %s: %w (%s; %s): connect to the network or set PIP_INDEX_URL / PIP_FIND_LINKS, then run again", file, errNoIndex, signs, reason)
	}
	return fmt.Errorf("install %s: %s", file, reason)
}

// installerTail is how much of an installer's output is looked at for the reason
// of its failure, which stands at its end.
const installerTail = 16 << 10

// run runs one step of an installer in a process group of its own, which is
// killed whole when the context ends: what it leaves behind is thrown away.
func run(ctx context.Context, dir string, argv, env []string, say func(string)) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second // for a descendant that left the group and holds the pipe
	out := &lineWriter{tail: tail{limit: installerTail}, say: say}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if ctx.Err() != nil {
		return out.String(), context.Cause(ctx)
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", filepath.Base(argv[0]), err, lastLine(out.String()))
	}
	return out.String(), nil
}

// lineWriter keeps the tail and hands on whole lines.
type lineWriter struct {
	tail
	say  func(string)
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		end := bytes.IndexByte(w.rest, '\n')
		if end < 0 {
			w.rest = w.rest[:min(len(w.rest), installerTail)]
			return w.tail.Write(p)
		}
		if line := strings.TrimSpace(string(w.rest[:end])); line != "" {
			w.say(toValid(line))
		}
		w.rest = w.rest[end+1:]
	}
}

// installerEnvironment is the user's environment, in which the settings of pip,
// uv, proxies and certificates are, without what would lead the installer to
// another place and without credentials that are no business of a package's
// setup.py. What also says holds where the user's environment is silent.
func installerEnvironment(also []string) []string {
	drop := []string{"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV"}
	var env []string
	set := map[string]string{}
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if slices.Contains(drop, name) || strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "PULUMI_") {
			continue
		}
		set[name] = value
		env = append(env, variable)
	}
	for _, variable := range also {
		name, value, _ := strings.Cut(variable, "=")
		if _, given := set[name]; !given && value != "" {
			set[name] = value
			env = append(env, variable)
		}
	}
	defaults := []struct{ name, value string }{
		{"PIP_USER", "0"}, // a pip.conf may say otherwise, and an environment refuses it
		// Five retries for each package are minutes without a network.
		{"PIP_RETRIES", "1"}, {"UV_HTTP_RETRIES", "1"},
		// uv does not know pip's variables, and the user need not know which of the two is at work.
		{"UV_DEFAULT_INDEX", cmp.Or(set["UV_INDEX_URL"], set["PIP_INDEX_URL"])}, {"UV_EXTRA_INDEX_URL", set["PIP_EXTRA_INDEX_URL"]},
		{"UV_FIND_LINKS", strings.Join(strings.Fields(set["PIP_FIND_LINKS"]), ",")}, {"UV_NO_INDEX", set["PIP_NO_INDEX"]}, {"SSL_CERT_FILE", set["PIP_CERT"]},
	}
	for _, d := range defaults {
		if _, given := set[d.name]; !given && d.value != "" {
			env = append(env, d.name+"="+d.value)
		}
	}
	return env
}
