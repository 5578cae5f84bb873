package environment

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// Remake makes the environment that a generator had: from the text of a lock, nil
// where nothing was required, and a Python of just this version, on the PATH or from
// where uv gets them. Where there is none the environment is made from the Python
// that Build would take, as generator.Generator.Version says. The index stays as it is, so
// workers go on with what they have.
func (b *Builder) Remake(ctx context.Context, name string, text []byte, version string) (*generator.Generator, error) {
	list, err := generator.Discover(b.Root)
	if err != nil {
		return nil, err
	}
	g, err := (&generator.Index{Generators: list}).Find(name)
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
	dir, err := filepath.Abs(b.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "environments"), 0o755); err != nil {
		return nil, fmt.Errorf("make environment: %w", err)
	}
	python, err := findPython(ctx, b.Python, "")
	if err != nil {
		return nil, err
	}
	tell := func(e Event) {
		if b.Progress != nil && e.worthTelling() {
			b.Progress(e.String())
		}
	}
	find := sync.OnceValues(func() (installer, error) { return newInstaller(ctx, dir, python, tell) })
	m := &members{environment: newEnvironment(root, dir, python, g), generators: []*generator.Generator{g}}
	e := &m.environment
	if e.lock = (lock{text: text}); text == nil {
		e.requirements = nil
	} else {
		e.lock.path = "the lock " + e.lock.id()[:12]
	}
	if e.python, err = suitable(ctx, python, "=="+version, dir, find); err != nil && ctx.Err() == nil {
		e.python, err = suitable(ctx, python, e.specifier, dir, find)
	}
	if err != nil {
		return nil, err
	}
	e.identify()
	say := func(stage Stage, detail string) {
		tell(Event{Environment: e.id, Generators: m.names(), Stage: stage, Detail: detail})
	}
	if err := e.ensure(ctx, func(say func(string)) error { return e.install(ctx, find, say) }, say); err != nil {
		return nil, err
	}
	m.set("")
	return g, nil
}
