package infra_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/rights"
	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
)

const fleet = name + "-fleet"

var withFleet = map[string]string{"fleetMaxWorkers": "20", "fleetSubnets": `["subnet-0123456789abcdef0"]`}

// A stack has no fleet unless it is configured, and each that is wrong is refused in a sentence.
func TestFleetSettings(t *testing.T) {
	for _, r := range deploy(t, nil).resources {
		if strings.Contains(r.Type, "Fleet") || strings.HasPrefix(r.Type, "aws:ecs") {
			t.Errorf("there is a %s", r.Type)
		}
	}
	for _, test := range []struct {
		config map[string]string
		says   string
	}{
		{map[string]string{"fleetMaxWorkers": "20"}, "vm-dataset:fleetMaxWorkers is 20, it needs fleetSubnets"},
		{map[string]string{"fleetMaxWorkers": "1001"}, "it must be an integer from 0 to 1000"},
		{map[string]string{"fleetMaxWorkers": "1", "fleetSubnets": `["vpc-1"]`},
			`vm-dataset:fleetSubnets is "vpc-1", each must be the id of a subnet`},
		{map[string]string{"lambda": "off"}, "it must be true or false"},
	} {
		_, err := try(t, repository(t, "maze"), stackName, test.config)
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%v: %v", test.config, err)
		}
	}
}

// What the fleet's containers run, with which rights, and where.
func TestFleet(t *testing.T) {
	d := deploy(t, withFleet)
	for _, r := range d.resources {
		if strings.HasPrefix(r.Parent, fleet) && r.Name != fleet && !strings.HasPrefix(r.Name, fleet+"-") {
			t.Errorf("%s %s is not named from %s", r.Type, r.Name, fleet)
		}
	}
	uri := "123456789012.dkr.ecr.us-east-2.amazonaws.com/" + name + "-image-0123abc"
	d.the(t, "docker:index/image:Image", fleet).want(t, map[string]any{"imageName": uri + ":fleet",
		"build.args": map[string]any{"IMAGE": uri + "@" + digest}, "build.platform": "linux/amd64"})
	definition := d.the(t, "aws:ecs/taskDefinition:TaskDefinition", fleet)
	definition.want(t, map[string]any{"cpu": "4096", "memory": "8192", "networkMode": "awsvpc",
		"runtimePlatform.cpuArchitecture": "X86_64",
		"taskRoleArn":                     "arn:aws:iam::123456789012:role/" + fleet + "-work-0123abc",
		"executionRoleArn":                "arn:aws:iam::123456789012:role/" + fleet + "-start-0123abc"})
	var containers []struct {
		Image            string
		Command          []string
		Environment      []struct{ Name, Value string }
		StopTimeout      int
		LogConfiguration struct{ Options map[string]string }
	}
	if err := json.Unmarshal([]byte(definition.at("containerDefinitions").(string)), &containers); err != nil {
		t.Fatal(err)
	}
	c := containers[0]
	outputs, err := stack.Parse([]byte(c.Environment[0].Value))
	if err != nil || outputs.QueueARN == "" || outputs.LogGroupName != c.LogConfiguration.Options["awslogs-group"] ||
		outputs.FleetWorkers != 20 || len(outputs.Generators) != 2 {
		t.Errorf("outputs %+v, %v", outputs, err)
	}
	if c.Image != uri+"@"+digest || c.StopTimeout != 110 ||
		!strings.Contains(c.Command[0],
			"exec ops --outputs /tmp/outputs.json --local-dir /tmp/ops worker --workers 1 --timeout 900s") {
		t.Errorf("%+v", c)
	}
	service := d.the(t, "aws:ecs/service:Service", fleet)
	service.want(t, map[string]any{"desiredCount": 0.0, "capacityProviderStrategies.0.capacityProvider": "FARGATE_SPOT",
		"networkConfiguration.subnets.0": "subnet-0123456789abcdef0", "networkConfiguration.assignPublicIp": true})
	if !slices.Equal(service.Ignores, []string{"desiredCount"}) {
		t.Errorf("pulumi up would change %v back", service.Ignores)
	}
	// The containers may what the function may, and nothing else.
	mine := d.the(t, "aws:iam/rolePolicy:RolePolicy", fleet+"-work").at("policy")
	if mine != d.the(t, "aws:iam/rolePolicy:RolePolicy", worker).at("policy") {
		t.Errorf("the fleet may %v", mine)
	}
	text, _ := d.the(t, "aws:iam/rolePolicy:RolePolicy", fleet+"-start").at("policy").(string)
	var start rights.Policy
	if err := json.Unmarshal([]byte(text), &start); err != nil {
		t.Fatal(err)
	}
	for _, s := range start.Statement {
		if slices.Contains(s.Resource, "*") != (s.Sid == "Token") {
			t.Errorf("%+v", s)
		}
	}
}

// The fleet grows with the tasks that wait or are at work outside Lambda, in powers of two up to its most, and goes to
// zero when none waits, is delayed or at work; the bounds leave no number of tasks out.
func TestFleetScales(t *testing.T) {
	d := deploy(t, withFleet)
	d.the(t, "aws:appautoscaling/target:Target", fleet).want(t, map[string]any{"minCapacity": 0.0, "maxCapacity": 20.0,
		"resourceId": "service/" + fleet + "-0123abc/" + fleet + "-0123abc"})
	busy := d.the(t, "aws:appautoscaling/policy:Policy", fleet+"-busy")
	at := func(tasks float64) float64 {
		found := -1.0
		for i := 0; busy.at(fmt.Sprintf("stepScalingPolicyConfiguration.stepAdjustments.%d", i)) != nil; i++ {
			step := fmt.Sprintf("stepScalingPolicyConfiguration.stepAdjustments.%d.", i)
			bound := func(name string, otherwise float64) float64 {
				value := otherwise
				if text, ok := busy.at(step + name).(string); ok {
					_, _ = fmt.Sscan(text, &value)
				}
				return value
			}
			if tasks >= bound("metricIntervalLowerBound", -1) && tasks < bound("metricIntervalUpperBound", 1e9) {
				if found >= 0 {
					t.Errorf("two steps for %v tasks", tasks)
				}
				found, _ = busy.at(step + "scalingAdjustment").(float64)
			}
		}
		return found
	}
	for tasks, want := range map[float64]float64{1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 16: 16, 17: 20, 100_000: 20} {
		if got := at(tasks); got != want {
			t.Errorf("%v containers for %v tasks, want %v", got, tasks, want)
		}
	}
	idle := d.the(t, "aws:appautoscaling/policy:Policy", fleet+"-idle")
	idle.want(t, map[string]any{"stepScalingPolicyConfiguration.stepAdjustments.0.scalingAdjustment": 0.0,
		"stepScalingPolicyConfiguration.adjustmentType": "ExactCapacity"})
	for _, a := range []struct {
		name, tasks, beside, compare, missing string
		minutes                               float64
	}{{"busy", "waiting + working - FILL(lambda, 0)", "ConcurrentExecutions", "GreaterThanThreshold", "notBreaching", 1},
		{"idle", "waiting + working + delayed", "ApproximateNumberOfMessagesDelayed", "LessThanOrEqualToThreshold",
			"breaching", 5}} {
		alarm := d.the(t, "aws:cloudwatch/metricAlarm:MetricAlarm", fleet+"-"+a.name)
		alarm.want(t, map[string]any{"comparisonOperator": a.compare, "treatMissingData": a.missing, "threshold": 0.0,
			"evaluationPeriods": a.minutes, "metricQueries.3.expression": a.tasks,
			"metricQueries.0.metric.metricName": a.beside,
			"metricQueries.1.metric.dimensions": map[string]any{"QueueName": tasks + "-0123abc"},
			"alarmActions.0":                    "arn:aws:autoscaling:us-east-2:123456789012:scalingPolicy:" + fleet + "-" + a.name + "-0123abc"})
	}
}

// An organisation's boundary, base image and instruction set are the fleet's, too.
func TestFleetOfOrganisation(t *testing.T) {
	const boundary = "arn:aws:iam::123456789012:policy/boundary"
	config := map[string]string{"permissionsBoundary": boundary, "architecture": "arm64", "builderImage": "mirror/go:1"}
	maps.Copy(config, withFleet)
	d := deploy(t, config)
	for _, role := range []string{"-start", "-work"} {
		d.the(t, "aws:iam/role:Role", fleet+role).want(t, map[string]any{"permissionsBoundary": boundary})
	}
	d.the(t, "docker:index/image:Image", fleet).want(t, map[string]any{"build.args.BUILDER_IMAGE": "mirror/go:1",
		"build.platform": "linux/arm64"})
	d.the(t, "aws:ecs/taskDefinition:TaskDefinition", fleet).want(t,
		map[string]any{"runtimePlatform.cpuArchitecture": "ARM64"})
}

// A fleet can stand alone: then the function takes no tasks.
func TestFleetAlone(t *testing.T) {
	config := map[string]string{"lambda": "false"}
	maps.Copy(config, withFleet)
	d := deploy(t, config)
	if list := d.all("aws:lambda/eventSourceMapping:EventSourceMapping"); len(list) > 0 {
		t.Errorf("the function takes tasks: %v", list)
	}
	d.the(t, "aws:cloudwatch/metricAlarm:MetricAlarm", fleet+"-busy").want(t,
		map[string]any{"metricQueries.2.expression": "waiting + working"})
	if d.outputs[stack.OutEventSourceMappingID] != "" || d.outputs[stack.OutFleetWorkers] != 20 {
		t.Errorf("%v, %v", d.outputs[stack.OutEventSourceMappingID], d.outputs[stack.OutFleetWorkers])
	}
	// Nor need there be a fleet: machines of one's own take tasks, too.
	d = deploy(t, map[string]string{"lambda": "false"})
	if n := len(d.all("aws:lambda/eventSourceMapping:EventSourceMapping")) + len(d.all("aws:ecs/service:Service")); n > 0 {
		t.Errorf("%d take tasks", n)
	}
}
