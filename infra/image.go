package infra

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/ecr"
	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/daemon"
	"github.com/vm-dataset/vm-dataset-pipeline/infra/rights"
)

// Image is the worker's image, built here and pushed to a repository of the stack's own.
type Image struct {
	pulumi.ResourceState

	URI           pulumi.StringOutput // repository@digest
	RepositoryURL pulumi.StringOutput

	pull       pulumi.Resource // what allows Lambda to pull it
	repository *ecr.Repository
}

// Arguments of the Dockerfile.
const (
	argBuilder = "BUILDER_IMAGE"
	argBase    = "BASE_IMAGE"
	argCommits = "GENERATOR_COMMITS" // JSON object: generator -> commit; the build context has no git
)

// keepImages is how many images that are no longer in use a repository keeps if the stack's data is not to be kept:
// enough to go back by a few deployments. Otherwise it keeps all, because receipts name them.
const keepImages = 10

// NewImage registers the repository and the image. The build context is root,
// the repository's folder; .dockerignore lists what of it the image is made from.
func NewImage(ctx *pulumi.Context, name, root string, commits map[string]string, a account, c *Config,
	opts ...pulumi.ResourceOption) (_ *Image, err error) {
	defer caught(&err)
	i := &Image{}
	child := register(ctx, "Image", name, i, opts)
	repository := must(ecr.NewRepository(ctx, name, &ecr.RepositoryArgs{
		ImageScanningConfiguration: &ecr.RepositoryImageScanningConfigurationArgs{ScanOnPush: pulumi.Bool(true)},
		EncryptionConfigurations: ecr.RepositoryEncryptionConfigurationArray{
			&ecr.RepositoryEncryptionConfigurationArgs{EncryptionType: pulumi.String("AES256")}},
		ImageTagMutability: pulumi.String("MUTABLE"), // the function goes by digest
		ForceDelete:        pulumi.Bool(!c.RetainData),
		Tags:               pulumi.ToStringMap(c.Tags),
	}, child, pulumi.RetainOnDelete(c.RetainData)))
	// Lambda adds this policy itself only if the deployer may change policies.
	allow := must(marshal(rights.Document(rights.Statement{
		Sid: "LambdaPull", Effect: rights.Allow, Principal: map[string]string{"Service": "lambda.amazonaws.com"},
		Action: []string{"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"},
		Condition: map[string]map[string][]string{"StringLike": {"aws:sourceArn": {
			strings.Join([]string{"arn", a.partition, "lambda", a.region, a.id, "function", "*"}, ":")}}},
	})))
	i.pull = must(ecr.NewRepositoryPolicy(ctx, name+"-pull", &ecr.RepositoryPolicyArgs{Repository: repository.Name,
		Policy: pulumi.String(allow)}, child, pulumi.RetainOnDelete(c.RetainData)))
	if !c.RetainData {
		must(ecr.NewLifecyclePolicy(ctx, name+"-lifecycle", &ecr.LifecyclePolicyArgs{Repository: repository.Name,
			Policy: pulumi.Sprintf(expireUntagged, keepImages)}, child))
	}
	args := pulumi.StringMap{argCommits: pulumi.String(must(marshal(commits)))}
	if c.BaseImage != "" {
		args[argBase] = pulumi.String(c.BaseImage)
	}
	i.repository, i.RepositoryURL = repository, repository.RepositoryUrl
	i.URI = build(ctx, name, root, "Dockerfile", "latest", args, repository, c, child)
	return i, ctx.RegisterResourceOutputs(i, pulumi.Map{"uri": i.URI, "repositoryUrl": i.RepositoryURL})
}

var digestPattern = regexp.MustCompile(`^[^@\s]+@sha256:[0-9a-f]{64}$`)

// checkDigest refuses <none>@<none>, which some daemons answer for an image that they have just pushed.
func checkDigest(uri string) (string, error) {
	if !digestPattern.MatchString(uri) {
		return "", fmt.Errorf("the image was pushed, but Docker answers %q in place of its repository and digest: %s, then "+
			"pulumi up", uri, "switch off the daemon's containerd image store or update it to "+wantedEngine)
	}
	return uri, nil
}

// build builds an image from a Dockerfile below root, pushes it and returns its repository@digest. Lambda takes a
// single manifest and no index, which is what this builder pushes: it asks the daemon itself, and only the buildx
// client adds attestations (and the index that holds them) by default.
//
// The credentials of the registry belong to the image and not to a provider: they are new each time, and a provider
// that differs makes Pulumi look at everything it has made.
func build(ctx *pulumi.Context, name, root, dockerfile, tag string, args pulumi.StringMap, repository *ecr.Repository,
	c *Config, child pulumi.ResourceOrInvokeOption) pulumi.StringOutput {
	if c.BuilderImage != "" {
		args[argBuilder] = pulumi.String(c.BuilderImage)
	}
	token := ecr.GetAuthorizationTokenOutput(ctx, ecr.GetAuthorizationTokenOutputArgs{RegistryId: repository.RegistryId},
		child)
	return must(docker.NewImage(ctx, name, &docker.ImageArgs{
		ImageName: pulumi.Sprintf("%s:%s", repository.RepositoryUrl, tag),
		Build: &docker.DockerBuildArgs{
			Context: pulumi.String(root), Dockerfile: pulumi.String(filepath.Join(root, dockerfile)), Args: args,
			BuilderVersion: docker.BuilderVersionBuilderBuildKit,
			Platform:       pulumi.String(c.platform()), // without it, the platform of the machine that deploys
		},
		Registry: &docker.RegistryArgs{Server: repository.RepositoryUrl, Username: token.UserName(),
			Password: pulumi.ToSecret(token.Password()).(pulumi.StringOutput)},
	}, child)).RepoDigest.ApplyT(checkDigest).(pulumi.StringOutput)
}

// expireUntagged is a lifecycle policy that keeps some of the images whose tag has passed on to a later one.
// https://docs.aws.amazon.com/AmazonECR/latest/userguide/lifecycle_policy_parameters.html
const expireUntagged = `{"rules":[{"rulePriority":1,"description":"images that were replaced","selection":` +
	`{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":%d},"action":{"type":"expire"}}]}`

// wantedEngine is from where a daemon pushes single manifests from a containerd image store.
const (
	wantedEngine      = "27.5"
	wantedEngineMajor = 27
	wantedEngineMinor = 5
)

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
		return fmt.Errorf("the daemon is Docker %s with the containerd image store, which pushes images that Lambda "+
			"refuses: %s %s", info.ServerVersion, "switch that store off, or update Docker to", wantedEngine)
	}
	return nil
}

// ignoreFiles say what the function's image and the fleet's are built from.
var ignoreFiles = []string{".dockerignore", "deploy/Dockerfile.dockerignore"}

// checkSources refuses links that point to nothing, at which Pulumi's Docker provider stops, and, unless it is a dry
// run, sets the modes of files to those of git's: the provider counts modes, and the umask of whoever clones decides on
// them, so each member of a team would build another image.
func checkSources(root, ignoreFile string, dry bool) error {
	f, err := os.Open(filepath.Join(root, ignoreFile))
	if err != nil {
		return fmt.Errorf("what the image is built from cannot be read: %w", err)
	}
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil {
		return fmt.Errorf("%s cannot be read: %w", f.Name(), err)
	}
	unused, err := patternmatcher.New(patterns)
	if err != nil {
		return fmt.Errorf("%s cannot be read: %w", f.Name(), err)
	}
	for _, pattern := range patterns {
		source, ok := strings.CutPrefix(pattern, "!")
		if !ok {
			continue
		}
		err := filepath.WalkDir(filepath.Join(root, source), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				if os.IsNotExist(err) && d == nil { // Docker refuses it where it is needed
					return nil
				}
				return err
			}
			relative, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			skip, err := unused.MatchesOrParentMatches(relative)
			if err != nil || d.IsDir() {
				if skip {
					return filepath.SkipDir
				}
				return err
			}
			if skip {
				return nil
			}
			info, err := os.Stat(path)
			if err != nil {
				if d.Type()&fs.ModeSymlink != 0 {
					return fmt.Errorf("the link %s points to nothing, so the image cannot be built: remove it, or make what it "+
						"points to", path)
				}
				return err
			}
			mode := fs.FileMode(0o644)
			if info.Mode()&0o100 != 0 {
				mode = 0o755
			}
			if dry || !d.Type().IsRegular() || info.Mode().Perm() == mode {
				return nil
			}
			if err := os.Chmod(path, mode); err != nil {
				return fmt.Errorf("the image depends on the modes of its files, and this one's cannot be set: %w", err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
