package infra

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/daemon"
)

// A daemon is refused in a sentence, whatever is wrong with it.
func TestDaemon(t *testing.T) {
	serve := func(status int, answer string) string {
		path := filepath.Join(t.TempDir(), "sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(status)
			_, _ = io.WriteString(rw, answer)
		})}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(func() { server.Close() })
		return "unix://" + path
	}
	answers := func(version, status string) string {
		return serve(200, fmt.Sprintf(`{"ServerVersion":%q,"DriverStatus":[%s]}`, version, status))
	}
	const containerd = `["driver-type","io.containerd.snapshotter.v1"]`
	for _, test := range []struct{ host, want string }{
		{answers("20.10.24+dfsg1", `["Backing Filesystem","extfs"]`), ""},
		{answers("27.5.0", containerd), ""},
		{answers("29.1.2", containerd), ""},
		{answers("27.4.1", containerd), "the daemon is Docker 27.4.1 with the containerd image store, which pushes images that Lambda refuses"},
		{answers("26.1.0", containerd), "update Docker to 27.5"},
		{"unix:///nowhere/docker.sock", "there is no Docker daemon at /nowhere/docker.sock: start Docker"},
		{serve(404, "page not found"), "is no Docker daemon (404 Not Found)"},
		{"tcp://192.0.2.1:2376", ""}, {"ssh://me@192.0.2.1", ""},
	} {
		if err := checkDocker(t.Context(), test.host); (err == nil) != (test.want == "") || err != nil &&
			!strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v\nwant %s", test.host, err, test.want)
		}
	}
}

// Pulumi does not read contexts of the docker command, as Colima and a rootless Docker
// make them: the error says what to set.
func TestDockerContext(t *testing.T) {
	if _, err := os.Stat(daemon.Socket); err == nil {
		t.Skip(daemon.Socket + " exists on this machine, so no context is needed")
	}
	folder := t.TempDir()
	t.Setenv("DOCKER_CONFIG", folder)
	t.Setenv("DOCKER_CONTEXT", "")
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(folder, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, socket := range map[string]string{"colima": "unix:///Users/ana/.colima/default/docker.sock",
		"rootless": "unix:///run/user/1000/docker.sock"} {
		sum := sha256.Sum256([]byte(name))
		write("contexts/meta/"+hex.EncodeToString(sum[:])+"/meta.json",
			fmt.Sprintf(`{"Name":%q,"Metadata":{},"Endpoints":{"docker":{"Host":%q,"SkipTLSVerify":false}}}`, name, socket))
	}
	for _, test := range []struct{ config, variable, want string }{
		{`{"currentContext":"colima"}`, "",
			`the context "colima", which Pulumi does not read: export DOCKER_HOST=unix:///Users/ana/.colima/default/docker.sock`},
		{`{"auths":{}}`, "rootless", "export DOCKER_HOST=unix:///run/user/1000/docker.sock"},
		{`{}`, "", "there is no Docker daemon at /var/run/docker.sock: start Docker, or set DOCKER_HOST"},
		{`{"currentContext":"default"}`, "", "there is no Docker daemon"},
	} {
		write("config.json", test.config)
		t.Setenv("DOCKER_CONTEXT", test.variable)
		if err := checkDocker(t.Context(), ""); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: %v\nwant %s", test.config, test.variable, err, test.want)
		}
	}
}
