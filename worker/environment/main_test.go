package environment

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator/generatortest"
)

func TestMain(m *testing.M) {
	generator.Main()
	os.Exit(m.Run())
}

// python is the interpreter on the PATH itself, not a shim that starts it, which takes
// longer than most tests.
func python(t *testing.T) string {
	t.Helper()
	p, err := usual()
	if err != nil {
		t.Skip(err)
	}
	return p.Path
}

var usual = sync.OnceValues(func() (interpreter, error) { return findPython(context.Background(), "", "") })

const preamble = generatortest.Preamble

var (
	write = generatortest.Write
	git   = generatortest.Git
)

// saved reads what a generator saved under a name.
func saved[T any](t *testing.T, r generator.Result, name string) T {
	t.Helper()
	return generatortest.Saved[T](t, r.Output, name)
}
