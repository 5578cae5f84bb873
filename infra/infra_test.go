package infra_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// variants are configurations whose resources differ.
var variants = map[string]map[string]string{
	"default": nil,
	"fleet":   withFleet,
	"all": {
		"architecture": "arm64", "memoryMB": "2048", "timeoutSeconds": "300", "ephemeralStorageMB": "512",
		"maxConcurrency": "500", "reservedConcurrency": "600", "monthlyBudgetUSD": "50",
		"permissionsBoundary": "arn:aws:iam::123456789012:policy/boundary", "allowedAccountIds": "[123456789012]",
		"visibilityTimeoutSeconds": "360", "maxReceiveCount": "5", "queueRetentionSeconds": "3600",
		"dlqRetentionSeconds": "7200",
		"bucketName":          "my-samples", "retainData": "false", "requiredFiles": `["rubric.txt","metadata.json"]`,
		"builderImage": "my/go:1", "baseImage": "my/python@sha256:1",
		"logRetentionDays": "7", "alarmEmail": "team@example.com", "tags": `{"team":"video","cost":42}`,
	},
}

const bucket, tasks, dlq, worker = name + "-data", name + "-tasks", name + "-tasks-dlq", name + "-worker"

// Every resource has a parent, the beginning of whose name is its own, and every component says when it is complete.
func TestNoOrphans(t *testing.T) {
	for variant, config := range variants {
		t.Run(variant, func(t *testing.T) {
			d := deploy(t, config)
			components := map[string]bool{}
			count := 0
			for _, r := range d.resources {
				if !r.Custom {
					components[r.Name] = true
					count++
				}
			}
			for _, r := range d.resources {
				switch {
				case r.Type == "vm-dataset:infra:Pipeline":
					if r.Name != name {
						t.Errorf("the pipeline is called %s", r.Name)
					}
				case !components[r.Parent]:
					t.Errorf("%s %s has no component as its parent", r.Type, r.Name)
				case r.Name != r.Parent && !strings.HasPrefix(r.Name, r.Parent+"-"):
					t.Errorf("%s %s is not named from %s", r.Type, r.Name, r.Parent)
				}
			}
			if want := map[bool]int{false: 6, true: 7}[variant == "fleet"]; count != want || d.finished != count+1 {
				t.Errorf("%d components, %d of them and the stack registered outputs", count, d.finished)
			}
		})
	}
}

func TestOutputs(t *testing.T) {
	d := deploy(t, nil)
	if got, want := slices.Sorted(maps.Keys(d.outputs)), slices.Sorted(slices.Values(stack.Names())); !slices.Equal(got,
		want) {
		t.Errorf("the stack has  %v\ninfra/stack has %v", got, want)
	}
	text, err := json.Marshal(d.outputs)
	if err != nil {
		t.Fatal(err)
	}
	got, err := stack.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	const aws, suffix, repository = ":us-east-2:123456789012:", "-0123abc",
		"123456789012.dkr.ecr.us-east-2.amazonaws.com/" + name + "-image-0123abc"
	want := stack.Outputs{
		QueueURL: "https://sqs.us-east-2.amazonaws.com/123456789012/" + tasks + suffix,
		DLQURL:   "https://sqs.us-east-2.amazonaws.com/123456789012/" + dlq + suffix,
		QueueARN: "arn:aws:sqs" + aws + tasks + suffix, DLQARN: "arn:aws:sqs" + aws + dlq + suffix,
		BucketName:   bucket + suffix,
		FunctionName: worker + suffix, FunctionARN: "arn:aws:lambda" + aws + "function:" + worker + suffix + ":live",
		ImageURI: repository + "@" + digest, RepositoryURL: repository, LogGroupName: worker + suffix,
		EventSourceMappingID: "00000000-0000-4000-8000-000000000000",
		DashboardURL:         "https://us-east-2.console.aws.amazon.com/cloudwatch/home?region=us-east-2#dashboards/dashboard/" + worker + suffix,
		Region:               "us-east-2", AccountID: "123456789012", Architecture: "x86_64", MemoryMB: 10240,
		DataPrefix:    "data/v1/",
		Generators:    map[string]string{"chess": "", "maze": ""}, // there is no git
		Locks:         map[string]string{},
		RequiredFiles: []string{},
		RetainData:    new(true),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestStorage(t *testing.T) {
	for _, test := range []struct {
		variant string
		retain  bool
	}{{"default", true}, {"all", false}} {
		d := deploy(t, variants[test.variant])
		b := d.the(t, "aws:s3/bucketV2:BucketV2", bucket)
		b.want(t, map[string]any{"forceDestroy": map[bool]any{true: nil, false: true}[test.retain],
			"bucket": map[bool]any{true: nil, false: "my-samples"}[test.retain]})
		settings := 0
		for _, r := range d.resources {
			if r.Parent == bucket && r.Custom {
				settings++
				if r.Retain != test.retain {
					t.Errorf("%s: retain %s: %v", test.variant, r.Type, r.Retain)
				}
			} else if images := strings.HasPrefix(r.Type, "aws:ecr/repository"); r.Retain != (images && test.retain) {
				t.Errorf("%s: retain %s: %v", test.variant, r.Type, r.Retain)
			}
		}
		if b.DeleteTime != "24h" || b.Import != "" {
			t.Errorf("deleting the bucket may take %s, and it takes over %q", b.DeleteTime, b.Import)
		}
		if settings != 6 {
			t.Errorf("%d resources of the bucket", settings)
		}
		d.the(t, "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", bucket+"-private").want(t, map[string]any{
			"blockPublicAcls": true, "blockPublicPolicy": true, "ignorePublicAcls": true, "restrictPublicBuckets": true})
		d.the(t, "aws:s3/bucketOwnershipControls:BucketOwnershipControls", bucket+"-owner").want(t,
			map[string]any{"rule.objectOwnership": "BucketOwnerEnforced"})
		d.the(t, "aws:s3/bucketServerSideEncryptionConfigurationV2:BucketServerSideEncryptionConfigurationV2",
			bucket+"-encryption").want(t, map[string]any{
			"rules.0.applyServerSideEncryptionByDefault.sseAlgorithm": "AES256"})
		d.the(t, "aws:s3/bucketLifecycleConfigurationV2:BucketLifecycleConfigurationV2", bucket+"-lifecycle").want(t,
			map[string]any{
				"rules.0.status": "Enabled", "rules.0.filter.prefix": "",
				"rules.0.abortIncompleteMultipartUpload.daysAfterInitiation": 1.0, "rules.0.expiration": nil,
				"rules.1": nil, // nothing expires
			})
	}
}

func TestQueue(t *testing.T) {
	for _, test := range []struct {
		variant                             string
		visibility, keep, keepDead, receive float64
	}{{"default", 960, 7 * 86400, 14 * 86400, 3}, {"all", 360, 3600, 7200, 5}} {
		d := deploy(t, variants[test.variant])
		q, dead := d.the(t, "aws:sqs/queue:Queue", tasks), d.the(t, "aws:sqs/queue:Queue", dlq)
		q.want(t, map[string]any{"visibilityTimeoutSeconds": test.visibility, "messageRetentionSeconds": test.keep,
			"sqsManagedSseEnabled": true,
			"redrivePolicy": fmt.Sprintf(
				`{"deadLetterTargetArn":"arn:aws:sqs:us-east-2:123456789012:%s-0123abc","maxReceiveCount":%v}`, dlq, test.receive)})
		dead.want(t, map[string]any{"messageRetentionSeconds": test.keepDead, "sqsManagedSseEnabled": true,
			"redrivePolicy": nil})
		d.the(t, "aws:sqs/redriveAllowPolicy:RedriveAllowPolicy", dlq+"-redrive").want(t, map[string]any{
			"queueUrl": "https://sqs.us-east-2.amazonaws.com/123456789012/" + dlq + "-0123abc",
			"redriveAllowPolicy": fmt.Sprintf(
				`{"redrivePermission":"byQueue","sourceQueueArns":["arn:aws:sqs:us-east-2:123456789012:%s-0123abc"]}`, tasks)})
		f := d.the(t, "aws:lambda/function:Function", worker)
		timeout, _ := f.at("timeout").(float64)
		if timeout == 0 || timeout >= test.visibility || test.keep >= test.keepDead {
			t.Errorf("timeout %v, visibility %v, retention %v, of the DLQ %v", timeout, test.visibility, test.keep,
				test.keepDead)
		}
	}
}

func TestImage(t *testing.T) {
	for _, test := range []struct {
		variant, platform string
		args              map[string]any
	}{
		{"default", "linux/amd64", nil},
		{"all", "linux/arm64", map[string]any{"BUILDER_IMAGE": "my/go:1", "BASE_IMAGE": "my/python@sha256:1"}},
	} {
		d := deploy(t, variants[test.variant])
		d.the(t, "aws:ecr/repository:Repository", name+"-image").want(t, map[string]any{
			"imageScanningConfiguration.scanOnPush": true, "encryptionConfigurations.0.encryptionType": "AES256",
			"forceDelete": test.variant == "all"})
		d.the(t, "aws:ecr/repositoryPolicy:RepositoryPolicy", name+"-image-pull").want(t, map[string]any{
			"policy": `{"Version":"2012-10-17","Statement":[{"Sid":"LambdaPull","Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":["ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"],"Condition":{"StringLike":{"aws:sourceArn":["arn:aws:lambda:us-east-2:123456789012:function:*"]}}}]}`})
		// Images that receipts name are kept like the samples.
		if n := len(d.all("aws:ecr/lifecyclePolicy:LifecyclePolicy")); n != len(test.args)/2 {
			t.Errorf("%s: %d lifecycle policies of images", test.variant, n)
		}
		if test.variant == "all" {
			d.the(t, "aws:ecr/lifecyclePolicy:LifecyclePolicy", name+"-image-lifecycle").want(t, map[string]any{
				"policy": `{"rules":[{"rulePriority":1,"description":"images that were replaced","selection":{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":10},"action":{"type":"expire"}}]}`})
		}
		i := d.the(t, "docker:index/image:Image", name+"-image")
		args := map[string]any{"GENERATOR_COMMITS": `{"chess":"","maze":""}`}
		maps.Copy(args, test.args)
		i.want(t, map[string]any{
			"build.platform": test.platform, "build.builderVersion": "BuilderBuildKit", "build.args": args, "skipPush": false,
			"buildOnPreview":    false,
			"imageName":         "123456789012.dkr.ecr.us-east-2.amazonaws.com/" + name + "-image-0123abc:latest",
			"registry.server":   "123456789012.dkr.ecr.us-east-2.amazonaws.com/" + name + "-image-0123abc",
			"registry.username": "AWS",
		})
		if password, _ := i.at("registry.password").(string); password == "token" {
			t.Error("the registry's password is no secret")
		}
	}
}

func TestFunction(t *testing.T) {
	const image = "123456789012.dkr.ecr.us-east-2.amazonaws.com/" + name + "-image-0123abc@" + digest
	for _, test := range []struct {
		variant     string
		want        map[string]any
		concurrency float64
		logDays     float64
		bucket      string
		environment map[string]any
	}{
		{"default", map[string]any{"memorySize": 10240.0, "timeout": 900.0, "ephemeralStorage.size": 2048.0,
			"architectures": []any{"x86_64"}, "reservedConcurrentExecutions": nil}, 900, 30, bucket + "-0123abc", nil},
		{"all", map[string]any{"memorySize": 2048.0, "timeout": 300.0, "ephemeralStorage.size": 512.0,
			"architectures": []any{"arm64"}, "reservedConcurrentExecutions": 600.0}, 500, 7, "my-samples",
			map[string]any{stack.EnvRequiredFiles: "rubric.txt,metadata.json"}},
	} {
		d := deploy(t, variants[test.variant])
		f := d.the(t, "aws:lambda/function:Function", worker)
		environment := map[string]any{
			stack.EnvBucket: test.bucket, stack.EnvImage: image,
			stack.EnvQueueURL: "https://sqs.us-east-2.amazonaws.com/123456789012/" + tasks + "-0123abc",
			stack.EnvDLQURL:   "https://sqs.us-east-2.amazonaws.com/123456789012/" + dlq + "-0123abc",
		}
		maps.Copy(environment, test.environment)
		f.want(t, test.want)
		f.want(t, map[string]any{"packageType": "Image", "imageUri": image, "environment.variables": environment,
			"role":                    "arn:aws:iam::123456789012:role/" + worker + "-0123abc",
			"loggingConfig.logFormat": "Text", "loggingConfig.logGroup": worker + "-0123abc", "publish": true})
		if !slices.Contains(f.Dependencies, "aws:ecr/repositoryPolicy:RepositoryPolicy") {
			t.Error("the function does not wait until Lambda may pull its image")
		}
		d.the(t, "aws:iam/role:Role", worker).want(t, map[string]any{
			"permissionsBoundary": map[string]any{"all": variants["all"]["permissionsBoundary"]}[test.variant]})
		d.the(t, "aws:lambda/alias:Alias", worker).want(t, map[string]any{"name": "live", "functionVersion": "1",
			"functionName": worker + "-0123abc"})
		d.the(t, "aws:cloudwatch/logGroup:LogGroup", worker).want(t, map[string]any{"retentionInDays": test.logDays})
		d.the(t, "aws:lambda/functionRecursionConfig:FunctionRecursionConfig", worker).want(t,
			map[string]any{"recursiveLoop": "Allow", "functionName": worker + "-0123abc"})
		m := d.the(t, "aws:lambda/eventSourceMapping:EventSourceMapping", worker)
		m.want(t, map[string]any{"batchSize": 1.0, "functionResponseTypes": []any{"ReportBatchItemFailures"},
			"scalingConfig.maximumConcurrency": test.concurrency,
			"eventSourceArn":                   "arn:aws:sqs:us-east-2:123456789012:" + tasks + "-0123abc",
			"functionName":                     "arn:aws:lambda:us-east-2:123456789012:function:" + worker + "-0123abc:live",
			"enabled":                          true, "maximumBatchingWindowInSeconds": nil})
		for _, first := range []string{"aws:iam/rolePolicy:RolePolicy",
			"aws:lambda/functionRecursionConfig:FunctionRecursionConfig"} {
			if !slices.Contains(m.Dependencies, first) {
				t.Errorf("the mapping does not wait for %s", first)
			}
		}
		if !slices.Contains(m.Ignores, "enabled") {
			t.Error("an update would resume a queue that was paused")
		}
	}
}

func TestTags(t *testing.T) {
	const tagged = "BucketV2 Queue Repository Role LogGroup Function EventSourceMapping MetricAlarm Topic Budget" // what has tags
	d := deploy(t, variants["all"])
	seen := map[string]bool{}
	for _, r := range d.resources {
		kind := r.Type[strings.LastIndex(r.Type, ":")+1:]
		if !r.Custom || !slices.Contains(strings.Fields(tagged), kind) {
			continue
		}
		seen[kind] = true
		r.want(t, map[string]any{"tags": map[string]any{"project": project, "stack": stackName, "team": "video",
			"cost": "42"}})
	}
	if len(seen) != len(strings.Fields(tagged)) {
		t.Errorf("tagged are only %v", seen)
	}
}

func TestAlarms(t *testing.T) {
	for variant, mail := range map[string]bool{"default": false, "all": true} {
		d := deploy(t, variants[variant])
		alarms := map[string]map[string]any{
			"dead": {"namespace": "AWS/SQS", "metricName": "ApproximateNumberOfMessagesVisible",
				"dimensions.QueueName": dlq + "-0123abc", "threshold": 0.0, "statistic": "Maximum"},
			"age": {"namespace": "AWS/SQS", "metricName": "ApproximateAgeOfOldestMessage", "dimensions.QueueName": tasks +
				"-0123abc", "threshold": map[bool]float64{false: 302400, true: 1800}[mail]},
			"errors": {"namespace": "AWS/Lambda", "metricName": "Errors", "dimensions.FunctionName": worker + "-0123abc",
				"threshold": 0.0, "statistic": "Sum"},
			"throttles": {"namespace": "AWS/Lambda", "metricName": "Throttles", "dimensions.FunctionName": worker + "-0123abc",
				"threshold": 0.0, "statistic": "Sum"},
		}
		var actions any
		if mail {
			actions = []any{"arn:aws:sns:us-east-2:123456789012:" + name + "-watch-0123abc"}
			d.the(t, "aws:sns/topicSubscription:TopicSubscription", name+"-watch").want(t,
				map[string]any{"protocol": "email", "endpoint": "team@example.com", "topic": actions.([]any)[0]})
		}
		if topics := d.all("aws:sns/topic:Topic"); len(topics) != map[bool]int{true: 1}[mail] {
			t.Errorf("%s: %d topics", variant, len(topics))
		}
		if got := len(d.all("aws:cloudwatch/metricAlarm:MetricAlarm")); got != len(alarms) {
			t.Errorf("%s: %d alarms", variant, got)
		}
		for alarm, want := range alarms {
			a := d.the(t, "aws:cloudwatch/metricAlarm:MetricAlarm", name+"-watch-"+alarm)
			a.want(t, want)
			a.want(t, map[string]any{"comparisonOperator": "GreaterThanThreshold", "treatMissingData": "notBreaching",
				"alarmActions": actions, "okActions": actions})
		}
	}
}

// The dashboard is what CloudWatch takes, and shows metrics that exist.
func TestDashboard(t *testing.T) {
	d := deploy(t, nil)
	r := d.the(t, "aws:cloudwatch/dashboard:Dashboard", name+"-watch")
	var body struct {
		Widgets []struct {
			Type                string
			X, Y, Width, Height int
			Properties          struct {
				Title, Region string
				Metrics       [][]any
			}
		}
	}
	text, _ := r.at("dashboardBody").(string)
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		t.Fatal(err)
	}
	known := map[string][]string{
		"QueueName": {tasks + "-0123abc", dlq + "-0123abc"}, "FunctionName": {worker + "-0123abc"},
		task.DimensionFunction: {worker + "-0123abc"},
	}
	for _, c := range task.Causes() {
		known[task.DimensionCause] = append(known[task.DimensionCause], string(c))
	}
	causes := map[string]bool{}
	ids := map[string]bool{}
	var expressions []string
	taken := map[[2]int]string{}
	for _, w := range body.Widgets {
		if w.Type != "metric" || w.Properties.Region != "us-east-2" || len(w.Properties.Metrics) == 0 {
			t.Errorf("widget %+v", w)
		}
		for x := w.X; x < w.X+w.Width; x++ {
			for y := w.Y; y < w.Y+w.Height; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies over %s or outside", w.Properties.Title, other)
				}
				taken[[2]int{x, y}] = w.Properties.Title
			}
		}
		for _, m := range w.Properties.Metrics {
			o, ok := m[len(m)-1].(map[string]any)
			if !ok {
				t.Fatalf("%v has no options", m)
			}
			if id, ok := o["id"].(string); ok {
				ids[id] = true
			}
			if e, ok := o["expression"].(string); ok {
				expressions = append(expressions, e)
				continue
			}
			for i := 2; i+1 < len(m)-1; i += 2 {
				key, value := m[i].(string), m[i+1].(string)
				if !slices.Contains(known[key], value) {
					t.Errorf("%s: no metric has %s %s", w.Properties.Title, key, value)
				}
				if key == task.DimensionCause {
					causes[value] = true
				}
			}
		}
	}
	if len(causes) != len(task.Causes())-1 || causes[string(task.Lost)] {
		t.Errorf("failures are shown for %v", causes)
	}
	// 3,008 MB for a second, with 1.5 GB of disk that is not free.
	if want := "time / 1000 * 0.00016671335 + calls * 0.0000002"; !slices.Contains(expressions, want) || !ids["time"] ||
		!ids["calls"] || !ids["cost"] {
		t.Errorf("the cost is %q, want %s", expressions, want)
	}
}
