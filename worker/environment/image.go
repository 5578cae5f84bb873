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
// requirements of each generator and an empty program. An image's environments are made from them, so that they stay as
// they are when a program changes. Requirements that lie in a generator's folder are left out; their environments need
// that folder. So are generators that have a Problem: the index says so when the generators themselves are installed.
// Those that download data are in no image.
func CopyRequirements(root, dir string) error {
	list, err := generator.Discover(root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { // also for none of them: the next step of the build reads it
		return err
	}
	for _, g := range list {
		if g.Problem != "" || g.Network {
			continue
		}
		if slices.ContainsFunc(g.Requirements, func(line string) bool { return strings.Contains(line, g.Dir) }) {
			continue
		}
		to := filepath.Join(dir, g.Name)
		if err := os.MkdirAll(filepath.Join(to, filepath.Dir(generator.DefaultEntry)), 0o755); err != nil {
			return err
		}
		if err := errors.Join(
			os.WriteFile(filepath.Join(to, generator.DefaultEntry), nil, 0o644),
			os.WriteFile(filepath.Join(to, requirements.File), []byte(strings.Join(g.Requirements, "\n")+"\n"), 0o644),
		); err != nil {
			return err
		}
		if g.Pythons != "" {
			if err := os.WriteFile(filepath.Join(to, requirements.ProjectFile), fmt.Appendf(nil, "[project]\nrequires-python = %q\n",
				g.Pythons), 0o644); err != nil {
				return err
			}
		}
		l, err := readLock(filepath.Join(root, LocksFolder), LockFile(&g))
		if err == nil && l.text != nil {
			err = errors.Join(os.MkdirAll(filepath.Join(dir, LocksFolder), 0o755),
				os.WriteFile(filepath.Join(dir, LocksFolder, LockFile(&g)), l.text, 0o644))
		}
		if err != nil {
			return err
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
