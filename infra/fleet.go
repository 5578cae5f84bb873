package infra

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/appautoscaling"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/cloudwatch"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/ecs"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/rights"
)

// Fleet is workers in containers on Fargate spot, as many as the queue has tasks for and none when it
// is empty. Of what AWS has for this it needs the least: no machines, images of machines or launch
// templates as an Auto Scaling group, and no second queue as AWS Batch.
type Fleet struct {
	pulumi.ResourceState
}

// Of one container. ops plan compares with these.
const (
	fleetCPUs     = 4
	fleetMemoryMB = 8192
)

const (
	maxFleet      = 1000
	fleetIdle     = 5   // minutes without a task until the fleet is sent away
	fleetStopTime = 110 // seconds to hand a task back; Fargate gives 120
	fleetFile     = "/tmp/outputs.json"
)

var subnetPattern = regexp.MustCompile(`^subnet-[0-9a-f]{8,17}$`)

// checkFleet checks the fleet's settings together. Without a fleet and Lambda, machines with ops worker take the tasks.
func (c *Config) checkFleet(r *reader) {
	if c.FleetMaxWorkers > 0 && len(c.FleetSubnets) == 0 {
		r.refuse("fleetMaxWorkers", c.FleetMaxWorkers,
			"it needs fleetSubnets, public subnets such as those that aws ec2 describe-subnets --filters "+
				"Name=default-for-az,Values=true --query Subnets[].SubnetId lists: "+
				"pulumi config set --path 'fleetSubnets[0]' subnet-ID")
	}
	for _, id := range c.FleetSubnets {
		if !subnetPattern.MatchString(id) {
			r.refuse("fleetSubnets", id, "each must be the id of a subnet such as subnet-0123456789abcdef0")
		}
	}
}

// NewFleet registers the fleet. Its image is the stack's with ops in it, and its containers get the
// stack outputs, by which they find their way, in a variable.
func NewFleet(ctx *pulumi.Context, name, root string, s *Storage, q *Queue, image *Image, f *Function,
	outputs pulumi.Map, a account, c *Config, opts ...pulumi.ResourceOption) (_ *Fleet, err error) {
	defer caught(&err)
	fleet := &Fleet{}
	child := register(ctx, "Fleet", name, fleet, opts)
	tags := pulumi.ToStringMap(c.Tags)
	uri := build(ctx, name, root, "deploy/Dockerfile", "fleet", pulumi.StringMap{"IMAGE": image.URI}, image.repository, c,
		child) // its context is what deploy/Dockerfile.dockerignore leaves
	const service = "ecs-tasks.amazonaws.com"
	execution, _ := newRole(ctx, name+"-start", "ECS", service, "What ECS may do to start the fleet of "+c.Name, c, child,
		func(arns []string) []rights.Statement { return rights.Start(arns[0], arns[1]) }, image.repository.Arn, f.logGroupARN)
	worker, _ := newRole(ctx, name+"-work", "ECS", service, "What the fleet of "+c.Name+" may do", c, child,
		work, s.BucketARN, q.Tasks.Arn, q.DLQ.Arn, f.logGroupARN)
	task := must(ecs.NewTaskDefinition(ctx, name, &ecs.TaskDefinitionArgs{
		Family: pulumi.String(name), RequiresCompatibilities: pulumi.ToStringArray([]string{"FARGATE"}),
		NetworkMode: pulumi.String("awsvpc"),
		Cpu:         pulumi.String(strconv.Itoa(fleetCPUs * 1024)), Memory: pulumi.String(strconv.Itoa(fleetMemoryMB)),
		ExecutionRoleArn: execution.Arn, TaskRoleArn: worker.Arn,
		RuntimePlatform: &ecs.TaskDefinitionRuntimePlatformArgs{OperatingSystemFamily: pulumi.String("LINUX"),
			CpuArchitecture: pulumi.String(map[string]string{X86: "X86_64", ARM: "ARM64"}[c.Architecture])},
		ContainerDefinitions: containers(uri, f.LogGroup, outputs, a, c), Tags: tags,
	}, child))
	cluster := must(ecs.NewCluster(ctx, name, &ecs.ClusterArgs{Tags: tags}, child))
	const spot = "FARGATE_SPOT"
	providers := must(ecs.NewClusterCapacityProviders(ctx, name, &ecs.ClusterCapacityProvidersArgs{
		ClusterName: cluster.Name, CapacityProviders: pulumi.ToStringArray([]string{spot})}, child))
	workers := must(ecs.NewService(ctx, name, &ecs.ServiceArgs{
		Cluster: cluster.Arn, TaskDefinition: task.Arn, DesiredCount: pulumi.Int(0),
		CapacityProviderStrategies: ecs.ServiceCapacityProviderStrategyArray{&ecs.ServiceCapacityProviderStrategyArgs{
			CapacityProvider: pulumi.String(spot), Weight: pulumi.Int(1)}},
		NetworkConfiguration: &ecs.ServiceNetworkConfigurationArgs{Subnets: pulumi.ToStringArray(c.FleetSubnets),
			// the way to S3, SQS and ECR without a NAT gateway, which costs more than the fleet
			AssignPublicIp: pulumi.Bool(true)},
		DeploymentMinimumHealthyPercent: pulumi.Int(0), // workers of an old image hand their tasks to those of the new
		DeploymentMaximumPercent:        pulumi.Int(100),
		PropagateTags:                   pulumi.String("SERVICE"), Tags: tags,
	}, child, pulumi.DependsOn([]pulumi.Resource{providers}), pulumi.IgnoreChanges([]string{"desiredCount"})))
	scale(ctx, name, cluster, workers, q, f, c, child)
	return fleet, ctx.RegisterResourceOutputs(fleet, pulumi.Map{})
}

// containers are the definition of the task's one container. It has one worker, which runs as many
// generators side by side as it has CPUs and memory for, as in Lambda.
// https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html
func containers(uri, logGroup pulumi.StringOutput, outputs pulumi.Map, a account, c *Config) pulumi.StringOutput {
	type variable struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	type logs struct {
		Driver  string            `json:"logDriver"`
		Options map[string]string `json:"options"`
	}
	type container struct {
		Name        string     `json:"name"`
		Image       string     `json:"image"`
		Essential   bool       `json:"essential"`
		EntryPoint  []string   `json:"entryPoint"`
		Command     []string   `json:"command"`
		Environment []variable `json:"environment"`
		StopTimeout int        `json:"stopTimeout"`
		Logs        logs       `json:"logConfiguration"`
	}
	run := fmt.Sprintf(`printf %%s "$OUTPUTS" >%s && `+
		`exec ops --outputs %[1]s --local-dir /tmp/ops worker --workers 1 --timeout %ds`, fleetFile, c.TimeoutSeconds)
	return pulumi.All(uri, logGroup, outputs).ApplyT(func(known []any) (string, error) {
		variables, err := marshal(known[2])
		if err != nil {
			return "", err
		}
		return marshal([]container{{
			Name: "worker", Image: known[0].(string), Essential: true, EntryPoint: []string{"/bin/sh", "-c"},
			Command:     []string{run},
			Environment: []variable{{"OUTPUTS", variables}}, StopTimeout: fleetStopTime,
			Logs: logs{"awslogs", map[string]string{"awslogs-group": known[1].(string), "awslogs-region": a.region,
				"awslogs-stream-prefix": "fleet"}},
		}})
	}).(pulumi.StringOutput)
}

// scale registers what gives the service a container for each task that waits or is at work, in powers
// of two, and none after some minutes without a task. Tasks at work in Lambda do not count. Step scaling
// can leave zero, which target tracking cannot, and CloudWatch repeats an alarm's scaling action each
// minute. A container that is stopped with a task hands that back.
func scale(ctx *pulumi.Context, name string, cluster *ecs.Cluster, service *ecs.Service, q *Queue, f *Function,
	c *Config, child pulumi.ResourceOption) {
	target := must(appautoscaling.NewTarget(ctx, name, &appautoscaling.TargetArgs{
		MinCapacity: pulumi.Int(0), MaxCapacity: pulumi.Int(c.FleetMaxWorkers),
		ResourceId:        pulumi.Sprintf("service/%s/%s", cluster.Name, service.Name),
		ScalableDimension: pulumi.String("ecs:service:DesiredCount"), ServiceNamespace: pulumi.String("ecs"),
	}, child))
	metric := func(id, namespace, of, dimension string, value pulumi.StringOutput) *cloudwatch.MetricAlarmMetricQueryArgs {
		return &cloudwatch.MetricAlarmMetricQueryArgs{Id: pulumi.String(id), ReturnData: pulumi.Bool(false),
			Metric: &cloudwatch.MetricAlarmMetricQueryMetricArgs{Namespace: pulumi.String(namespace),
				MetricName: pulumi.String(of), Dimensions: pulumi.StringMap{dimension: value}, Period: pulumi.Int(60),
				Stat: pulumi.String("Maximum")}}
	}
	busy := "waiting + working"
	idle := busy + " + delayed" // the rest of a task that was handed back is delayed
	busyMetrics := cloudwatch.MetricAlarmMetricQueryArray{}
	if c.Lambda {
		busy += " - FILL(lambda, 0)"
		busyMetrics = append(busyMetrics, metric("lambda", lambdaNamespace, "ConcurrentExecutions", functionName, f.Name))
	}
	for _, p := range []struct {
		name, means, tasks string
		metrics            cloudwatch.MetricAlarmMetricQueryArray // beside those of tasks that wait and are at work
		compare, missing   string
		steps              appautoscaling.PolicyStepScalingPolicyConfigurationStepAdjustmentArray
		minutes            int
	}{
		{"busy", "There are tasks: the fleet has a container for each, up to fleetMaxWorkers.", busy, busyMetrics,
			"GreaterThanThreshold", "notBreaching", steps(c.FleetMaxWorkers), 1},
		{"idle", "There is no task: the fleet is sent away.", idle, cloudwatch.MetricAlarmMetricQueryArray{
			metric("delayed", sqsNamespace, "ApproximateNumberOfMessagesDelayed", queueName, q.Tasks.Name)},
			"LessThanOrEqualToThreshold", "breaching",
			appautoscaling.PolicyStepScalingPolicyConfigurationStepAdjustmentArray{
				&appautoscaling.PolicyStepScalingPolicyConfigurationStepAdjustmentArgs{
					MetricIntervalUpperBound: pulumi.String("0"), ScalingAdjustment: pulumi.Int(0)}}, fleetIdle},
	} {
		policy := must(appautoscaling.NewPolicy(ctx, name+"-"+p.name, &appautoscaling.PolicyArgs{
			PolicyType: pulumi.String("StepScaling"), ResourceId: target.ResourceId,
			ScalableDimension: target.ScalableDimension, ServiceNamespace: target.ServiceNamespace,
			StepScalingPolicyConfiguration: &appautoscaling.PolicyStepScalingPolicyConfigurationArgs{
				AdjustmentType: pulumi.String("ExactCapacity"), Cooldown: pulumi.Int(60),
				MetricAggregationType: pulumi.String("Maximum"), StepAdjustments: p.steps},
		}, child))
		must(cloudwatch.NewMetricAlarm(ctx, name+"-"+p.name, &cloudwatch.MetricAlarmArgs{
			AlarmDescription: pulumi.String(p.means),
			MetricQueries: append(p.metrics, metric("waiting", sqsNamespace, queueVisible, queueName, q.Tasks.Name),
				metric("working", sqsNamespace, "ApproximateNumberOfMessagesNotVisible", queueName, q.Tasks.Name),
				&cloudwatch.MetricAlarmMetricQueryArgs{Id: pulumi.String("tasks"), Expression: pulumi.String(p.tasks),
					Label: pulumi.String("tasks"), ReturnData: pulumi.Bool(true)}),
			ComparisonOperator: pulumi.String(p.compare), Threshold: pulumi.Float64(0), EvaluationPeriods: pulumi.Int(p.minutes),
			TreatMissingData: pulumi.String(p.missing), AlarmActions: pulumi.Array{policy.Arn}, Tags: pulumi.ToStringMap(c.Tags),
		}, child))
	}
}

// steps are the numbers of containers by the number of tasks: 1, 2, 4, 8 and so on for as many tasks or
// fewer, and most for more. A bound is the distance from the alarm's threshold, which is 0.
func steps(most int) (list appautoscaling.PolicyStepScalingPolicyConfigurationStepAdjustmentArray) {
	from := "0"
	for n := 1; ; n *= 2 {
		step := &appautoscaling.PolicyStepScalingPolicyConfigurationStepAdjustmentArgs{
			MetricIntervalLowerBound: pulumi.String(from), ScalingAdjustment: pulumi.Int(min(n, most))}
		list = append(list, step)
		if n >= most {
			return list
		}
		from = strconv.Itoa(n + 1)
		step.MetricIntervalUpperBound = pulumi.String(from)
	}
}
