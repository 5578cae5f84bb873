package store_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// suspended is the context of a machine that was: its deadline has passed, and its timer does not know yet.
type suspended struct{ context.Context }

func (suspended) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

// A worker that wakes up after its hold writes no file over those of whoever has the cell now.
func TestSuspended(t *testing.T) {
	t.Parallel()
	st, _ := newStore(t)
	path := t.TempDir() + "/prompt.txt"
	check(t, os.WriteFile(path, []byte("late"), 0o600))
	late := []sample.Sample{{ID: "maze_00000000", Files: []sample.File{{Name: "prompt.txt", Path: path, Size: 4,
		SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte("late")))}}}}
	if err := st.PutFiles(suspended{t.Context()}, "maze", late); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("files are stored after the deadline: %v", err)
	}
	for o := range st.List(t.Context(), "data/", "") {
		t.Errorf("%s is stored", o.Key)
	}
	check(t, st.PutFiles(t.Context(), "maze", late))
}
