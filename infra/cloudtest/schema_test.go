package cloudtest

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

// Wrong inputs are refused by name: unknown, missing, of another type, out of
// range, not among those allowed.
func TestWrongInputs(t *testing.T) {
	types := map[tokens.Type]resourceType{}
	for _, some := range []map[tokens.Type]resourceType{queueTypes(), bucketTypes(), repositoryTypes(), roleTypes(),
		functionTypes(), watchTypes(), budgetTypes(), fleetTypes(), scalingTypes(), (&Cloud{}).imageTypes()} {
		maps.Copy(types, some)
	}
	type m = map[string]any
	function := m{"name": "f", "role": "arn:aws:iam::123456789012:role/r", "packageType": "Image",
		"imageUri": "host/name@sha256:" + strings.Repeat("0", 64), "timeout": 900}
	image := m{
		"imageName": "127.0.0.1:5000/name:latest", "build": m{"context": ".", "dockerfile": "Dockerfile",
			"platform": "linux/amd64"},
		"registry": m{"server": "127.0.0.1:5000", "username": "AWS", "password": "secret"},
	}
	with := func(base m, change m) m {
		all := maps.Clone(base)
		maps.Copy(all, change)
		maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
		return all
	}
	container := func(change m) string {
		text, err := json.Marshal([]m{with(m{"name": "worker", "image": "host/name@sha256:" + strings.Repeat("0", 64),
			"essential": true, "logConfiguration": m{"logDriver": "awslogs", "options": m{"awslogs-group": "g",
				"awslogs-region": "us-east-2", "awslogs-stream-prefix": "fleet"}}}, change)})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	definition := m{"family": "f", "requiresCompatibilities": []any{"FARGATE"}, "networkMode": "awsvpc", "cpu": "4096",
		"memory": "8192", "executionRoleArn": "arn:aws:iam::123456789012:role/r", "containerDefinitions": container(nil)}
	service := m{"cluster": "arn:aws:ecs:us-east-2:1:cluster/c",
		"taskDefinition":             "arn:aws:ecs:us-east-2:1:task-definition/f:1",
		"capacityProviderStrategies": []any{m{"capacityProvider": "FARGATE_SPOT", "weight": 1}},
		"networkConfiguration":       m{"subnets": []any{"subnet-01234567"}}, "deploymentMaximumPercent": 100}
	scaled := m{"resourceId": "service/c/s", "serviceNamespace": "ecs", "scalableDimension": "ecs:service:DesiredCount"}
	target := with(scaled, m{"minCapacity": 0, "maxCapacity": 20})
	stepping := func(steps ...any) m {
		return with(scaled, m{"policyType": "StepScaling", "stepScalingPolicyConfiguration": m{
			"adjustmentType": "ExactCapacity", "stepAdjustments": steps}})
	}
	step := func(low, high any) m {
		return with(m{"scalingAdjustment": 1}, m{"metricIntervalLowerBound": low, "metricIntervalUpperBound": high})
	}
	budget := m{"budgetType": "COST", "limitAmount": "50", "limitUnit": "USD", "timeUnit": "MONTHLY", "costFilters": []any{
		m{"name": "TagKeyValue", "values": []any{"user:stack$dev"}}}}
	warning := func(change m) m {
		return with(budget, m{"notifications": []any{with(m{"notificationType": "ACTUAL",
			"comparisonOperator": "GREATER_THAN", "threshold": 80, "thresholdType": "PERCENTAGE",
			"subscriberEmailAddresses": []any{"team@example.com"}}, change)}})
	}
	waiting := m{"id": "waiting", "metric": m{"namespace": "AWS/SQS", "metricName": "Visible", "period": 60,
		"stat": "Maximum"}}
	queries := func(change m, all ...any) m {
		return with(m{"comparisonOperator": "GreaterThanThreshold", "evaluationPeriods": 1, "threshold": 0,
			"alarmActions": []any{"arn:aws:autoscaling:us-east-2:1:scalingPolicy:p"}, "metricQueries": all}, change)
	}
	tasks := m{"id": "tasks", "expression": "waiting + FILL(waiting, 0)", "returnData": true}
	const statement = `{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}`
	for _, c := range []struct {
		t      tokens.Type
		inputs m
		says   string // "" for nothing wrong
	}{
		{"aws:sqs/queue:Queue", m{"name": "q", "visibilityTimeoutSeconds": 960, "tags": m{"a": "b"}}, ""},
		{"aws:sqs/queue:Queue", m{"visibilityTimeout": 960}, "visibilityTimeout is no property of queueArgs"},
		{"aws:sqs/queue:Queue", m{"visibilityTimeoutSeconds": "960"}, "visibilityTimeoutSeconds is of type string"},
		{"aws:sqs/queue:Queue", m{"visibilityTimeoutSeconds": 960.5}, "visibilityTimeoutSeconds is of type number"},
		{"aws:sqs/queue:Queue", m{"visibilityTimeoutSeconds": 43201},
			"visibilityTimeoutSeconds is 43201; allowed is 0 to 43200"},
		{"aws:sqs/queue:Queue", m{"name": "a queue"}, "name is"},
		{"aws:sqs/queue:Queue", m{"tags": m{"a": 1}}, "tags.a is of type number"},
		{"aws:sqs/queue:Queue", m{"redrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-2:1:q","maxReceiveCount":"3"}`}, "redrivePolicy"},
		{"aws:sqs/queue:Queue", m{"redrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-2:1:q","maxReceives":3}`},
			"redrivePolicy"},
		{"aws:sqs/queuePolicy:QueuePolicy", m{"queueUrl": "https://q"}, "policy is required"},
		{"aws:sqs/queuePolicy:QueuePolicy", m{"queueUrl": "https://q", "policy": `{"Version":"2012-10-17","Statement":[` +
			statement + `]}`}, ""},
		{"aws:sqs/queuePolicy:QueuePolicy", m{"queueUrl": "https://q", "policy": `{"Version":"2012-10-17","Statements":[` +
			statement + `]}`}, "policy is no policy"},
		{"aws:sqs/queuePolicy:QueuePolicy", m{"queueUrl": "https://q", "policy": `{"Version":"2008-10-17","Statement":[` +
			statement + `]}`}, "version"},
		{"aws:sqs/redriveAllowPolicy:RedriveAllowPolicy",
			m{"queueUrl": "https://q", "redriveAllowPolicy": `{"redrivePermission":"byQueue"}`}, "sourceQueueArns"},
		{"aws:s3/bucketV2:BucketV2", m{"bucket": "Bucket"}, "bucket is"},
		{"aws:s3/bucketV2:BucketV2", m{"acl": "public-read"}, "acl"},
		{"aws:s3/bucketOwnershipControls:BucketOwnershipControls", m{"bucket": "bucket"}, "rule is required"},
		{"aws:s3/bucketOwnershipControls:BucketOwnershipControls",
			m{"bucket": "bucket", "rule": m{"objectOwnership": "Mine"}}, "rule.objectOwnership is Mine"},
		{"aws:s3/bucketLifecycleConfigurationV2:BucketLifecycleConfigurationV2", m{"bucket": "bucket", "rules": []any{}},
			"rules has 0 items"},
		{"aws:s3/bucketLifecycleConfigurationV2:BucketLifecycleConfigurationV2",
			m{"bucket": "bucket", "rules": []any{m{"id": "r", "status": "Enabled", "filter": m{"prefix": "a/"}}}},
			"does nothing"},
		{"aws:s3/bucketLifecycleConfigurationV2:BucketLifecycleConfigurationV2",
			m{"bucket": "bucket", "rules": []any{m{"id": "r", "status": "On", "filter": m{"prefix": ""},
				"expiration": m{"days": 0}}}}, "rules[].status is On"},
		{"aws:iam/role:Role", m{"name": "r"}, "assumeRolePolicy is required"},
		{"aws:iam/rolePolicy:RolePolicy",
			m{"role": "r", "policy": `{"Version":"2012-10-17","Statement":[{"Effect":"Allowed","Action":"a:b","Resource":"*"}]}`}, "effect"},
		{"aws:lambda/function:Function", function, ""},
		{"aws:lambda/function:Function", with(function, m{"timeout": 901}), "timeout is 901"},
		{"aws:lambda/function:Function", with(function, m{"role": nil}), "role is required"},
		{"aws:lambda/function:Function", with(function, m{"imageUri": "host/name:latest"}), "imageUri is"},
		{"aws:lambda/function:Function", with(function, m{"ephemeralStorage": m{"size": 20000}}),
			"ephemeralStorage.size is 20000"},
		{"aws:lambda/function:Function", with(function, m{"architectures": []any{"x86"}}), "architectures[] is x86"},
		{"aws:lambda/function:Function", with(function, m{"environment": m{"variables": m{"AWS_REGION": "us-east-2"}}}),
			"AWS_REGION is reserved"},
		{"aws:lambda/eventSourceMapping:EventSourceMapping",
			m{"functionName": "f", "eventSourceArn": "arn:aws:sqs:us-east-2:1:q", "batchSize": 0}, "batchSize is 0"},
		{"aws:lambda/eventSourceMapping:EventSourceMapping",
			m{"functionName": "f", "eventSourceArn": "arn:aws:sqs:us-east-2:1:q", "scalingConfig": m{"maximumConcurrency": 1}},
			"maximumConcurrency is 1"},
		{"aws:lambda/functionRecursionConfig:FunctionRecursionConfig", m{"functionName": "f", "recursiveLoop": "allow"},
			"recursiveLoop is allow"},
		{"aws:cloudwatch/logGroup:LogGroup", m{"retentionInDays": 31}, "retentionInDays is 31"},
		{"aws:cloudwatch/dashboard:Dashboard",
			m{"dashboardName": "d", "dashboardBody": `{"widgets":[{"type":"metric","x":20,"y":0,"width":8,"height":6,"properties":{"region":"us-east-2"}}]}`}, "outside the 24 columns"},
		{"aws:cloudwatch/metricAlarm:MetricAlarm", m{"comparisonOperator": ">", "evaluationPeriods": 1, "namespace": "n",
			"metricName": "m", "statistic": "Sum", "period": 60, "threshold": 0}, "comparisonOperator is >"},
		{"aws:cloudwatch/metricAlarm:MetricAlarm", m{"comparisonOperator": "GreaterThanThreshold", "evaluationPeriods": 1,
			"namespace": "n", "metricName": "m", "statistic": "Sum", "threshold": 0}, "period is required"},
		{"aws:cloudwatch/metricAlarm:MetricAlarm", queries(nil, waiting, tasks), ""},
		{"aws:cloudwatch/metricAlarm:MetricAlarm", queries(m{"metricName": "m"}, waiting, tasks), "with metricName"},
		{"aws:cloudwatch/metricAlarm:MetricAlarm", queries(nil, waiting), "0 metric queries return data"},
		{"aws:cloudwatch/metricAlarm:MetricAlarm", queries(nil, waiting, with(waiting, m{"label": "2"}), tasks),
			`the id "waiting", which is`},
		{"aws:cloudwatch/metricAlarm:MetricAlarm", queries(nil, waiting, with(tasks, m{"expression": "waiting + working"})),
			"names working, which is no metric query"},
		{"aws:cloudwatch/metricAlarm:MetricAlarm", queries(nil, waiting, with(waiting, m{"id": "two", "expression": "1"}),
			tasks), "two must have either a metric or an expression"},
		{"aws:cloudwatch/metricAlarm:MetricAlarm", queries(m{"alarmActions": []any{"policy"}}, waiting, tasks),
			"alarmActions[] is"},
		{"aws:ecs/cluster:Cluster", m{"name": "a cluster"}, "name is"},
		{"aws:ecs/cluster:Cluster", m{"settings": []any{m{"name": "containerInsights", "value": "enabled"}}},
			"clusters with settings"},
		{"aws:ecs/clusterCapacityProviders:ClusterCapacityProviders", m{"capacityProviders": []any{"FARGATE_SPOT"}},
			"clusterName is required"},
		{"aws:ecs/clusterCapacityProviders:ClusterCapacityProviders",
			m{"clusterName": "c", "capacityProviders": []any{"SPOT"}}, "capacityProviders[] is SPOT"},
		{"aws:ecs/taskDefinition:TaskDefinition", definition, ""},
		{"aws:ecs/taskDefinition:TaskDefinition", with(definition, m{"memory": "4096"}), "is no size of Fargate"},
		{"aws:ecs/taskDefinition:TaskDefinition", with(definition, m{"networkMode": "bridge"}), "networkMode is bridge"},
		{"aws:ecs/taskDefinition:TaskDefinition", with(definition, m{"executionRoleArn": nil}),
			"executionRoleArn is required"},
		{"aws:ecs/taskDefinition:TaskDefinition", with(definition, m{"runtimePlatform": m{"cpuArchitecture": "x86_64"}}),
			"cpuArchitecture is x86_64"},
		{"aws:ecs/taskDefinition:TaskDefinition",
			with(definition, m{"containerDefinitions": container(m{"image": "host/name:fleet"})}), "an image by digest"},
		{"aws:ecs/taskDefinition:TaskDefinition", with(definition, m{"containerDefinitions": container(m{"entrypoints": 1})}),
			"is no list of containers"},
		{"aws:ecs/taskDefinition:TaskDefinition",
			with(definition, m{"containerDefinitions": container(m{"stopTimeout": 121})}),
			"allowed are 120"},
		{"aws:ecs/taskDefinition:TaskDefinition", with(definition, m{"containerDefinitions": container(
			m{"logConfiguration": m{"logDriver": "awslogs"}})}), "without awslogs-group"},
		{"aws:ecs/taskDefinition:TaskDefinition",
			with(definition, m{"containerDefinitions": container(m{"essential": false})}), "no essential container"},
		{"aws:ecs/service:Service", service, ""},
		{"aws:ecs/service:Service", with(service, m{"networkConfiguration": m{"subnets": []any{"vpc-1"}}}),
			"networkConfiguration.subnets[] is"},
		{"aws:ecs/service:Service", with(service, m{"capacityProviderStrategies": nil}),
			"capacityProviderStrategies is required"},
		{"aws:ecs/service:Service", with(service, m{"deploymentMinimumHealthyPercent": 100}), "can replace no task"},
		{"aws:ecs/service:Service", with(service, m{"launchType": "FARGATE"}), "services with launchType"},
		{"aws:appautoscaling/target:Target", target, ""},
		{"aws:appautoscaling/target:Target", with(target, m{"minCapacity": 21}), "minCapacity 21 is more than"},
		{"aws:appautoscaling/target:Target", with(target, m{"resourceId": "c/s"}), "resourceId is"},
		{"aws:appautoscaling/policy:Policy", stepping(step("0", "2"), step("2", nil)), ""},
		{"aws:appautoscaling/policy:Policy", stepping(step(nil, "0")), ""},
		{"aws:appautoscaling/policy:Policy", stepping(step("0", "2"), step("3", nil)), "ends at 2 and the next begins at 3"},
		{"aws:appautoscaling/policy:Policy", stepping(step("0", "3"), step("2", nil)), "ends at 3 and the next begins at 2"},
		{"aws:appautoscaling/policy:Policy", stepping(step("0", "2")), "a step without an end"},
		{"aws:appautoscaling/policy:Policy", stepping(step("a", nil)), "which is no number"},
		{"aws:appautoscaling/policy:Policy", with(stepping(step(nil, "0")), m{"policyType": "TargetTrackingScaling"}),
			"policyType is TargetTrackingScaling"},
		{"aws:budgets/budget:Budget", warning(nil), ""},
		{"aws:budgets/budget:Budget", with(budget, m{"limitAmount": "fifty"}), "limitAmount is"},
		{"aws:budgets/budget:Budget", with(budget, m{"limitUnit": nil}), "limitUnit is required"},
		{"aws:budgets/budget:Budget", with(budget, m{"costFilters": []any{m{"name": "TagKeyValue",
			"values": []any{"stack=dev"}}}}),
			"costFilters[].values[] is"},
		{"aws:budgets/budget:Budget", warning(m{"notificationType": "SPENT"}), "notificationType is SPENT"},
		{"aws:budgets/budget:Budget", warning(m{"subscriberEmailAddresses": nil}), "has no address"},
		{"aws:budgets/budget:Budget", warning(m{"subscriberEmailAddresses": []any{"nobody"}}),
			"subscriberEmailAddresses[] is"},
		{"aws:ecr/repository:Repository", m{"name": "Repository"}, "name is"},
		{"aws:sns/topicSubscription:TopicSubscription", m{"topic": "arn:aws:sns:us-east-2:1:t", "protocol": "email",
			"endpoint": "nobody"}, "endpoint is"},
		{"docker:index/image:Image", image, ""},
		{"docker:index/image:Image", with(image, m{"imageName": "name:latest"}), "imageName is"},
		{"docker:index/image:Image", with(image, m{"build": m{"context": ".", "dockerfile": "Dockerfile"}}), "platform"},
		{"docker:index/image:Image",
			with(image, m{"build": m{"context": "/src", "dockerfile": "Dockerfile", "platform": "linux/amd64"}}),
			"build.context is /src"},
		{"docker:index/image:Image", with(image, m{"registry": m{"server": "127.0.0.1:5000"}}),
			"the registry has no username"},
	} {
		rt, ok := types[c.t]
		if !ok {
			t.Fatalf("there is no type %s", c.t)
		}
		var said []string
		for _, f := range rt.check(resource.NewPropertyMapFromMap(c.inputs)) {
			said = append(said, f.Reason)
		}
		if text := strings.Join(said, "; "); (c.says == "") != (text == "") || !strings.Contains(text, c.says) {
			t.Errorf("%s %v:\ngot  %s\nwant %s", c.t, c.inputs, text, c.says)
		}
	}
}

// What is not known in a preview is not wrong, and what is known of it is checked.
func TestUnknownInputs(t *testing.T) {
	unknown := resource.MakeComputed(resource.NewStringProperty(""))
	rt := queueTypes()["aws:sqs/queuePolicy:QueuePolicy"]
	if f := rt.check(resource.PropertyMap{"queueUrl": unknown, "policy": unknown}); len(f) > 0 {
		t.Errorf("unknown inputs: %v", f)
	}
	if f := rt.check(resource.PropertyMap{"queueUrl": unknown, "policy": resource.NewNumberProperty(1)}); len(f) != 1 {
		t.Errorf("a known input beside an unknown one: %v", f)
	}
}

func TestAllows(t *testing.T) {
	text := `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":["s3:PutObject","sqs:*"],"Resource":["arn:aws:s3:::bucket/data/*","arn:aws:sqs:us-east-2:1:tasks"]},
		{"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::bucket","Condition":{"StringLike":{"s3:prefix":["data/*"]}}},
		{"Effect":"Allow","Action":"s3:GetObject","Resource":"*","Condition":{"NumericLessThan":{"aws:MultiFactorAuthAge":"10"}}},
		{"Effect":"Deny","Action":"s3:PutObject","Resource":"arn:aws:s3:::bucket/data/secret/*"}]}`
	p, err := parsePolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		action, resource, prefix string
		want                     bool
	}{
		{"s3:PutObject", "arn:aws:s3:::bucket/data/v1/maze/a.png", "", true},
		{"s3:PutObject", "arn:aws:s3:::bucket/runs/a.json", "", false},
		{"s3:PutObject", "arn:aws:s3:::bucket/data/secret/a", "", false},
		{"s3:DeleteObject", "arn:aws:s3:::bucket/data/a", "", false},
		{"s3:GetObject", "arn:aws:s3:::bucket/data/a", "", false}, // its condition is not known here
		{"sqs:SendMessage", "arn:aws:sqs:us-east-2:1:tasks", "", true},
		{"sqs:SendMessage", "arn:aws:sqs:us-east-2:1:tasks-dlq", "", false},
		{"s3:ListBucket", "arn:aws:s3:::bucket", "data/v1/", true},
		{"s3:ListBucket", "arn:aws:s3:::bucket", "runs/", false},
		{"s3:ListBucket", "arn:aws:s3:::bucket", "", false},
	} {
		context := map[string]string{}
		if c.prefix != "" {
			context["s3:prefix"] = c.prefix
		}
		if got := allows([]policy{p}, c.action, c.resource, context); got != c.want {
			t.Errorf("%s %s %s: %v", c.action, c.resource, c.prefix, got)
		}
	}
}
