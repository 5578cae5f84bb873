package infra

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/ecr"
	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

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
		EncryptionConfigurations:   ecr.RepositoryEncryptionConfigurationArray{&ecr.RepositoryEncryptionConfigurationArgs{EncryptionType: pulumi.String("AES256")}},
		ImageTagMutability:         pulumi.String("MUTABLE"), // the function goes by digest
		ForceDelete:                pulumi.Bool(!c.RetainData),
		Tags:                       pulumi.ToStringMap(c.Tags),
	}, child, pulumi.RetainOnDelete(c.RetainData)))
	// Lambda adds this policy itself only if the deployer may change policies.
	allow := marshal(rights.Document(rights.Statement{
		Sid: "LambdaPull", Effect: rights.Allow, Principal: map[string]string{"Service": "lambda.amazonaws.com"},
		Action: []string{"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"},
		Condition: map[string]map[string][]string{"StringLike": {"aws:sourceArn": {
			strings.Join([]string{"arn", a.partition, "lambda", a.region, a.id, "function", "*"}, ":")}}},
	}))
	i.pull = must(ecr.NewRepositoryPolicy(ctx, name+"-pull", &ecr.RepositoryPolicyArgs{Repository: repository.Name,
		Policy: pulumi.String(allow)}, child, pulumi.RetainOnDelete(c.RetainData)))
	if !c.RetainData {
		must(ecr.NewLifecyclePolicy(ctx, name+"-lifecycle", &ecr.LifecyclePolicyArgs{Repository: repository.Name,
			Policy: pulumi.Sprintf(expireUntagged, keepImages)}, child))
	}
	built := must(docker.NewImage(ctx, name, &docker.ImageArgs{
		ImageName: pulumi.Sprintf("%s:latest", repository.RepositoryUrl),
		Build:     build(root, commits, c),
		Registry:  credentials(ctx, repository, child),
	}, child))
	i.repository = repository
	i.URI, i.RepositoryURL = built.RepoDigest.ApplyT(checkDigest).(pulumi.StringOutput), repository.RepositoryUrl
	return i, ctx.RegisterResourceOutputs(i, pulumi.Map{"uri": i.URI, "repositoryUrl": i.RepositoryURL})
}

var digestPattern = regexp.MustCompile(`^[^@\s]+@sha256:[0-9a-f]{64}$`)

// checkDigest refuses what Docker gives in place of a digest: some daemons answer
// <none>@<none> for an image that they have just pushed.
func checkDigest(uri string) (string, error) {
	if !digestPattern.MatchString(uri) {
		return "", fmt.Errorf("the image was pushed, but Docker answers %q in place of its repository and digest: %s, then pulumi up",
			uri, "switch off the daemon's containerd image store or update it to "+wantedEngine)
	}
	return uri, nil
}

// build returns the build of the image. Lambda takes a single manifest and no index, which is what this builder pushes:
// it asks the daemon itself, and only the buildx client adds attestations (and the index that holds them) by default.
func build(root string, commits map[string]string, c *Config) *docker.DockerBuildArgs {
	args := pulumi.StringMap{argCommits: pulumi.String(marshal(commits))}
	if c.BuilderImage != "" {
		args[argBuilder] = pulumi.String(c.BuilderImage)
	}
	if c.BaseImage != "" {
		args[argBase] = pulumi.String(c.BaseImage)
	}
	return &docker.DockerBuildArgs{
		Context: pulumi.String(root), Dockerfile: pulumi.String(filepath.Join(root, "Dockerfile")), Args: args,
		BuilderVersion: docker.BuilderVersionBuilderBuildKit,
		Platform:       pulumi.String(c.platform()), // without it, the platform of the machine that deploys
	}
}

// credentials are those of the image's registry. They belong to the image and not to a provider: they are new each
// time, and a provider that differs makes Pulumi look at everything it has made.
func credentials(ctx *pulumi.Context, repository *ecr.Repository, opt pulumi.InvokeOption) *docker.RegistryArgs {
	token := ecr.GetAuthorizationTokenOutput(ctx, ecr.GetAuthorizationTokenOutputArgs{RegistryId: repository.RegistryId},
		opt)
	return &docker.RegistryArgs{
		Server:   repository.RepositoryUrl,
		Username: token.UserName(),
		Password: pulumi.ToSecret(token.Password()).(pulumi.StringOutput),
	}
}

// expireUntagged is a lifecycle policy that keeps some of the images whose tag has passed on to a later one.
// https://docs.aws.amazon.com/AmazonECR/latest/userguide/lifecycle_policy_parameters.html
const expireUntagged = `{"rules":[{"rulePriority":1,"description":"images that were replaced","selection":` +
	`{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":%d},"action":{"type":"expire"}}]}`
