package cloudtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	pulumiecs "github.com/pulumi/pulumi-aws/sdk/v6/go/aws/ecs"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

// fleetTypes are those of ECS, on Fargate.
// https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RegisterTaskDefinition.html
// https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateService.html
func fleetTypes() map[tokens.Type]resourceType {
	providers := oneOf("FARGATE", "FARGATE_SPOT")
	ecsName := matches(`[A-Za-z0-9_-]+`, 255)
	role := matches(`arn:aws:iam::\d{12}:role/.+`, 2048)
	return map[tokens.Type]resourceType{
		"aws:ecs/cluster:Cluster": {
			schema: schema{
				args: argsOf[pulumiecs.ClusterArgs](), state: reflect.TypeFor[pulumiecs.Cluster](),
				rules: map[string]rule{"name": ecsName}, together: knows("clusters", "name", "tags"),
			},
			name: "name", nameMax: 255, fixed: []string{"name"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				out, err := c.ecs.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: in.textPtr("name"), Tags: ecsTags(in)})
				if err != nil {
					return "", err
				}
				return *out.Cluster.ClusterArn, nil
			},
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				found, err := cluster(ctx, c, id)
				if err != nil {
					return props{}, err
				}
				return outputs(map[string]any{"name": *found.ClusterName, "arn": id}), nil
			},
			update: updateECSTags,
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				_, err := c.ecs.DeleteCluster(ctx, &ecs.DeleteClusterInput{Cluster: &id})
				return err
			},
		},
		"aws:ecs/clusterCapacityProviders:ClusterCapacityProviders": {
			schema: schema{
				args:     argsOf[pulumiecs.ClusterCapacityProvidersArgs](),
				state:    reflect.TypeFor[pulumiecs.ClusterCapacityProviders](),
				rules:    map[string]rule{"capacityProviders": items(0, 20), "capacityProviders[]": providers},
				together: knows("capacity providers", "clusterName", "capacityProviders"),
			},
			fixed: []string{"clusterName"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				id := in.text("clusterName")
				return id, putProviders(ctx, c, id, in.texts("capacityProviders"))
			},
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				found, err := cluster(ctx, c, id)
				if err != nil {
					return props{}, err
				}
				all := make([]any, 0, len(found.CapacityProviders))
				for _, p := range found.CapacityProviders {
					all = append(all, p)
				}
				return outputs(map[string]any{"clusterName": id, "capacityProviders": all}), nil
			},
			update: func(ctx context.Context, c *Cloud, id string, _, in props) error {
				return putProviders(ctx, c, id, in.texts("capacityProviders"))
			},
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				return putProviders(ctx, c, id, []string{})
			},
		},
		"aws:ecs/taskDefinition:TaskDefinition": {
			schema: schema{
				args: argsOf[pulumiecs.TaskDefinitionArgs](), state: reflect.TypeFor[pulumiecs.TaskDefinition](),
				required: []string{"requiresCompatibilities", "networkMode", "cpu", "memory", "executionRoleArn"},
				rules: map[string]rule{
					"family": ecsName, "containerDefinitions": isContainers, "requiresCompatibilities": items(1, 1),
					"requiresCompatibilities[]": oneOf("FARGATE"), "networkMode": oneOf("awsvpc"), "executionRoleArn": role,
					"taskRoleArn": role, "runtimePlatform.operatingSystemFamily": oneOf("LINUX"),
					"runtimePlatform.cpuArchitecture": oneOf("X86_64", "ARM64"),
				},
				together: func(in props) error {
					size, ok := fargateMemory[in.text("cpu")]
					mb, err := strconv.Atoi(in.text("memory"))
					if !ok || err != nil || mb < size.from || mb > size.to || mb%size.step != 0 {
						return fmt.Errorf("cpu %s with memory %s is no size of Fargate", in.text("cpu"), in.text("memory"))
					}
					return knows("task definitions", "family", "containerDefinitions", "requiresCompatibilities", "networkMode", "cpu",
						"memory", "executionRoleArn", "taskRoleArn", "runtimePlatform", "tags")(in)
				},
			},
			fixed: []string{"family", "containerDefinitions", "requiresCompatibilities", "networkMode", "cpu", "memory",
				"executionRoleArn", "taskRoleArn", "runtimePlatform"},
			beside: true, // each has a revision of its own
			create: createTaskDefinition,
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				d, err := taskDefinition(ctx, c, id)
				if err != nil {
					return props{}, err
				}
				return outputs(map[string]any{"arn": id, "arnWithoutRevision": id[:strings.LastIndex(id, ":")],
					"family": *d.Family, "revision": int(d.Revision), "cpu": *d.Cpu, "memory": *d.Memory,
					"networkMode": string(d.NetworkMode), "executionRoleArn": aws.ToString(d.ExecutionRoleArn)}), nil
			},
			update: updateECSTags,
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				_, err := c.ecs.DeregisterTaskDefinition(ctx, &ecs.DeregisterTaskDefinitionInput{TaskDefinition: &id})
				return err
			},
		},
		"aws:ecs/service:Service": {
			schema: schema{
				args: argsOf[pulumiecs.ServiceArgs](), state: reflect.TypeFor[pulumiecs.Service](),
				required: []string{"cluster", "taskDefinition", "networkConfiguration", "capacityProviderStrategies"},
				rules: map[string]rule{
					"name": ecsName, "cluster": arn("ecs"), "taskDefinition": arn("ecs"), "desiredCount": between(0, 5000),
					"capacityProviderStrategies":                    items(1, 20),
					"capacityProviderStrategies[].capacityProvider": providers,
					"capacityProviderStrategies[].weight":           between(0, 1000),
					"networkConfiguration.subnets":                  items(1, 16),
					"networkConfiguration.subnets[]":                matches(`subnet-[0-9a-f]{8,17}`, 24),
					"propagateTags":                                 oneOf("SERVICE", "TASK_DEFINITION", "NONE"),
				},
				together: func(in props) error {
					if low, high := in.number("deploymentMinimumHealthyPercent"), in.number("deploymentMaximumPercent"); low > 100 ||
						high <= low {
						return fmt.Errorf("a deployment from %d to %d percent can replace no task", low, high)
					}
					return knows("services", "name", "cluster", "taskDefinition", "desiredCount", "capacityProviderStrategies",
						"networkConfiguration", "deploymentMinimumHealthyPercent", "deploymentMaximumPercent",
						"propagateTags", "tags")(in)
				},
			},
			name: "name", nameMax: 255, fixed: []string{"name", "cluster"},
			create: createService,
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				cluster, name := serviceOf(id)
				out, err := c.ecs.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: &cluster, Services: []string{name}})
				if err != nil {
					return props{}, err
				}
				if len(out.Services) == 0 || aws.ToString(out.Services[0].Status) != "ACTIVE" {
					return props{}, errGone
				}
				s := out.Services[0]
				return outputs(map[string]any{"name": name, "cluster": *s.ClusterArn, "taskDefinition": *s.TaskDefinition,
					"desiredCount": int(s.DesiredCount)}), nil
			},
			update: func(ctx context.Context, c *Cloud, id string, old, in props) error {
				if err := serviceCanBe(ctx, c, in); err != nil {
					return err
				}
				input := serviceUpdate(id, in)
				input.TaskDefinition, input.NetworkConfiguration = in.textPtr("taskDefinition"), network(in)
				input.PropagateTags = types.PropagateTags(in.text("propagateTags"))
				if old.number("desiredCount") != in.number("desiredCount") { // else it stays what the scaling made of it
					input.DesiredCount = in.numberPtr("desiredCount")
				}
				if _, err := c.ecs.UpdateService(ctx, input); err != nil {
					return err
				}
				return updateECSTags(ctx, c, id, old, in)
			},
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				cluster, name := serviceOf(id)
				if _, err := c.ecs.UpdateService(ctx, &ecs.UpdateServiceInput{Cluster: &cluster, Service: &name,
					DesiredCount: aws.Int32(0)}); err != nil {
					return err
				}
				_, err := c.ecs.DeleteService(ctx, &ecs.DeleteServiceInput{Cluster: &cluster, Service: &name})
				return err
			},
		},
	}
}

// fargateMemory is how many MB a task may have with so many CPU units.
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
var fargateMemory = map[string]struct{ from, to, step int }{
	"512": {1024, 4096, 1024}, "1024": {2048, 8192, 1024}, "2048": {4096, 16384, 1024}, "4096": {8192, 30720, 1024},
	"8192": {16384, 61440, 4096}, "16384": {32768, 122880, 8192},
}

// isContainers allows the definitions of a task's containers with what Fargate needs of them.
func isContainers(v any) string {
	var all []types.ContainerDefinition
	if err := strictJSON(v, &all); err != nil {
		return "is no list of containers: " + err.Error()
	}
	essential := false
	for _, d := range all {
		log := d.LogConfiguration
		switch {
		case aws.ToString(d.Name) == "" || !byDigest.MatchString(aws.ToString(d.Image)):
			return fmt.Sprintf("has a container %q with the image %q; it must have a name, and an image by digest",
				aws.ToString(d.Name), aws.ToString(d.Image))
		case aws.ToInt32(d.StopTimeout) > 120:
			return fmt.Sprintf("has a stopTimeout of %d s; allowed are 120", *d.StopTimeout)
		case log == nil || log.LogDriver != types.LogDriverAwslogs:
			return "has a container without the log driver awslogs"
		}
		for _, name := range []string{"awslogs-group", "awslogs-region", "awslogs-stream-prefix"} {
			if log.Options[name] == "" {
				return "has a log driver without " + name
			}
		}
		essential = essential || aws.ToBool(d.Essential)
	}
	if !essential {
		return "has no essential container"
	}
	return ""
}

var byDigest = regexp.MustCompile(`^[^@\s]+@sha256:[0-9a-f]{64}$`)

func cluster(ctx context.Context, c *Cloud, name string) (*types.Cluster, error) {
	out, err := c.ecs.DescribeClusters(ctx, &ecs.DescribeClustersInput{Clusters: []string{name}})
	if err != nil {
		return nil, err
	}
	if len(out.Clusters) == 0 || aws.ToString(out.Clusters[0].Status) != "ACTIVE" { // one that was deleted is INACTIVE
		return nil, errGone
	}
	return &out.Clusters[0], nil
}

func putProviders(ctx context.Context, c *Cloud, cluster string, providers []string) error {
	_, err := c.ecs.PutClusterCapacityProviders(ctx, &ecs.PutClusterCapacityProvidersInput{Cluster: &cluster,
		CapacityProviders: providers, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{}})
	return err
}

func createTaskDefinition(ctx context.Context, c *Cloud, in props) (string, error) {
	var containers []types.ContainerDefinition
	if err := strictJSON(in.get("containerDefinitions"), &containers); err != nil {
		return "", err
	}
	platform := in.object("runtimePlatform")
	out, err := c.ecs.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{
		Family: in.textPtr("family"), ContainerDefinitions: containers, Cpu: in.textPtr("cpu"), Memory: in.textPtr("memory"),
		NetworkMode: types.NetworkMode(in.text("networkMode")), ExecutionRoleArn: in.textPtr("executionRoleArn"),
		RequiresCompatibilities: []types.Compatibility{types.CompatibilityFargate}, TaskRoleArn: in.textPtr("taskRoleArn"),
		RuntimePlatform: &types.RuntimePlatform{CpuArchitecture: types.CPUArchitecture(platform.text("cpuArchitecture")),
			OperatingSystemFamily: types.OSFamily(platform.text("operatingSystemFamily"))}, Tags: ecsTags(in),
	})
	if err != nil {
		return "", err
	}
	return *out.TaskDefinition.TaskDefinitionArn, nil
}

func taskDefinition(ctx context.Context, c *Cloud, id string) (*types.TaskDefinition, error) {
	out, err := c.ecs.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: &id})
	if err != nil {
		return nil, err
	}
	if out.TaskDefinition.Status != types.TaskDefinitionStatusActive {
		return nil, errGone
	}
	return out.TaskDefinition, nil
}

// serviceOf returns cluster and name of a service's ARN.
func serviceOf(arn string) (cluster, name string) {
	parts := strings.Split(arn, "/")
	return parts[1], parts[2]
}

func createService(ctx context.Context, c *Cloud, in props) (string, error) {
	if err := serviceCanBe(ctx, c, in); err != nil {
		return "", err
	}
	out, err := c.ecs.CreateService(ctx, &ecs.CreateServiceInput{
		ServiceName: in.textPtr("name"), Cluster: in.textPtr("cluster"), TaskDefinition: in.textPtr("taskDefinition"),
		DesiredCount: in.numberPtr("desiredCount"), NetworkConfiguration: network(in),
		PropagateTags: types.PropagateTags(in.text("propagateTags")), Tags: ecsTags(in),
	})
	if err != nil {
		return "", err
	}
	// moto forgets what these say when it makes a service, and not when it updates one.
	_, err = c.ecs.UpdateService(ctx, serviceUpdate(*out.Service.ServiceArn, in))
	return *out.Service.ServiceArn, err
}

func serviceUpdate(id string, in props) *ecs.UpdateServiceInput {
	cluster, name := serviceOf(id)
	input := &ecs.UpdateServiceInput{Cluster: &cluster, Service: &name,
		DeploymentConfiguration: &types.DeploymentConfiguration{MaximumPercent: in.numberPtr("deploymentMaximumPercent"),
			MinimumHealthyPercent: in.numberPtr("deploymentMinimumHealthyPercent")}}
	for _, s := range in.objects("capacityProviderStrategies") {
		input.CapacityProviderStrategy = append(input.CapacityProviderStrategy, types.CapacityProviderStrategyItem{
			CapacityProvider: s.textPtr("capacityProvider"), Weight: s.number("weight"), Base: s.number("base")})
	}
	return input
}

// network has an empty list of security groups where none are given, which moto needs.
func network(in props) *types.NetworkConfiguration {
	n := in.object("networkConfiguration")
	public := types.AssignPublicIpDisabled
	if n.flag("assignPublicIp") {
		public = types.AssignPublicIpEnabled
	}
	return &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: n.texts("subnets"),
		SecurityGroups: n.texts("securityGroups"), AssignPublicIp: public}}
}

// serviceCanBe makes the checks that ECS makes and moto does not, and, with the first, those that it
// makes when it starts a task: the cluster has the capacity providers, the image is there and for the
// task's instruction set, and the role that starts it may pull it and write the log.
func serviceCanBe(ctx context.Context, c *Cloud, in props) error {
	found, err := cluster(ctx, c, in.text("cluster"))
	if err != nil {
		return fmt.Errorf("the cluster %s: %w", in.text("cluster"), err)
	}
	for _, s := range in.objects("capacityProviderStrategies") {
		if p := s.text("capacityProvider"); !slices.Contains(found.CapacityProviders, p) {
			return fmt.Errorf("the capacity provider %s is not associated with the cluster %s", p, *found.ClusterName)
		}
	}
	d, err := taskDefinition(ctx, c, in.text("taskDefinition"))
	if err != nil {
		return fmt.Errorf("the task definition %s: %w", in.text("taskDefinition"), err)
	}
	policies, err := rolePolicies(ctx, c, *d.ExecutionRoleArn)
	if err != nil {
		return fmt.Errorf("the role %s: %w", *d.ExecutionRoleArn, err)
	}
	if d.TaskRoleArn != nil {
		if _, err := rolePolicies(ctx, c, *d.TaskRoleArn); err != nil {
			return fmt.Errorf("the role %s: %w", *d.TaskRoleArn, err)
		}
	}
	architecture := map[types.CPUArchitecture]string{"X86_64": "amd64", "ARM64": "arm64"}[d.RuntimePlatform.CpuArchitecture]
	for _, container := range d.ContainerDefinitions {
		repository, digest, _ := strings.Cut(*container.Image, "@")
		if err := c.registry.runnable(ctx, repository, digest, architecture); err != nil {
			return err
		}
		images := "arn:aws:ecr:" + c.Region + ":" + c.Account + ":repository/" + strings.TrimPrefix(repository,
			c.registry.address+"/")
		stream := "arn:aws:logs:" + c.Region + ":" + c.Account + ":log-group:" +
			container.LogConfiguration.Options["awslogs-group"] + ":log-stream:fleet"
		for action, on := range map[string]string{"ecr:GetAuthorizationToken": "*", "ecr:BatchGetImage": images,
			"ecr:GetDownloadUrlForLayer": images, "logs:CreateLogStream": stream, "logs:PutLogEvents": stream} {
			if !allows(policies, action, on, nil) {
				return fmt.Errorf("the role %s may not %s on %s", *d.ExecutionRoleArn, action, on)
			}
		}
	}
	return nil
}

func ecsTags(in props) []types.Tag {
	var tags []types.Tag
	for key, v := range in.textMap("tags") {
		tags = append(tags, types.Tag{Key: aws.String(key), Value: aws.String(v)})
	}
	return tags
}

// updateECSTags changes the tags of what has an ARN as its id.
func updateECSTags(ctx context.Context, c *Cloud, id string, old, in props) error {
	var err error
	if gone := goneTags(old, in); len(gone) > 0 {
		_, err = c.ecs.UntagResource(ctx, &ecs.UntagResourceInput{ResourceArn: &id, TagKeys: gone})
	}
	if tags := ecsTags(in); len(tags) > 0 {
		_, set := c.ecs.TagResource(ctx, &ecs.TagResourceInput{ResourceArn: &id, Tags: tags})
		err = errors.Join(err, set)
	}
	return err
}
