package environment

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// Remake makes the environment that a generator had: from the text of a lock, nil where nothing was required, and a
// Python of just this version, on the PATH or from where uv gets them. Where there is none the environment is made from
// the Python that Build would take, as Generator.Version says. The index stays as it is, so workers go on with what
// they have.
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
	w, err := newWorkshop(ctx, b.Dir, b.Python, func(e Event) {
		if b.Progress != nil && e.isProgress() {
			b.Progress(e.String())
		}
	})
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
	say := func(stage Stage, detail string) {
		w.report(Event{Environment: e.id, Generators: m.names(), Stage: stage, Detail: detail})
	}
	if err := e.ensure(ctx, func(say func(string)) error { return e.install(ctx, w, say) }, say); err != nil {
		return nil, err
	}
	m.set("")
	return g, nil
}
