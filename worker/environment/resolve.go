package environment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/requirements"
)

type resolver struct {
	environment
	in       installer
	settings settings
	scratch  string   // a folder for it alone
	source   string   // copy of the generator's folder, if packages of it are required
	lines    []string // the requirements
	exclude  []string // options that say as of when
	say      func(string)
}

func (e environment) newResolver(in installer, say func(string)) (*resolver, error) {
	scratch, err := os.MkdirTemp("", "lock-")
	if err != nil {
		return nil, err
	}
	r := &resolver{environment: e, in: in, scratch: scratch, source: filepath.Join(scratch, "source"), say: say}
	r.settings, r.lines = in.settings.with(e.requirements)
	if r.lines, err = e.ownSource(r.lines, r.source); err != nil {
		os.RemoveAll(scratch)
		return nil, err
	}
	return r, nil
}

func (r *resolver) uv(ctx context.Context, lines []string, command string, options ...string) (out string, err error) {
	list := filepath.Join(r.scratch, requirements.File)
	if err := os.WriteFile(list, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return "", err
	}
	argv := slices.Concat([]string{r.in.uv, "pip", command, "--color", "never", "--python", r.python.Path}, options)
	if r.settings.on("no-index") {
		argv = append(argv, "--no-index")
	}
	if command == "install" {
		argv = append(argv, "-r")
	}
	return run(ctx, r.scratch, append(argv, list), append(r.settings.environ(), "UV_CACHE_DIR="+r.in.cacheDir()), r.say)
}

// lowest is the option with the lowest Python that the requirements are for.
func (r *resolver) lowest() string {
	return fmt.Sprintf("--python-version=3.%d", requirements.LowestMinor(r.specifier))
}

func (r *resolver) resolve(ctx context.Context, lines []string) (string, error) {
	to := filepath.Join(r.scratch, "resolved.txt")
	out, err := r.uv(ctx, lines, "compile",
		append([]string{"--universal", r.lowest(), "--generate-hashes", "--no-header", "--no-annotate", "--quiet",
			"--output-file", to}, r.exclude...)...)
	if err != nil && ctx.Err() == nil {
		return "", installError(r.file, out, err)
	}
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(to)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", r.file, err)
	}
	return string(text), nil
}

// platforms are those of the workers: what has no wheel for one of them is built there.
var platforms = []string{"x86_64-manylinux_2_28", "aarch64-manylinux_2_28"}

// buildTime is how long one package may take to be built here. What builds it is known when that begins.
const buildTime = 2 * time.Minute

// hashedBuild are the options by which uv builds with what a file has, and with nothing else.
func hashedBuild(file string) []string {
	return []string{"--preview-features", "build-dependency-hashes", "--require-build-hashes", "--build-constraints", file}
}

var (
	wheellessPattern = regexp.MustCompile(`([A-Za-z0-9._-]+)==\S+ has no usable wheels`)
	unlockedPattern  = regexp.MustCompile(
		"no trusted hash was provided|all requirements must have their versions pinned with `==`")
	buildPattern = regexp.MustCompile("(?m)No solution found when resolving: (`.*`)$")
)

// addBuilders adds what builds those packages of a lock that have no wheel for one of the platforms, and those that are
// no files of an index. No package says what its build requires before it is built; so they are, with nothing but what
// is known, until nothing more is asked for.
func (r *resolver) addBuilders(ctx context.Context, l lock) (lock, error) {
	hashed, others, _ := l.files()
	wheelless, err := r.wheelless(ctx, slices.Collect(entries([]byte(hashed))))
	if err != nil {
		return l, err
	}
	var requires []string
	tools := ""
	list := filepath.Join(r.scratch, "build.txt")
	build := func(lines []string, options ...string) error {
		for {
			if err := os.WriteFile(list, []byte(tools), 0o644); err != nil {
				return err
			}
			limited, cancel := context.WithTimeout(ctx, buildTime)
			out, err := r.uv(limited, lines, "install",
				slices.Concat([]string{"--no-deps", "--reinstall", "--target", filepath.Join(r.scratch, "built")},
					hashedBuild(list), r.exclude, options)...)
			cancel()
			asks := buildPattern.FindStringSubmatch(out)
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case err == nil:
				return nil
			case errors.Is(installError(r.file, out, err), errNoIndex):
				return installError(r.file, out, err)
			case asks == nil || !unlockedPattern.MatchString(out):
				return nil // it cannot be built here, where it may have a wheel: what builds it is known
			}
			known := len(requires)
			for _, line := range strings.Split(strings.Trim(asks[1], "`"), "`, `") {
				if !slices.Contains(requires, line) {
					requires = append(requires, line)
				}
			}
			if len(requires) == known {
				return installError(r.file, out, err)
			}
			if tools, err = r.resolve(ctx, requires); err != nil {
				return err
			}
		}
	}
	for _, entry := range wheelless {
		if err := build([]string{entry}, "--no-binary", requirements.PlainName(entry), "--require-hashes"); err != nil {
			return l, err
		}
	}
	if rest := append(ownLines(r.lines, r.source), slices.Collect(entries([]byte(others)))...); len(rest) > 0 {
		if err := build(rest, "--no-verify-hashes"); err != nil {
			return l, err
		}
		wheelless = append(wheelless, rest...)
	}
	if tools != "" {
		var names []string
		for _, entry := range wheelless {
			names = append(names, cmp.Or(requirements.PlainName(entry), "its own package"))
		}
		l.text = append(l.text, builders+strings.Join(names, ", ")+":\n"+tools...)
	}
	return l, nil
}

// wheelless are the entries of packages that have no wheel for one of the platforms.
func (r *resolver) wheelless(ctx context.Context, all []string) (list []string, err error) {
	for _, platform := range platforms {
		rest := slices.Clone(all)
		for {
			out, err := r.uv(ctx, rest, "compile",
				append([]string{"--no-deps", "--only-binary=:all:", "--python-platform", platform, r.lowest(), "--quiet"},
					r.exclude...)...)
			if err == nil {
				break
			}
			known := len(rest)
			for _, m := range wheellessPattern.FindAllStringSubmatch(out, -1) {
				name := requirements.PlainName(m[1])
				rest = slices.DeleteFunc(rest, func(entry string) bool { return requirements.PlainName(entry) == name })
			}
			if len(rest) == known {
				if ctx.Err() != nil {
					return nil, err
				}
				return nil, installError(r.file, out, err)
			}
		}
		for _, entry := range all {
			if !slices.Contains(rest, entry) && !slices.Contains(list, entry) {
				list = append(list, entry)
			}
		}
	}
	return list, nil
}

// ownLines are the lines of the packages in a generator's own folder.
func ownLines(lines []string, source string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		return !strings.Contains(line, source) || strings.HasPrefix(line, "-c ")
	})
}

// settings say where packages come from: pip's options by name, values of lists separated by spaces. The installer
// reads them in its own way; they are the same wherever a user has put them: pip's configuration files, PIP_*
// variables, uv's own variables, requirements files, each overriding the one before.
type settings map[string]string

// option is an option of pip that counts, and what uv calls it; without variables, uv is told in its requirements file.
type option struct {
	name, also string   // of pip
	variables  []string // of uv; the first is set, all are read
	separator  string   // of a list in uv's variable
	on         string   // value of uv's variable for a flag that is set
}

var options = []option{
	{name: "index-url", variables: []string{"UV_DEFAULT_INDEX", "UV_INDEX_URL"}},
	{name: "extra-index-url", variables: []string{"UV_INDEX", "UV_EXTRA_INDEX_URL"}, separator: " "},
	{name: "find-links", variables: []string{"UV_FIND_LINKS"}, separator: ","},
	{name: "no-index", on: "true"},
	{name: "trusted-host", variables: []string{"UV_INSECURE_HOST"}, separator: " "},
	{name: "constraint"},
	{name: "pre", variables: []string{"UV_PRERELEASE"}, on: "allow"},
	{name: "timeout", also: "default-timeout", variables: []string{"UV_HTTP_TIMEOUT"}},
	{name: "retries", variables: []string{"UV_HTTP_RETRIES"}},
	{name: "cert", variables: []string{"SSL_CERT_FILE"}},
	{name: "client-cert", variables: []string{"SSL_CLIENT_CERT"}},
	{name: "proxy", variables: []string{"ALL_PROXY"}},
}

var configPattern = regexp.MustCompile(`(?m)^(global|install)\.([a-z-]+)=['"](.*)['"]\r?$`)

// pipSettings asks the first of the Pythons that has pip for its configuration, and adds what the environment says.
func pipSettings(ctx context.Context, pythons ...string) settings {
	config := map[string]string{}
	for _, python := range pythons {
		cmd := exec.CommandContext(ctx, python, "-m", "pip", "config", "list", "--disable-pip-version-check")
		cmd.Env = userEnvironment()
		out, err := cmd.Output()
		if err != nil {
			continue
		}
		unquote := strings.NewReplacer(`\n`, " ", `\\`, `\`, `\'`, `'`) // what Python's repr has done
		for _, section := range []string{"global", "install"} {         // the second overrides the first
			for _, m := range configPattern.FindAllStringSubmatch(string(out), -1) {
				if value := strings.TrimSpace(unquote.Replace(m[3])); m[1] == section && value != "" {
					config[m[2]] = value
				}
			}
		}
		break
	}
	s := settings{"retries": "1"} // five for each package are minutes without a network
	for _, o := range options {
		s.set(o.name, config[o.also])
		s.set(o.name, config[o.name])
		for _, name := range []string{o.also, o.name} {
			s.set(o.name, os.Getenv("PIP_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))))
		}
		for _, name := range slices.Backward(o.variables) {
			value := os.Getenv(name)
			if o.separator != "" {
				value = strings.ReplaceAll(value, o.separator, " ")
			}
			if strings.HasPrefix(name, "UV_") && (o.on == "" || o.on == value) {
				s.set(o.name, value)
			}
		}
	}
	return s
}

// set changes an option unless the value is empty, as pip does.
func (s settings) set(name, value string) {
	if value = strings.Join(strings.Fields(value), " "); value != "" {
		s[name] = value
	}
}

var variablePattern = regexp.MustCompile(`\$\{[A-Z0-9_]+\}`)

// with returns the settings as the options in requirements files change them, as they do with pip, and the lines
// without those. uv would prefer its variables to the files' --index-url and take no notice of --trusted-host.
func (s settings) with(lines []string) (settings, []string) {
	all, rest := maps.Clone(s), []string{}
	for _, line := range lines {
		option, value := requirements.CutOption(line)
		value = variablePattern.ReplaceAllStringFunc(value, func(v string) string {
			if is, ok := os.LookupEnv(v[2 : len(v)-1]); ok {
				return is
			}
			return v
		})
		switch option {
		case "-i", "--index-url", "--pypi-url":
			all.set("index-url", value)
		case "--extra-index-url", "--trusted-host":
			all.set(option[2:], all[option[2:]]+" "+value)
		case "-f", "--find-links":
			all.set("find-links", all["find-links"]+" "+value)
		case "--no-index", "--pre":
			all.set(option[2:], "true")
		case "--prefer-binary", "--use-feature": // of pip alone
		default:
			rest = append(rest, line)
		}
	}
	if all.on("no-index") {
		rest = append(rest, "--no-index")
	}
	for file := range strings.FieldsSeq(all["constraint"]) {
		rest = append(rest, "-c "+file)
	}
	return all, rest
}

// on reports whether a flag is set, in pip's words.
func (s settings) on(name string) bool {
	return s[name] != "" && !slices.Contains([]string{"0", "false", "no", "off", "n", "f"}, strings.ToLower(s[name]))
}

func (s settings) variables() []string {
	env := []string{"PIP_CONFIG_FILE=" + os.DevNull, "PIP_USER=0"} // s has what the files say
	for _, o := range options {
		value := s[o.name]
		if value == "" || o.on != "" && !s.on(o.name) {
			continue
		}
		env = append(env, "PIP_"+strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))+"="+value)
		switch {
		case o.on != "":
			value = o.on
		case o.separator != "":
			value = strings.ReplaceAll(value, " ", o.separator)
		case o.name == "proxy":
			if !strings.Contains(value, "://") {
				value = "http://" + value
			}
			for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
				env = append(env, name+"="+value)
			}
		}
		if o.variables != nil {
			env = append(env, o.variables[0]+"="+value)
		}
	}
	if os.Getenv("UV_INDEX_STRATEGY") == "" { // pip takes the best of all indexes, too
		env = append(env, "UV_INDEX_STRATEGY=unsafe-best-match")
	}
	return env
}

// userEnvironment is the user's environment without what would lead an installer to another place, and without
// credentials that are no business of a package's setup.py.
func userEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains([]string{"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__",
			"UV_SYSTEM_PYTHON"}, name) ||
			strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "PULUMI_")
	})
}

// environ is the environment of an installer: the user's, with these settings in the place of what it says of packages.
func (s settings) environ() []string {
	env := slices.DeleteFunc(userEnvironment(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return strings.HasPrefix(name, "PIP_") && name != "PIP_CACHE_DIR" || name == "UV_INDEX_URL" ||
			name == "UV_EXTRA_INDEX_URL"
	})
	return append(env, s.variables()...) // of two values of a variable the last counts
}
