// Package daemon asks whether a Docker daemon answers where Pulumi's Docker provider looks for it.
package daemon

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Socket is where a daemon is if nothing says otherwise.
const Socket = "/var/run/docker.sock"

const remedy = "start Docker, or set DOCKER_HOST to where it is"

const patience = 30 * time.Second

// Info is what a daemon says of itself.
type Info struct {
	ServerVersion string
	DriverStatus  [][]string
}

// Ask asks the daemon at a host, such as DOCKER_HOST names, or at Socket for "". The error is one sentence that says
// what to do: Pulumi's Docker provider says it minutes later in other words. The provider reads DOCKER_HOST, and no
// contexts of the docker command. A daemon on another machine is not asked, and its Info is empty.
func Ask(ctx context.Context, host string) (Info, error) {
	if host == "" {
		host = "unix://" + Socket
		if _, err := os.Stat(Socket); err != nil {
			name, endpoint := currentContext()
			if endpoint == "" {
				return Info{}, errors.New("there is no Docker daemon at " + Socket + ": " + remedy)
			}
			return Info{}, fmt.Errorf("docker uses the context %q, which Pulumi does not read: export DOCKER_HOST=%s", name,
				endpoint)
		}
	}
	u, err := url.Parse(host)
	if err != nil || u.Scheme != "unix" {
		return Info{}, nil // the provider itself asks daemons on other machines
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", u.Path)
	}}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/info", nil)
	if err != nil {
		return Info{}, err
	}
	p, err := (&http.Client{Transport: transport}).Do(q)
	if err != nil {
		return Info{}, fmt.Errorf("there is no Docker daemon at %s: %s (%w)", u.Path, remedy, err)
	}
	defer p.Body.Close()
	var info Info
	if err := json.NewDecoder(p.Body).Decode(&info); err != nil || p.StatusCode != http.StatusOK {
		return Info{}, fmt.Errorf("what answers at %s is no Docker daemon (%s): %s", u.Path, p.Status, remedy)
	}
	return info, nil
}

// currentContext is the context that the docker command uses, with its endpoint; both are "" if it is the default one.
// https://docs.docker.com/engine/manage-resources/contexts/
func currentContext() (name, endpoint string) {
	home, _ := os.UserHomeDir()
	folder := cmp.Or(os.Getenv("DOCKER_CONFIG"), filepath.Join(home, ".docker"))
	if name = os.Getenv("DOCKER_CONTEXT"); name == "" {
		var config struct{ CurrentContext string }
		text, _ := os.ReadFile(filepath.Join(folder, "config.json"))
		_ = json.Unmarshal(text, &config)
		name = config.CurrentContext
	}
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	text, _ := os.ReadFile(filepath.Join(folder, "contexts", "meta", sum, "meta.json"))
	var meta struct {
		Endpoints struct{ Docker struct{ Host string } }
	}
	if json.Unmarshal(text, &meta) != nil {
		return name, ""
	}
	return name, meta.Endpoints.Docker.Host
}
