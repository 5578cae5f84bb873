package environment

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator/generatortest"
)

func TestMain(m *testing.M) {
	// The interpreter itself, not a shim that starts it: that takes longer than most tests.
	if p, err := usual(); err == nil {
		if err := os.Setenv("PATH", filepath.Dir(p.Path)+string(filepath.ListSeparator)+os.Getenv("PATH")); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// python is the interpreter on the PATH.
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
