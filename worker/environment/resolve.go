package environment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
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
