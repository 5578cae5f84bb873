package export_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
)

// What decodes videos of generators knows nothing of this process, reaches no file of its user, and a video on which it
// hangs costs its time and not the encoder.
func TestEncoderConfined(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "from-the-environment")
	t.Setenv("TMPDIR", "/var/tmp") // every sandbox may write to /dev/shm
	elsewhere := t.TempDir()
	secret := filepath.Join(elsewhere, "credentials")
	check(t, os.WriteFile(secret, []byte("from-a-file"), 0o600))
	python := filepath.Join(t.TempDir(), "bin", "python")
	check(t, os.Mkdir(filepath.Dir(python), 0o755))
	check(t, os.WriteFile(python, []byte(`#!/bin/sh
for last; do :; done
if [ "$last" = version ]; then
	echo "fake $(env) $(cat `+secret+` 2>&1; echo x > `+elsewhere+`/written; ls /sys/class/net)"
	exit 0
fi
read job
[ -e started ] && echo '{"error": "the second one"}'
touch started
sleep 1000
`), 0o755))
	t.Setenv("EXPORT_PYTHON", python)
	e, err := export.NewEncoder(t.Context(), export.VideoOptions{})
	check(t, err)
	for _, leak := range []string{"from-the-environment", "from-a-file"} {
		if !strings.HasPrefix(e.Version, "fake ") || strings.Contains(e.Version, leak) {
			t.Errorf("it is told %s: %s", leak, e.Version)
		}
	}
	if _, err := os.Stat(filepath.Join(elsewhere, "written")); err == nil {
		t.Error("it has written to another folder")
	}
	row := func() *export.Row {
		return &export.Row{ID: "maze_0", Generator: "maze", Files: []export.File{export.NewFile("ground_truth.mp4",
			[]byte("video"), &export.Media{Frames: 3, FPS: 16, Seconds: 0.2})}}
	}
	began := time.Now()
	for again := false; !again; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := e.Encode(ctx, row())
		cancel()
		again = err != nil && strings.Contains(err.Error(), "the second one")
		if !again && !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > time.Minute {
			t.Fatalf("a video on which it hangs: %v", err)
		}
	}
	e.Close()
	if took := time.Since(began); took > time.Minute {
		t.Errorf("the encoder has ended after %s", took)
	}
}
