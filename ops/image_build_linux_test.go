package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// checkout skips the test where there is no Docker, and returns such a copy.
func checkout(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds an image")
	}
	if out, err := exec.CommandContext(t.Context(), "docker", "version").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no Docker: %v: %s", err, out)
		}
		t.Skipf("no Docker: %v", err)
	}
	list, err := exec.CommandContext(t.Context(), "git", "-C", "..", "ls-files", "-z", "--cached", "--others",
		"--exclude-standard").Output()
	if err != nil {
		t.Skip("no git: it says which files are the repository's")
	}
	dir := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join("..", name))
		if os.IsNotExist(err) {
			continue // removed and not committed
		}
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, name), text)
	}
	return dir
}

func put(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// edit changes a file of a checkout.
func edit(t *testing.T, path, from, to string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.ReplaceAll(text, []byte(from), []byte(to))
	if bytes.Equal(text, changed) {
		t.Fatalf("%s does not have %q", path, from)
	}
	put(t, path, changed)
}

// builtImage is a built image.
type builtImage struct {
	ID     string `json:"Id"`
	Size   int64
	RootFS struct{ Layers []string }
}

// bases replace the base images where those of the Dockerfile cannot be had.
func bases() (args []string) {
	for _, name := range []string{"BASE_IMAGE", "BUILDER_IMAGE"} {
		if value := os.Getenv(name); value != "" {
			args = append(args, "--build-arg="+name+"="+value)
		}
	}
	return args
}

// build builds the image of a checkout.
func build(t *testing.T, dir, commits string) builtImage {
	t.Helper()
	began := time.Now()
	id := docker(t, append([]string{"build", "--quiet", "--build-arg=GENERATOR_COMMITS=" + commits, dir}, bases()...)...)
	var i []builtImage
	if err := json.Unmarshal([]byte(docker(t, "image", "inspect", id)), &i); err != nil {
		t.Fatal(err)
	}
	t.Logf("built %s in %.1f s", id, time.Since(began).Seconds())
	return i[0]
}

func docker(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=1")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, said.String())
	}
	return strings.TrimSpace(string(out))
}

// ops runs the command line in a folder and returns what it prints and says.
func ops(t testing.TB, dir string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ops", args...)
	var out, said bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &said
	err = cmd.Run()
	return out.String(), said.String(), err
}

// logs shows what the workers of a local stack wrote, when the test has failed.
func logsOf(t *testing.T, dir string) {
	t.Cleanup(func() {
		if t.Failed() {
			files, _ := filepath.Glob(filepath.Join(dir, ".local", "logs", "worker-*.log"))
			for _, file := range files {
				text, _ := os.ReadFile(file)
				t.Logf("%s:\n%s", filepath.Base(file), text[max(0, len(text)-2000):])
			}
		}
	})
}
