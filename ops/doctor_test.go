package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/doctor"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// diagnose runs ops doctor on a cloud and returns its findings by check.
func (c *motoCloud) diagnose(generators string) (map[string]doctor.Finding, int) {
	c.Helper()
	file, err := c.save(c.TempDir())
	c.ok(nil, err)
	return diagnose(c.TB, target.Flags{Outputs: file, Generators: generators})
}

func diagnose(t testing.TB, f target.Flags) (map[string]doctor.Finding, int) {
	t.Helper()
	return diagnoseWith(t, DoctorCmd{}, f)
}

func diagnoseWith(t testing.TB, cmd DoctorCmd, f target.Flags) (map[string]doctor.Finding, int) {
	t.Helper()
	var out bytes.Buffer
	err := cmd.Run(t.Context(),
		&Output{&ui.Output{Style: &ui.Style{JSON: true}, Stdout: &out, Stderr: io.Discard}, &f})
	status := 0
	if exit, ok := errors.AsType[*ui.StatusError](err); ok {
		status = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	var list []doctor.Finding
	if err := json.Unmarshal(out.Bytes(), &list); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	byCheck := map[string]doctor.Finding{}
	for _, f := range list {
		byCheck[f.Check] = f
	}
	return byCheck, status
}

func (c *motoCloud) setEnvironment(t *testing.T) {
	for name, value := range c.environment() {
		t.Setenv(name, value)
	}
}

// Each check of a deployed stack can fail, and says what to do.
func TestDoctorCloud(t *testing.T) {
	motoEndpoint(t)
	generators := t.TempDir()
	makeGenerators(t, generators, "maze-task", "chess-task")
	function := func(change func(configuration map[string]any)) answer {
		return answer{method: "GET", path: "/2015-03-31/functions/arn:", change: func(a map[string]any) {
			if f, ok := a["Configuration"].(map[string]any); ok {
				change(f)
			}
		}}
	}
	mapping := func(change func(mapping map[string]any)) answer {
		return answer{method: "GET", path: "/2015-03-31/event-source-mappings/", change: change}
	}
	account := func(limit, unreserved int) answer {
		return answer{method: "GET", path: "/2016-08-19/account-settings",
			instead: map[string]any{"AccountLimit": map[string]any{"ConcurrentExecutions": limit,
				"UnreservedConcurrentExecutions": unreserved}}}
	}
	for _, test := range []struct {
		name  string
		harm  func(c *motoCloud)
		check string // that finds it
		says  string
		try   string
	}{
		{name: "healthy", harm: func(*motoCloud) {}},
		{"an output is missing", func(c *motoCloud) { c.DashboardURL = "" }, "outputs", "lack dashboardUrl", "pulumi up"},
		{"a queue elsewhere", func(c *motoCloud) { c.QueueARN = strings.Replace(c.QueueARN, motoRegion, "eu-west-1", 1) },
			"region", "queueArn is arn:aws:sqs:eu-west-1", "aws:region"},
		{"an image elsewhere", func(c *motoCloud) { c.ImageURI = strings.Replace(c.ImageURI, motoRegion, "eu-west-1", 1) },
			"region", "imageUri is", "aws:region"},
		{"another account", func(c *motoCloud) { c.AccountID = "210987654321" }, "credentials", "of account 123456789012",
			"AWS_PROFILE=NAME of account 210987654321"},
		{"no queue", func(c *motoCloud) {
			c.ok(c.sqs.DeleteQueue(c.Context(),
				&sqs.DeleteQueueInput{QueueUrl: &c.QueueURL}))
		}, "queue", "NonExistentQueue", "pulumi up --refresh"},
		{"another queue", func(c *motoCloud) { c.QueueARN += "x" }, "queue", "the stack's is", "pulumi up --refresh"},
		{"no redrive policy", func(c *motoCloud) { c.setQueue(c.QueueURL, "RedrivePolicy", "") }, "queue",
			"no redrive policy", "pulumi up --refresh"},
		{"another DLQ", func(c *motoCloud) { c.DLQARN += "x" }, "queue", "its failed tasks go to", "pulumi up --refresh"},
		{"no DLQ", func(c *motoCloud) { c.ok(c.sqs.DeleteQueue(c.Context(), &sqs.DeleteQueueInput{QueueUrl: &c.DLQURL})) },
			"dlq", "NonExistentQueue", "pulumi up --refresh"},
		{"a DLQ for others", func(c *motoCloud) {
			c.answer(answer{method: "POST", path: "/", change: func(a map[string]any) { // moto forgets this policy
				if attributes, ok := a["Attributes"].(map[string]any); ok && attributes["QueueArn"] == c.DLQARN {
					attributes["RedriveAllowPolicy"] = `{"redrivePermission":"byQueue","sourceQueueArns":["arn:aws:sqs:us-east-2:123456789012:other"]}`
				}
			}})
		}, "dlq", "does not name the task queue", "pulumi up --refresh"},
		{"a DLQ that forgets", func(c *motoCloud) { c.setQueue(c.DLQURL, "MessageRetentionPeriod", "3600") }, "dlq",
			"keeps a task for 1h00m", "retention"},
		{"no bucket", func(c *motoCloud) {
			c.ok(c.s3.DeleteBucket(c.Context(),
				&s3.DeleteBucketInput{Bucket: &c.BucketName}))
		}, "bucket", "NoSuchBucket", "pulumi up --refresh"},
		{"no function", func(c *motoCloud) {
			c.ok(c.lambda.DeleteFunction(c.Context(), &lambda.DeleteFunctionInput{FunctionName: &c.FunctionName}))
		}, "function", "ResourceNotFoundException", "pulumi up --refresh"},
		{"a function that Lambda makes", func(c *motoCloud) {
			c.answer(function(func(f map[string]any) { f["State"], f["StateReasonCode"] = "Pending", "Creating" }))
		}, "function", "it is Pending", "in a minute"},
		{"a function that failed", func(c *motoCloud) {
			c.answer(function(func(f map[string]any) { f["State"], f["StateReason"] = "Failed", "no such subnet" }))
		}, "function", "no such subnet", "pulumi up"},
		{"an image that Lambda refused", func(c *motoCloud) {
			c.answer(function(func(f map[string]any) {
				f["LastUpdateStatus"], f["LastUpdateStatusReasonCode"] = "Failed", "InvalidImage"
			}))
		}, "function", "InvalidImage", "one plain manifest"},
		{"a function that never got its image", func(c *motoCloud) {
			c.answer(function(func(f map[string]any) { f["State"], f["StateReasonCode"] = "Failed", "InvalidImage" }))
		}, "function", "InvalidImage", "one plain manifest"},
		{"an update that failed", func(c *motoCloud) {
			c.answer(function(func(f map[string]any) {
				f["LastUpdateStatus"], f["LastUpdateStatusReason"] = "Failed",
					"no right to"
			}))
		}, "function", "no right to", "pulumi up"},
		{"an update that goes on", func(c *motoCloud) {
			c.answer(function(func(f map[string]any) { f["LastUpdateStatus"] = "InProgress" }))
		}, "function", "in progress", "in a minute"},
		{"another image", func(c *motoCloud) {
			c.ok(c.lambda.UpdateFunctionCode(c.Context(), &lambda.UpdateFunctionCodeInput{FunctionName: &c.FunctionName,
				ImageUri: aws.String(c.RepositoryURL + ":other")}))
		}, "function", "it runs the image", "pulumi up --refresh"},
		{"another architecture", func(c *motoCloud) { c.Architecture = "arm64" }, "function", "runs on x86_64",
			"pulumi up --refresh"},
		{"another bucket for the function", func(c *motoCloud) {
			c.ok(c.lambda.UpdateFunctionConfiguration(c.Context(),
				&lambda.UpdateFunctionConfigurationInput{FunctionName: &c.FunctionName,
					Environment: &lambdatypes.Environment{Variables: map[string]string{stack.EnvBucket: "other"}}}))
		}, "function", `OUTPUT_BUCKET is "other"`, "pulumi up --refresh"},
		{"a timeout beyond the visibility", func(c *motoCloud) { c.setQueue(c.QueueURL, "VisibilityTimeout", "600") },
			"function", "hides a task for 10m00s only", "visibilityTimeoutSeconds"},
		{"an index of images", func(c *motoCloud) {
			other := "sha256:" + strings.Repeat("0", 64)
			c.pushImage(other, "application/vnd.oci.image.index.v1+json")
			c.ImageURI = c.RepositoryURL + "@" + other
		}, "image", "pushed as application/vnd.oci.image.index.v1+json", "one plain manifest"},
		{"no image", func(c *motoCloud) { c.ImageURI = c.RepositoryURL + "@sha256:" + strings.Repeat("1", 64) }, "image",
			"ImageNotFoundException", "pulumi up --refresh"},
		{"no mapping", func(c *motoCloud) { c.EventSourceMappingID = "00000000-0000-4000-8000-000000000000" }, "mapping",
			"is gone", "pulumi up --refresh"},
		{"paused", func(c *motoCloud) {
			c.ok(c.lambda.UpdateEventSourceMapping(c.Context(),
				&lambda.UpdateEventSourceMappingInput{UUID: &c.EventSourceMappingID, Enabled: aws.Bool(false)}))
		}, "mapping", "the workers are paused", "resume"},
		{"between two states", func(c *motoCloud) { c.answer(mapping(func(m map[string]any) { m["State"] = "Updating" })) },
			"mapping", "it is Updating", "in a minute"},
		{"a mapping of another queue",
			func(c *motoCloud) { c.answer(mapping(func(m map[string]any) { m["EventSourceArn"] = "arn:other" })) }, "mapping",
			"it reads arn:other", "pulumi up --refresh"},
		{"a mapping to another function",
			func(c *motoCloud) { c.answer(mapping(func(m map[string]any) { m["FunctionArn"] = "arn:other" })) }, "mapping",
			"it starts arn:other", "pulumi up --refresh"},
		{"batches", func(c *motoCloud) {
			c.connect(10, func(in *lambda.CreateEventSourceMappingInput) { in.BatchSize = aws.Int32(5) })
		}, "mapping", "5 tasks at once", "pulumi up --refresh"},
		{"no partial failures", func(c *motoCloud) {
			c.connect(10, func(in *lambda.CreateEventSourceMappingInput) { in.FunctionResponseTypes = nil })
		}, "mapping", "ReportBatchItemFailures", "pulumi up --refresh"},
		{"a mapping that may not", func(c *motoCloud) {
			c.answer(mapping(func(m map[string]any) { m["LastProcessingResult"] = "PROBLEM: Function call failed" }))
		}, "mapping", "PROBLEM: Function call failed", "logs"},
		{"a small account", func(c *motoCloud) { c.answer(account(10, 10)); c.connect(900) }, "concurrency",
			"up to 900 workers may start, the account has room for 10", "maxConcurrency 10"},
		{"little reserved", func(c *motoCloud) {
			c.ok(c.lambda.PutFunctionConcurrency(c.Context(), &lambda.PutFunctionConcurrencyInput{FunctionName: &c.FunctionName,
				ReservedConcurrentExecutions: aws.Int32(5)}))
		}, "concurrency", "the function has reserved 5", "maxConcurrency 5"},
		{"no maximum", func(c *motoCloud) {
			c.connect(10, func(in *lambda.CreateEventSourceMappingInput) { in.ScalingConfig = nil })
		}, "concurrency", "has no maximum", "maxConcurrency 990"},
		{"no logs", func(c *motoCloud) {
			c.ok(c.logs.DeleteLogGroup(c.Context(), &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: &c.LogGroupName}))
		}, "logs", "there is no log group", "pulumi up --refresh"},
		{"a generator that is not in the image", func(c *motoCloud) { delete(c.Generators, "chess-task") }, "generators",
			"not in the image: chess-task", "pulumi up"},
		{"a generator that is only in the image", func(c *motoCloud) { c.Generators["tower"] = "c2" }, "generators",
			"only in the image: tower", "pulumi up"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newMotoCloud(t)
			c.setEnvironment(t)
			test.harm(c)
			found, status := c.diagnose(generators)
			if test.check == "" {
				for name, f := range found {
					if (f.State != "ok") != (name == "worker") {
						t.Errorf("%s: %+v", name, f)
					}
				}
				if f := found["worker"]; f.State != "skipped" || !strings.Contains(f.Says, "doctor --worker") {
					t.Errorf("%+v", f)
				}
				if status != 0 || len(found) != 13 {
					t.Errorf("status %d, %d checks", status, len(found))
				}
				return
			}
			f := found[test.check]
			if status != ui.ExitProblem || f.State != "problem" || !strings.Contains(f.Says, test.says) ||
				!strings.Contains(f.Try, test.try) {
				t.Errorf("status %d, %+v", status, f)
			}
		})
	}
}

// After a rollback the image and the settings are not the stack's, which is no problem: its remedy would
// bring the bad version back.
func TestDoctorAfterRollback(t *testing.T) {
	c := newMotoCloud(t)
	c.setEnvironment(t)
	generators := t.TempDir()
	makeGenerators(t, generators, "maze-task", "chess-task")
	for range 2 {
		c.ok(c.lambda.UpdateFunctionCode(t.Context(), &lambda.UpdateFunctionCodeInput{FunctionName: &c.FunctionName,
			ImageUri: aws.String(c.RepositoryURL + ":other")}))
		c.ok(c.lambda.PublishVersion(t.Context(), &lambda.PublishVersionInput{FunctionName: &c.FunctionName}))
	}
	alias, err := c.lambda.CreateAlias(t.Context(), &lambda.CreateAliasInput{FunctionName: &c.FunctionName,
		Name: aws.String(stack.Alias), FunctionVersion: aws.String("2")})
	c.ok(alias, err)
	c.FunctionARN = *alias.AliasArn
	found, _ := c.diagnose(generators)
	if f := found["function"]; f.State != "problem" || !strings.Contains(f.Says, "it runs the image") {
		t.Errorf("the newest version has another image: %+v", f)
	}
	c.ok(c.lambda.UpdateAlias(t.Context(), &lambda.UpdateAliasInput{FunctionName: &c.FunctionName,
		Name: aws.String(stack.Alias), FunctionVersion: aws.String("1")}))
	found, _ = c.diagnose(generators)
	if f := found["function"]; f.State != "ok" || !strings.Contains(f.Says,
		"version 1 takes tasks, not the newest, 2: ops --outputs ") || !strings.Contains(f.Says, " rollback --to 2, or pulumi up") {
		t.Errorf("%+v", f)
	}
}

// A stack whose function takes no tasks lacks nothing. What takes them is not checked, and no fleet is paused.
func TestDoctorWithoutLambda(t *testing.T) {
	c := newMotoCloud(t)
	c.setEnvironment(t)
	generators := t.TempDir()
	makeGenerators(t, generators, "maze-task", "chess-task")
	c.EventSourceMappingID, c.FleetWorkers = "", 20
	for workers, want := range map[int]string{0: "ops worker does, on other machines",
		20: "a fleet of at most 20 workers takes the tasks, which is not checked"} {
		c.FleetWorkers = workers
		found, status := c.diagnose(generators)
		if f := found["outputs"]; f.State != "ok" || status != 0 {
			t.Errorf("status %d, %+v", status, f)
		}
		for _, name := range []string{"mapping", "concurrency"} {
			if f := found[name]; f.State != "skipped" || !strings.Contains(f.Says, want) {
				t.Errorf("%+v", f)
			}
		}
	}
	c.FleetWorkers = 20
	deployed := &target.Target{Outputs: c.Outputs, Name: "dev"}
	q, err := deployed.Queue(t.Context())
	c.ok(q, err)
	err = (&PauseCmd{}).Run(t.Context(), &Output{&ui.Output{Style: &ui.Style{}, Stdout: io.Discard, Stderr: io.Discard},
		&target.Flags{}}, deployed, q, c.lambda)
	if err == nil || !strings.Contains(err.Error(), "its fleet does, which cannot be paused") {
		t.Error(err)
	}
}

// A peek is a delivery that counts while a fleet works on, also when the function is paused.
func TestPeekBesideFleet(t *testing.T) {
	c := newMotoCloud(t)
	c.setEnvironment(t)
	deployed := &target.Target{Outputs: c.Outputs, Name: "dev"}
	q, err := deployed.Queue(t.Context())
	c.ok(q, err)
	c.ok(c.lambda.UpdateEventSourceMapping(t.Context(),
		&lambda.UpdateEventSourceMappingInput{UUID: &c.EventSourceMappingID, Enabled: aws.Bool(false)}))
	peek := func() error {
		return (&QueuePeekCmd{Max: 1}).Run(t.Context(), &Output{&ui.Output{Style: &ui.Style{}, Stdout: io.Discard,
			Stderr: io.Discard}, &target.Flags{}}, deployed, q, c.lambda)
	}
	if err := peek(); err != nil {
		t.Errorf("paused, without a fleet: %v", err)
	}
	deployed.FleetWorkers = 5
	if err := peek(); err == nil || !strings.Contains(err.Error(), "the stack's fleet works on whatever is paused") {
		t.Errorf("with a fleet: %v", err)
	}
}

// Without credentials, what needs them is not tried.
func TestDoctorWithoutCredentials(t *testing.T) {
	c := newMotoCloud(t)
	c.setEnvironment(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	found, status := c.diagnose(t.TempDir())
	if f := found["credentials"]; status != ui.ExitProblem || f.State != "problem" ||
		!strings.Contains(f.Says, "there are no AWS credentials") || !strings.Contains(f.Try, "aws sso login") {
		t.Errorf("status %d, %+v", status, f)
	}
	for _, name := range []string{"queue", "dlq", "bucket", "function", "image", "mapping", "concurrency", "logs"} {
		if f := found[name]; f.State != "skipped" || f.Says == "" {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// What a request is refused with leads to a way out.
func TestDoctorRefused(t *testing.T) {
	c := newMotoCloud(t)
	c.setEnvironment(t)
	c.answer(answer{method: "GET", path: "/2015-03-31/functions/", status: 403, code: "AccessDeniedException"})
	found, _ := c.diagnose(t.TempDir())
	if f := found["function"]; f.State != "problem" ||
		!strings.Contains(f.Says, "Lambda GetFunction: AccessDeniedException") || !strings.Contains(f.Try, "AWS_PROFILE") {
		t.Errorf("%+v", f)
	}
	c.ImageURI = "127.0.0.1:5000/worker@sha256:" + strings.Repeat("0", 64)
	found, _ = c.diagnose(t.TempDir())
	if f := found["image"]; f.State != "skipped" || !strings.Contains(f.Says, "not ECR") {
		t.Errorf("%+v", f)
	}
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
	found, _ = c.diagnose(t.TempDir())
	if f := found["credentials"]; f.State != "problem" || !strings.Contains(f.Says, "connection refused") ||
		!strings.Contains(f.Try, "network") {
		t.Errorf("%+v", f)
	}
}

// What the local stack needs before it is up.
func TestDoctorLocal(t *testing.T) {
	generators := t.TempDir()
	makeGenerators(t, generators, "maze-task")
	index := func(entry string) func(g *target.Flags) {
		return func(g *target.Flags) {
			dir := filepath.Join(g.LocalDir, "generators")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(`{"generators":[`+entry+`]}`), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name, check, says, try string
		harm                   func(g *target.Flags)
	}{
		{"not up", "stack", "the local stack is not up", "ops local up", func(*target.Flags) {}},
		{"no Python", "python", "there is no python3 on the PATH", "", func(*target.Flags) { t.Setenv("PATH", t.TempDir()) }},
		{"no folder", "generators", "no such file", "--generators-dir", func(g *target.Flags) { g.Generators += "x" }},
		{"no generator", "generators", "there are none", "examples/generate.py",
			func(g *target.Flags) { g.Generators = t.TempDir() }},
		{"a name that is none", "generators", "its name", "ops generators list", func(g *target.Flags) {
			g.Generators = t.TempDir()
			makeGenerators(t, g.Generators, "a b")
		}},
		{"no index", "environments", "read the index of generators", "ops local up", index(`"`)},
		{"an environment that could not be made", "environments", "maze-task: no index answers", "tries again",
			index(`{"name":"maze-task","problem":"no index answers"}`)},
		{"an environment that is gone", "environments", "its Python is gone", "ops local up",
			index(fmt.Sprintf(`{"name":"maze-task","dir":%q,"entry":"examples/generate.py","flags":{"output":"--output","seed":true},"python":"/nowhere/python"}`, generators))},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := target.Flags{Stack: stack.Local, LocalDir: filepath.Join(t.TempDir(), ".local"), Generators: generators}
			test.harm(&f)
			found, status := diagnose(t, f)
			if f := found[test.check]; status != ui.ExitProblem || f.State != "problem" ||
				!strings.Contains(f.Says, test.says) || !strings.Contains(f.Try, test.try) {
				t.Errorf("status %d, %+v", status, f)
			}
			if f := found["disk"]; f.State != "ok" {
				t.Errorf("%+v", f)
			}
		})
	}
}
