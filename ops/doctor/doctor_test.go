package doctor

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
)

// Where there is nothing to compare, that is no problem.
func TestDoctorGenerators(t *testing.T) {
	t.Parallel()
	d := &doctor{flags: &target.Flags{Generators: t.TempDir()}, t: &target.Target{}}
	d.t.Generators = nil
	if _, err := d.generators(context.Background()); !errors.As(err, new(skipped)) {
		t.Errorf("%v", err)
	}
	d.t.Generators, d.flags.Generators = map[string]string{"a": "b"}, filepath.Join(t.TempDir(), "nowhere")
	if says, err := d.generators(context.Background()); err != nil || !strings.Contains(says, "to compare with") {
		t.Errorf("%q, %v", says, err)
	}
}

func TestDoctorDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "yet")
	if says, err := checkDisk(dir, 1); err != nil || !strings.Contains(says, " left") {
		t.Errorf("%q, %v", says, err)
	}
	if _, err := checkDisk(dir, 1<<60); err == nil || !strings.Contains(err.Error(), "a run needs") {
		t.Errorf("%v", err)
	}
}
