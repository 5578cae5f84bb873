package environment

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/requirements"
)

// CopyRequirements makes folders in dir that are to a Builder what those in root are, as far as environments go: the
// requirements of each generator and an empty program. An image's environments are made from them, and stay as they are
// when a program changes. Left out are generators whose requirements lie in their folder, those with a Problem, which
// the index names later, and those that download data: they are in no image.
func CopyRequirements(root, dir string) error {
	list, err := generator.Discover(root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { // also for none of them: the next step of the build reads it
		return err
	}
	for _, g := range list {
		local := func(line string) bool { return strings.Contains(line, g.Dir) }
		if g.Problem != "" || g.Network || slices.ContainsFunc(g.Requirements, local) {
			continue
		}
		files := map[string]string{filepath.Join(g.Name, generator.DefaultEntry): "",
			filepath.Join(g.Name, requirements.File): strings.Join(g.Requirements, "\n") + "\n"}
		if g.Pythons != "" {
			files[filepath.Join(g.Name, requirements.ProjectFile)] = fmt.Sprintf("[project]\nrequires-python = %q\n", g.Pythons)
		}
		l, err := readLock(filepath.Join(root, LocksFolder), LockFile(&g))
		if err != nil {
			return err
		}
		if l.text != nil {
			files[filepath.Join(LocksFolder, LockFile(&g))] = string(l.text)
		}
		for name, text := range files {
			path := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
				return err
			}
		}
	}
	return nil
}

//go:embed imports.py
var importProgram string

// importTime is more than any package takes to be imported, on a busy machine too.
const importTime = 5 * time.Minute

// prove imports packages in the environment. The error names each module that
// cannot be imported: they are as bad as one that cannot be installed.
func (e environment) prove(ctx context.Context, packages []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, importTime, fmt.Errorf("importing %s took more than %v",
		strings.Join(packages, ", "), importTime))
	defer cancel()
	home, err := os.MkdirTemp("", "imports-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	cmd := exec.CommandContext(ctx, e.interpreter(), append([]string{"-I", "-c", importProgram}, packages...)...)
	cmd.Env = []string{"PATH=" + filepath.Dir(e.interpreter()) + ":/usr/local/bin:/usr/bin:/bin", "HOME=" + home,
		"TMPDIR=" + home, "LANG=C.UTF-8", "MPLBACKEND=Agg"}
	cmd.Dir = home
	stderr := &generator.Tail{Limit: installerTail}
	cmd.Stderr = stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var failed []string
	module := ""
	for line := range strings.Lines(string(out)) {
		if reason, ok := strings.CutPrefix(line, "! "); ok {
			failed = append(failed, fmt.Sprintf("import %s: %s", module, strings.TrimSpace(reason)))
		} else {
			module = strings.TrimSpace(line)
		}
	}
	if err != nil { // the interpreter itself died, in the last module
		failed = append(failed, fmt.Sprintf("import %s: %v: %s", module, err, generator.LastLine(stderr.String())))
	}
	if failed != nil {
		return errors.New(strings.Join(failed, "; "))
	}
	return nil
}

// Remake makes the environment that a generator had: from the text of a lock, nil where nothing was required, and a
// Python of just this version, on the PATH or from where uv gets them; else from the Python that Build would take, as
// Generator.Version says. The index stays as it is, so workers go on with what they have.
func (b *Builder) Remake(ctx context.Context, name string, text []byte, version string) (*generator.Generator, error) {
	x, err := discover(b.Root, false)
	if err != nil {
		return nil, err
	}
	g, err := x.Find(name)
	if err != nil {
		return nil, err
	}
	if g.Problem != "" {
		return nil, fmt.Errorf("generator %s is not ready: %s", name, g.Problem)
	}
	root, err := filepath.Abs(b.Root)
	if err != nil {
		return nil, err
	}
	w, err := newWorkshop(ctx, b.Dir, b.Python, b.Progress, nil)
	if err != nil {
		return nil, err
	}
	m := &members{environment: newEnvironment(root, w, g), generators: []*generator.Generator{g}}
	e := &m.environment
	if e.lock = (lock{text: text}); text == nil {
		e.requirements = nil
	} else {
		e.lock.path = "the lock " + e.lock.id()[:12]
	}
	if e.python, err = w.suitable(ctx, "=="+version); err != nil && ctx.Err() == nil {
		e.python, err = w.suitable(ctx, e.specifier)
	}
	if err != nil {
		return nil, err
	}
	e.identify()
	if err := e.ensure(ctx, m.say(w), func(line func(string)) error { return e.install(ctx, w, line) }); err != nil {
		return nil, err
	}
	m.set("")
	return g, nil
}
