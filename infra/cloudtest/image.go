package cloudtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	pulumidocker "github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

// contextDigest is what the plugin adds to the inputs: an image is built again
// when the files of its context change.
const contextDigest = "contextDigest"

func (c *Cloud) imageTypes() map[tokens.Type]resourceType {
	return map[tokens.Type]resourceType{
		"docker:index/image:Image": {
			schema: schema{
				args: argsOf[pulumidocker.ImageArgs](), state: reflect.TypeFor[pulumidocker.Image](),
				required: []string{"build", "registry"},
				rules: map[string]rule{
					"imageName":            matches(`[^/\s]+[.:][^/\s]*/[^\s@]+:[\w.-]+`, 512),
					"build.platform":       oneOf("linux/amd64", "linux/arm64"),
					"build.builderVersion": oneOf("BuilderBuildKit"), "skipPush": oneOf(false), "buildOnPreview": oneOf(false),
					"build.context": isRelative, "build.dockerfile": isRelative,
				},
				together: func(in props) error {
					b, r := in.object("build"), in.object("registry")
					if !b.has("platform") || !b.has("context") || !b.has("dockerfile") {
						return errors.New("without platform, context and dockerfile the image would depend on the machine that builds it")
					}
					for _, name := range []string{"server", "username", "password"} {
						if !r.has(name) {
							return fmt.Errorf("the registry has no %s", name)
						}
					}
					return nil
				},
			},
			prepare: func(in resource.PropertyMap) error {
				build := in["build"].ObjectValue()
				digest, err := hashContext(build["context"].StringValue(), build["dockerfile"].StringValue())
				build[contextDigest] = resource.NewStringProperty(digest)
				return err
			},
			volatile: []string{"repoDigest"},
			create:   c.buildImage,
			read: func(ctx context.Context, c *Cloud, id string, in props) (props, error) {
				b := in.object("build")
				digest, err := c.repoDigest(ctx, id)
				if err != nil {
					return props{}, err
				}
				return outputs(map[string]any{
					"imageName": id, "baseImageName": id, "registryServer": in.object("registry").text("server"), "repoDigest": digest,
					"context": b.text("context"), "dockerfile": b.text("dockerfile"), "platform": b.text("platform"),
				}), nil
			},
			update: func(ctx context.Context, c *Cloud, _ string, _, in props) error {
				_, err := c.buildImage(ctx, c, in)
				return err
			},
			// as the plugin: images stay in the registry
			remove: func(context.Context, *Cloud, string, props) error { return nil },
		},
	}
}

func isRelative(v any) string {
	if s, ok := v.(string); !ok || filepath.IsAbs(s) || !filepath.IsLocal(s) {
		return fmt.Sprintf("is %v; it must be a path below the program", v)
	}
	return ""
}

// hashContext hashes what Docker would send to the builder: names, modes and
// contents of the files that .dockerignore, or the Dockerfile's own, leaves.
func hashContext(dir, dockerfile string) (string, error) {
	recipe, err := os.ReadFile(dockerfile)
	if err != nil {
		return "", fmt.Errorf("could not open dockerfile: %w", err)
	}
	var patterns []string
	// Docker and the plugin take the file of the Dockerfile's own if there is one.
	f, err := os.Open(dockerfile + ".dockerignore")
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(filepath.Join(dir, ".dockerignore"))
	}
	if err == nil {
		patterns, err = ignorefile.ReadAll(f)
		f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	ignored, err := patternmatcher.New(patterns)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	sum.Write(recipe)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		if err != nil || name == "." {
			return err
		}
		skip, err := ignored.MatchesOrParentMatches(name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skip && !slices.ContainsFunc(ignored.Patterns(), func(p *patternmatcher.Pattern) bool {
				return p.Exclusion() && strings.HasPrefix(p.String()+"/", name+"/")
			}) {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if skip || err != nil {
			return err
		}
		fmt.Fprintf(sum, "%q %s ", name, info.Mode())
		if !info.Mode().IsRegular() {
			target, err := os.Readlink(path)
			fmt.Fprintf(sum, "%q", target)
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(sum, file)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

// buildImage builds and pushes with the docker client and what the inputs say,
// the credentials among it, and nothing that the machine is logged in to.
func (c *Cloud) buildImage(ctx context.Context, _ *Cloud, in props) (string, error) {
	name, build := in.text("imageName"), in.object("build")
	r := in.object("registry")
	server, _, _ := strings.Cut(r.text("server"), "/")
	login, err := dockerLogin(server, r.text("username"), r.text("password"))
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(login)
	args := []string{"build", "--quiet", "--tag", name, "--platform", build.text("platform"), "--file",
		build.text("dockerfile")}
	for key, v := range build.textMap("args") {
		args = append(args, "--build-arg", key+"="+v)
	}
	if err := c.docker(ctx, login, append(args, build.text("context"))...); err != nil {
		return "", err
	}
	return name, c.docker(ctx, login, "push", "--quiet", name)
}

// dockerLogin makes a configuration folder of the docker client with one login.
func dockerLogin(server, user, password string) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "cloudtest-docker-"); err != nil {
		return "", err
	}
	text, err := json.Marshal(
		map[string]any{"auths": map[string]any{server: map[string]string{"auth": basicAuth(user, password)}}})
	if err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600)
}

func (c *Cloud) docker(ctx context.Context, config string, args ...string) error {
	cmd := exec.CommandContext(ctx, c.dockerPath, args...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+config, "DOCKER_BUILDKIT=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("docker %s: %w\n%s", args[0], err, tail(out))
	}
	return nil
}

// tail returns the end of a program's output.
func tail(out []byte) string {
	const most = 4000
	if len(out) > most {
		out = out[len(out)-most:]
	}
	return strings.TrimSpace(string(out))
}

// repoDigest is what the registry has under a name now.
func (c *Cloud) repoDigest(ctx context.Context, name string) (string, error) {
	path, ok := strings.CutPrefix(name, c.registry.address+"/")
	if !ok {
		return "", fmt.Errorf("the image %s is in no repository of this account", name)
	}
	repository, tag, _ := strings.Cut(path, ":")
	digest, err := c.registry.digest(ctx, repository, tag)
	if err != nil {
		return "", err
	}
	return c.registry.address + "/" + repository + "@" + digest, nil
}
