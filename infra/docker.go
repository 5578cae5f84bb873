package infra

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

const (
	defaultSocket = "/var/run/docker.sock"
	// wantedEngine is from where a daemon pushes single manifests from a containerd image store.
	wantedEngine      = "27.5"
	wantedEngineMajor = 27
	wantedEngineMinor = 5
)

// dockerHost is where the Docker provider expects the daemon, or "" where it is by default.
func dockerHost(ctx *pulumi.Context) string {
	if host, ok := ctx.GetConfig("docker:host"); ok {
		return host
	}
	return os.Getenv("DOCKER_HOST")
}

// checkDocker refuses a daemon that cannot be reached, as Pulumi's Docker provider does
// minutes later in other words, and one whose images Lambda does not take. The provider
// reads DOCKER_HOST, and no contexts of the docker command.
func checkDocker(ctx context.Context, host string) error {
	if host == "" {
		host = "unix://" + defaultSocket
		if _, err := os.Stat(defaultSocket); err != nil {
			name, endpoint := currentContext()
			if endpoint == "" {
				return errors.New("there is no Docker daemon at " + defaultSocket + ": start Docker, or set DOCKER_HOST to where it is")
			}
			return fmt.Errorf("docker uses the context %q, which Pulumi does not read: export DOCKER_HOST=%s", name, endpoint)
		}
	}
	u, err := url.Parse(host)
	if err != nil || u.Scheme != "unix" {
		return nil // the provider itself asks daemons on other machines
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", u.Path)
	}}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/info", nil)
	if err != nil {
		return err
	}
	p, err := (&http.Client{Transport: transport}).Do(q)
	if err != nil {
		return fmt.Errorf("there is no Docker daemon at %s: start Docker, or set DOCKER_HOST to where it is (%w)", u.Path, err)
	}
	defer p.Body.Close()
	var info struct {
		ServerVersion string
		DriverStatus  [][]string
	}
	if err := json.NewDecoder(p.Body).Decode(&info); err != nil || p.StatusCode != http.StatusOK {
		return fmt.Errorf("what answers at %s is no Docker daemon (%s): start Docker, or set DOCKER_HOST to where it is",
			u.Path, p.Status)
	}
	containerd := slices.ContainsFunc(info.DriverStatus, func(s []string) bool {
		return slices.Equal(s, []string{"driver-type", "io.containerd.snapshotter.v1"})
	})
	var major, minor int
	_, err = fmt.Sscanf(info.ServerVersion, "%d.%d", &major, &minor)
	if containerd && err == nil && (major < wantedEngineMajor || major == wantedEngineMajor && minor < wantedEngineMinor) {
		return fmt.Errorf("the daemon is Docker %s with the containerd image store, which pushes images that Lambda refuses: %s %s",
			info.ServerVersion, "switch that store off, or update Docker to", wantedEngine)
	}
	return nil
}

// currentContext is the context that the docker command uses, with its endpoint; both
// are "" if it is the default one.
// https://docs.docker.com/engine/manage-resources/contexts/
func currentContext() (name, endpoint string) {
	folder := os.Getenv("DOCKER_CONFIG")
	if folder == "" {
		home, _ := os.UserHomeDir()
		folder = filepath.Join(home, ".docker")
	}
	if name = os.Getenv("DOCKER_CONTEXT"); name == "" {
		var config struct{ CurrentContext string }
		text, _ := os.ReadFile(filepath.Join(folder, "config.json"))
		_ = json.Unmarshal(text, &config)
		name = config.CurrentContext
	}
	sum := sha256.Sum256([]byte(name))
	text, _ := os.ReadFile(filepath.Join(folder, "contexts", "meta", hex.EncodeToString(sum[:]), "meta.json"))
	var meta struct {
		Endpoints struct{ Docker struct{ Host string } }
	}
	if json.Unmarshal(text, &meta) != nil {
		return name, ""
	}
	return name, meta.Endpoints.Docker.Host
}
