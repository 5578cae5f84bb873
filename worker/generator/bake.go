package generator

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
)

// CopyRequirements makes folders in dir that are to a Builder what those in root
// are, as far as environments go: the requirements of each generator and an empty
// program. An image's environments are made from them, so that they stay as they
// are when a program changes. Requirements that lie in a generator's folder are
// left out; their environments need that folder. It fails for a generator that has
// a Problem.
func CopyRequirements(root, dir string) error {
	list, err := Discover(root)
	if err != nil {
		return err
	}
	for _, g := range list {
		if g.Problem != "" {
			return fmt.Errorf("generator %s: %s", g.Name, g.Problem)
		}
		if slices.ContainsFunc(g.Requirements, func(line string) bool { return strings.Contains(line, g.Dir) }) {
			continue
		}
		to := filepath.Join(dir, g.Name)
		if err := os.MkdirAll(filepath.Join(to, filepath.Dir(DefaultEntry)), 0o755); err != nil {
			return err
		}
		if err := errors.Join(
			os.WriteFile(filepath.Join(to, DefaultEntry), nil, 0o644),
			os.WriteFile(filepath.Join(to, requirementsFile), []byte(strings.Join(g.Requirements, "\n")+"\n"), 0o644),
		); err != nil {
			return err
		}
	}
	return nil
}

//go:embed imports.py
var importAll string

// CheckImports imports every module of the environments of those ids. The error
// names each module that cannot be imported, its environment and generators.
func (x *Index) CheckImports(ctx context.Context, environments []string) error {
	home, err := os.MkdirTemp("", "imports-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	var failed error
	for _, id := range environments {
		var names []string
		python := ""
		for _, g := range x.Generators {
			if g.Environment == id {
				names, python = append(names, g.Name), g.Python
			}
		}
		cmd := exec.CommandContext(ctx, python, "-I", "-c", importAll)
		cmd.Env = []string{"PATH=" + filepath.Dir(python) + ":/usr/local/bin:/usr/bin:/bin", "HOME=" + home, "TMPDIR=" + home, "LANG=C.UTF-8", "MPLBACKEND=Agg"}
		said := &tail{limit: tailSize}
		cmd.Stderr = said
		out, err := cmd.Output()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		module := ""
		refuse := func(reason string) {
			failed = errors.Join(failed, fmt.Errorf("environment %s of %s: import %s: %s", id, strings.Join(names, ", "), module, reason))
		}
		for line := range strings.Lines(string(out)) {
			if reason, ok := strings.CutPrefix(line, "! "); ok {
				refuse(strings.TrimSpace(reason))
			} else {
				module = strings.TrimSpace(line)
			}
		}
		if err != nil { // the interpreter itself died, in the last module
			refuse(fmt.Sprintf("%v: %s", err, lastLine(said.String())))
		}
	}
	return failed
}
