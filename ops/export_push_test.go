package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The hub's real client understands the command line, and asks the hub for the repository that was named.
func TestPush(t *testing.T) {
	python := os.Getenv("EXPORT_PYTHON")
	if python == "" {
		t.Skip("EXPORT_PYTHON is not set: it names a Python with ops/export/testdata/consumers/requirements.txt")
	}
	type repository struct{ Name, Organization, Type, Visibility string }
	var mu sync.Mutex
	var asked []repository
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var what repository
		if text, _ := io.ReadAll(r.Body); r.URL.Path == "/api/repos/create" && json.Unmarshal(text, &what) == nil {
			mu.Lock()
			asked = append(asked, what)
			mu.Unlock()
		}
		http.Error(w, "{}", http.StatusUnauthorized)
	}))
	t.Cleanup(hub.Close)
	dir := t.TempDir()
	for _, name := range []string{"SHA256SUMS", "README.md"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	cmd := exec.CommandContext(t.Context(), "ops", "export", "push", dir, "lab/mazes", "--private")
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(python)+string(os.PathListSeparator)+os.Getenv("PATH"),
		"HF_ENDPOINT="+hub.URL, "HF_TOKEN=hf_x", "HF_HUB_DISABLE_TELEMETRY=1", "HF_HOME="+t.TempDir())
	said, err := cmd.CombinedOutput()
	want := repository{"mazes", "lab", "dataset", "private"}
	if len(asked) == 0 || asked[0] != want {
		t.Errorf("the hub was asked for %+v: %v: %s", asked, err, said)
	}
	if err == nil || !strings.Contains(string(said), "try: the same command") {
		t.Errorf("the hub has refused: %v: %s", err, said)
	}
}
