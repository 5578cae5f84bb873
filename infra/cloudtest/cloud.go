// Package cloudtest lets the real Pulumi engine deploy the program without a
// cloud. It serves the providers that the engine attaches to: the aws side makes
// resources in a moto server through the AWS SDK and refuses wrong inputs, the
// docker side builds images with the daemon and pushes them to a registry on
// loopback. It also plays the part of Lambda: it takes messages from the queue
// of an event source mapping and gives them to the function's image.
//
// What moto does not check, or does otherwise than AWS, is written where it is
// made up for. The real plugins of Pulumi take no part in it.
package cloudtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	"github.com/aws/aws-sdk-go-v2/service/budgets"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/schemas"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"
	pulumiaws "github.com/pulumi/pulumi-aws/sdk/v6/go/aws"
	pulumidocker "github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// Versions of the plugins that the program's SDKs ask for.
const (
	awsVersion    = "6.83.2"
	dockerVersion = "4.11.2"
)

// Placeholder credentials. moto takes any.
const (
	accessKey = "cloudtest"
	secretKey = "cloudtest-placeholder-secret"
)

// Options say where the cloud of a test is.
type Options struct {
	Endpoint string // of a moto server
	Registry string // host:port of a registry on loopback without a password
}

// Cloud is what the providers make resources in. Relative paths of a program
// begin at this process's working directory, as they do for Pulumi's plugins.
type Cloud struct {
	Region  string
	Account string

	// RefuseImages has Lambda refuse the image of every update of a function.
	RefuseImages atomic.Bool

	quota      atomic.Int32 // of workers at once
	moto       string       // URL
	endpoint   string       // URL of AWS for tools
	server     *http.Server // behind it
	dockerPath string
	config     aws.Config
	sqs        *sqs.Client
	s3         *s3.Client
	ecr        *ecr.Client
	iam        *iam.Client
	lambda     *lambda.Client
	logs       *cloudwatchlogs.Client
	cloudwatch *cloudwatch.Client
	sns        *sns.Client
	ecs        *ecs.Client
	scaling    *applicationautoscaling.Client
	budgets    *budgets.Client
	registry   *registry
	kept       sync.Map // what moto has no room for
	providers  string   // as PULUMI_DEBUG_PROVIDERS takes it
	stop       chan bool
}

// Start serves the providers. Close ends them.
func Start(ctx context.Context, o Options) (*Cloud, error) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		return nil, err
	}
	config := aws.Config{Region: stack.DefaultRegion, BaseEndpoint: &o.Endpoint,
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""), HTTPClient: store.HTTPClient(nil)}
	c := &Cloud{
		Region: config.Region, moto: o.Endpoint, dockerPath: docker, config: config, stop: make(chan bool),
		sqs: sqs.NewFromConfig(config), s3: s3.NewFromConfig(config, store.ClientOptions), ecr: ecr.NewFromConfig(config),
		iam:  iam.NewFromConfig(config),
		logs: cloudwatchlogs.NewFromConfig(config), cloudwatch: cloudwatch.NewFromConfig(config, cloudwatchJSON),
		sns: sns.NewFromConfig(config), ecs: ecs.NewFromConfig(config),
		scaling: applicationautoscaling.NewFromConfig(config), budgets: budgets.NewFromConfig(config),
	}
	who, err := sts.NewFromConfig(config).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return nil, fmt.Errorf("moto at %s: %w", o.Endpoint, err)
	}
	c.Account = *who.Account
	c.SetQuota(1000) // of an account that is not new
	if c.server, c.endpoint, err = startEndpoint(c, o.Endpoint); err != nil {
		return nil, err
	}
	config.BaseEndpoint = &c.endpoint
	c.lambda = lambda.NewFromConfig(config)
	if c.registry, err = startRegistry(o.Registry, c.ecr); err != nil {
		return nil, err
	}
	resources := map[tokens.Type]resourceType{}
	for _, types := range []map[tokens.Type]resourceType{queueTypes(), bucketTypes(), repositoryTypes(), roleTypes(),
		functionTypes(), aliasTypes(), watchTypes(), budgetTypes(), fleetTypes(), scalingTypes()} {
		for t, rt := range types {
			resources[t] = rt
		}
	}
	awsPort, err := c.serve(&provider{cloud: c, pkg: "aws", version: awsVersion,
		config: schema{args: argsOf[pulumiaws.ProviderArgs](), required: []string{"region"}}, resources: resources,
		invokes: invokes()})
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	dockerPort, err := c.serve(&provider{cloud: c, pkg: "docker", version: dockerVersion,
		config: schema{args: argsOf[pulumidocker.ProviderArgs]()}, resources: c.imageTypes()})
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.providers = fmt.Sprintf("aws:%d,docker:%d", awsPort, dockerPort)
	return c, nil
}

// SetQuota sets how many workers the account may have at once.
func (c *Cloud) SetQuota(workers int) { c.quota.Store(int32(workers)) }

// cloudwatchJSON has CloudWatch's client speak JSON: moto cannot read CBOR.
func cloudwatchJSON(o *cloudwatch.Options) {
	o.Protocol = awsjson.New10(schemas.GraniteServiceVersion20100801)
}

func (c *Cloud) serve(p *provider) (port int, err error) {
	h, err := rpcutil.ServeWithOptions(rpcutil.ServeOptions{Cancel: c.stop, Init: func(s *grpc.Server) error {
		pulumirpc.RegisterResourceProviderServer(s, plugin.NewProviderServer(p))
		return nil
	}})
	return h.Port, err
}

// Close ends the providers. What they have made stays.
func (c *Cloud) Close() error {
	close(c.stop)
	return errors.Join(c.registry.server.Close(), c.server.Close())
}

// Environment has the variables with which Pulumi deploys into this cloud, with
// its state in a folder, and AWS's tools use it.
func (c *Cloud) Environment(state string) map[string]string {
	return map[string]string{
		"PULUMI_DEBUG_PROVIDERS": c.providers, "PULUMI_BACKEND_URL": "file://" + state,
		"PULUMI_HOME": filepath.Join(state, "home"), "PULUMI_CONFIG_PASSPHRASE": "cloudtest",
		"PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true", "PULUMI_SKIP_UPDATE_CHECK": "true",
		"AWS_ENDPOINT_URL": c.endpoint, "AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": secretKey,
		"AWS_REGION":      c.Region,
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
	}
}
