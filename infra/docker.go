package infra

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/daemon"
)

// wantedEngine is from where a daemon pushes single manifests from a containerd image store.
const (
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

// checkDocker refuses a daemon that cannot be reached, and one whose images Lambda does not take.
func checkDocker(ctx context.Context, host string) error {
	info, err := daemon.Ask(ctx, host)
	if err != nil {
		return err
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
