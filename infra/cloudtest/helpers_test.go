package cloudtest_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/pulumi/pulumi/sdk/v3/go/auto"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/events"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optup"
	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/cloudtest"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

const project = "vm-dataset"

// shared is one cloud for all tests: Docker compresses and sends the layers of an
// image once for each registry, which takes most of the time.
var shared *cloudtest.Cloud

func TestMain(m *testing.M) {
	status := m.Run()
	if shared != nil {
		_ = shared.Close()
	}
	os.Exit(status)
}

// cloud makes a copy of the repository the working directory, so that a test can
// edit it, and returns the cloud to deploy it to. Everything that needs must be
// here in CI; elsewhere what is missing skips the test by name.
func cloud(t *testing.T) *cloudtest.Cloud {
	t.Helper()
	missing := func(what string) {
		t.Helper()
		if os.Getenv("CI") != "" {
			t.Fatal(what)
		}
		t.Skip(what)
	}
	for _, name := range []string{"MOTO_ENDPOINT", "REGISTRY"} {
		if os.Getenv(name) == "" {
			missing(name + " is not set: no moto server or no registry to run against")
		}
	}
	for _, program := range []string{"pulumi", "pulumi-language-go", "docker"} {
		if _, err := exec.LookPath(program); err != nil {
			missing(program + " is not on the PATH")
		}
	}
	if out, err := exec.CommandContext(t.Context(), "docker", "version").CombinedOutput(); err != nil {
		missing("there is no Docker daemon: " + string(out))
	}
	t.Chdir(copyRepository(t))
	if shared == nil {
		c, err := cloudtest.Start(context.WithoutCancel(t.Context()), cloudtest.Options{Endpoint: os.Getenv("MOTO_ENDPOINT"),
			Registry: os.Getenv("REGISTRY")})
		if err != nil {
			t.Fatal(err)
		}
		shared = c
	}
	return shared
}

// awsConfig reaches the same moto server as the providers do, as AWS's tools reach it.
func awsConfig(c *cloudtest.Cloud) aws.Config {
	return aws.Config{
		Region: c.Region, BaseEndpoint: aws.String(c.Environment("")["AWS_ENDPOINT_URL"]), HTTPClient: store.HTTPClient(nil),
		Credentials: credentials.NewStaticCredentialsProvider("cloudtest", "cloudtest", ""),
	}
}

// copyRepository makes a folder with the files of the repository.
func copyRepository(t *testing.T) string {
	t.Helper()
	root, dir := filepath.Join("..", ".."), t.TempDir()
	list, err := exec.CommandContext(t.Context(), "git", "-C", root, "ls-files", "-z", "--cached", "--others",
		"--exclude-standard").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted, and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// edit adds a line to a file.
func edit(t *testing.T, path, line string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, line); err != nil {
		t.Fatal(err)
	}
}

// settings are what a stack is configured with where no public registry is
// reached.
func settings() map[string]string {
	set := map[string]string{}
	for key, variable := range map[string]string{"builderImage": "BUILDER_IMAGE", "baseImage": "BASE_IMAGE"} {
		if v := os.Getenv(variable); v != "" {
			set[key] = v
		}
	}
	return set
}

// stack is one that is deployed through the Automation API.
type stack struct {
	auto.Stack
	t *testing.T
}

func newStack(t *testing.T, c *cloudtest.Cloud, name string, program pulumi.RunFunc, config map[string]string) *stack {
	t.Helper()
	state := t.TempDir()
	s, err := auto.UpsertStackInlineSource(t.Context(), name, project, program, auto.WorkDir(t.TempDir()),
		auto.EnvVars(c.Environment(state)))
	if err != nil {
		t.Fatal(err)
	}
	all := settings()
	maps.Copy(all, config)
	set := auto.ConfigMap{"aws:region": {Value: c.Region}}
	for key, value := range all {
		set[project+":"+key] = auto.ConfigValue{Value: value}
	}
	if err := s.SetAllConfig(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	return &stack{s, t}
}

// up deploys and returns what changed: the operation on each resource that is
// not the same as before, as "operation type name".
func (s *stack) up() (auto.UpResult, []string) {
	s.t.Helper()
	ch := make(chan events.EngineEvent)
	changes := collect(ch)
	var log bytes.Buffer
	r, err := s.Up(s.t.Context(), optup.EventStreams(ch), optup.ProgressStreams(&log))
	if err != nil {
		s.t.Fatalf("%v\n%s", err, log.String())
	}
	return r, <-changes
}

// collect gathers the changes that a run of the engine tells of.
func collect(ch <-chan events.EngineEvent) <-chan []string {
	done := make(chan []string, 1)
	go func() {
		var changes []string
		for e := range ch {
			var m apitype.StepEventMetadata
			switch {
			case e.ResOutputsEvent != nil:
				m = e.ResOutputsEvent.Metadata
			case e.ResOpFailedEvent != nil:
				m = e.ResOpFailedEvent.Metadata
			default:
				continue
			}
			if m.Op != apitype.OpSame {
				changes = append(changes, fmt.Sprintf("%s %s %s", m.Op, m.Type, resource.URN(m.URN).Name()))
			}
		}
		slices.Sort(changes)
		done <- changes
	}()
	return done
}

// same compares the changes of a run with those expected.
func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\ngot  %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}
