package environment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator/generatortest"
)

func TestInterruptedBuild(t *testing.T) {
	root, dir := bare(t, "x"), t.TempDir()
	fakeUV(t, "sleep 600 & echo child $!\nwait\n")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	child := 0
	r := recorder{seen: func(e Event) {
		if n, _ := fmt.Sscanf(e.Detail, "child %d", &child); n == 1 {
			cancel()
		}
	}}
	_, err := (&Builder{Root: root, Dir: dir, Events: r.record}).Build(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if child == 0 {
		t.Fatalf("events %+v", r.events)
	}
	generatortest.Gone(t, child)
	if _, err := os.Stat(filepath.Join(dir, generator.IndexFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an interrupted build wrote an index: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "environments", "*", "*")); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}
