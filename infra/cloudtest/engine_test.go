package cloudtest_test

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	pulumisqs "github.com/pulumi/pulumi-aws/sdk/v6/go/aws/sqs"
	"github.com/pulumi/pulumi/sdk/v3/go/auto"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/events"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optrefresh"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra"
	"github.com/vm-dataset/vm-dataset-pipeline/infra/cloudtest"
	outputs "github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
)

// The life of a stack, from preview to destroy.
func TestEngine(t *testing.T) {
	c := cloud(t)
	a := newAccount(c)
	name := unusedName()
	prefix := project + "-" + name
	s := newStack(t, c, name, infra.Program, nil)
	began := time.Now()
	lap := func(what string) {
		t.Logf("%s: %.1f s", what, time.Since(began).Seconds())
		began = time.Now()
	}

	p, err := s.Preview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if created := p.ChangeSummary["create"]; len(p.ChangeSummary) != 1 || created < 25 {
		t.Errorf("preview: %v", p.ChangeSummary)
	}
	if found := a.kinds(t, prefix); len(found) > 0 {
		t.Errorf("a preview has made %v", found)
	}
	lap("preview")

	r, _ := s.up()
	lap("up, image built and pushed")
	o := checkOutputs(t, r.Outputs)
	want := map[string]int{"queue": 2, "bucket": 1, "repository": 1, "role": 1, "function": 1, "mapping": 1,
		"log group": 1, "alarm": 4, "dashboard": 1}
	if found := a.kinds(t, prefix); !maps.Equal(found, want) {
		t.Errorf("up has made %v, want %v", found, want)
	}
	if mediaType := manifestType(t.Context(), t, o.ImageURI); mediaType != cloudtest.MediaTypeDocker &&
		mediaType != cloudtest.MediaTypeOCI {
		t.Errorf("Lambda does not run an image of type %s", mediaType)
	} else {
		t.Logf("%s is %s", o.ImageURI, mediaType)
	}
	f, err := a.lambda.GetFunction(t.Context(), &lambda.GetFunctionInput{FunctionName: &o.FunctionName})
	if err != nil {
		t.Fatal(err)
	}
	if got := aws.ToString(f.Code.ImageUri); got != o.ImageURI ||
		f.Configuration.Environment.Variables[outputs.EnvImage] != o.ImageURI {
		t.Errorf("the function has image %s and variables %v, the stack says %s", got, f.Configuration.Environment.Variables,
			o.ImageURI)
	}

	_, changes := s.up()
	same(t, "up without changes", changes)
	lap("up without changes")

	// Only what depends on a setting changes.
	s.set("memoryMB", "4096")
	r, changes = s.up()
	same(t, "less memory", changes, "update aws:lambda/function:Function "+prefix+"-worker",
		"update aws:lambda/alias:Alias "+prefix+"-worker", "update aws:cloudwatch/dashboard:Dashboard "+prefix+"-watch")
	if m := r.Outputs[outputs.OutMemoryMB].Value; m != 4096.0 {
		t.Errorf("output memoryMB is %v", m)
	}
	s.set("visibilityTimeoutSeconds", "1200")
	_, changes = s.up()
	same(t, "longer visibility", changes, "update aws:sqs/queue:Queue "+prefix+"-tasks", "update aws:sqs/queue:Queue "+
		prefix+"-tasks-dlq")
	lap("two changes of settings")

	// So it is with files: the image is made from some of them only, and of others' umasks.
	for path, mode := range map[string]os.FileMode{"go.mod": 0o600, "worker/start.go": 0o664} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	edit(t, "README.md", "An edit.")
	edit(t, filepath.Join("worker", "worker_test.go"), "// An edit.")
	_, changes = s.up()
	same(t, "an edit of the README and of a test", changes)
	edit(t, filepath.Join("generators", "chess-task-data-generator", "chess_puzzle.py"), "# An edit.")
	r, changes = s.up()
	same(t, "an edit of a generator", changes, "update docker:index/image:Image "+prefix+"-image",
		"update aws:lambda/function:Function "+prefix+"-worker", "update aws:lambda/alias:Alias "+prefix+"-worker")
	if f, err = a.lambda.GetFunction(t.Context(), &lambda.GetFunctionInput{FunctionName: &o.FunctionName}); err != nil {
		t.Fatal(err)
	}
	if now := r.Outputs[outputs.OutImageURI].Value; now == o.ImageURI || now != aws.ToString(f.Code.ImageUri) {
		t.Errorf("after an edit the image is %v, the function's %s, both were %s", now, aws.ToString(f.Code.ImageUri),
			o.ImageURI)
	}
	lap("edits of files")

	// A paused queue stays paused, and what somebody has changed by hand is put right.
	if _, err := a.lambda.UpdateEventSourceMapping(t.Context(),
		&lambda.UpdateEventSourceMappingInput{UUID: &o.EventSourceMappingID, Enabled: aws.Bool(false)}); err != nil {
		t.Fatal(err)
	}
	q, err := a.sqs.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &o.QueueURL,
		AttributeNames: []sqstypes.QueueAttributeName{"All"}})
	if err != nil {
		t.Fatal(err)
	}
	// moto forgets a policy that is not set again
	attributes := map[string]string{"VisibilityTimeout": "30", "Policy": q.Attributes["Policy"]}
	if _, err := a.sqs.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &o.QueueURL,
		Attributes: attributes}); err != nil {
		t.Fatal(err)
	}
	alarms, err := a.cloudwatch.DescribeAlarms(t.Context(),
		&cloudwatch.DescribeAlarmsInput{AlarmNamePrefix: aws.String(prefix + "-watch-dead")})
	if err != nil || len(alarms.MetricAlarms) != 1 {
		t.Fatalf("alarms: %v, %v", alarms, err)
	}
	if _, err := a.cloudwatch.DeleteAlarms(t.Context(),
		&cloudwatch.DeleteAlarmsInput{AlarmNames: []string{*alarms.MetricAlarms[0].AlarmName}}); err != nil {
		t.Fatal(err)
	}
	ch := make(chan events.EngineEvent)
	drift := collect(ch)
	if _, err := s.Refresh(t.Context(), optrefresh.EventStreams(ch)); err != nil {
		t.Fatal(err)
	}
	same(t, "refresh", <-drift, "update aws:sqs/queue:Queue "+prefix+"-tasks",
		"delete aws:cloudwatch/metricAlarm:MetricAlarm "+prefix+"-watch-dead",
		"update aws:lambda/eventSourceMapping:EventSourceMapping "+prefix+"-worker")
	_, changes = s.up()
	same(t, "up after a refresh", changes, "update aws:sqs/queue:Queue "+prefix+"-tasks",
		"create aws:cloudwatch/metricAlarm:MetricAlarm "+prefix+"-watch-dead")
	q, err = a.sqs.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &o.QueueURL,
		AttributeNames: []sqstypes.QueueAttributeName{"All"}})
	if err != nil || q.Attributes["VisibilityTimeout"] != "1200" {
		t.Errorf("the queue after refresh and up: %v, %v", q.Attributes, err)
	}
	m, err := a.lambda.GetEventSourceMapping(t.Context(),
		&lambda.GetEventSourceMappingInput{UUID: &o.EventSourceMappingID})
	if err != nil || aws.ToString(m.State) != "Disabled" {
		t.Errorf("the paused mapping after refresh and up: %s, %v", aws.ToString(m.State), err)
	}
	lap("refresh and up")

	// The data survives the stack.
	put(t, a, o.BucketName)
	if _, err := s.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found := a.kinds(t, prefix); !maps.Equal(found, map[string]int{"bucket": 1, "repository": 1}) {
		t.Errorf("after destroy there is %v, want the bucket and the images alone", found)
	}
	if _, err := a.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &o.BucketName,
		Key: aws.String(sampleKey)}); err != nil {
		t.Errorf("the sample after destroy: %v", err)
	}
	if _, err := a.s3.GetPublicAccessBlock(t.Context(), &s3.GetPublicAccessBlockInput{Bucket: &o.BucketName}); err != nil {
		t.Errorf("the bucket that was kept is private no longer: %v", err)
	}
	lap("destroy")
}

// A stack that shall leave nothing leaves nothing, and mails its alarms.
func TestEngineKeepsNothing(t *testing.T) {
	c := cloud(t)
	a := newAccount(c)
	name := unusedName()
	s := newStack(t, c, name, infra.Program, map[string]string{"retainData": "false", "alarmEmail": "team@example.com"})
	r, _ := s.up()
	o := checkOutputs(t, r.Outputs)
	if found := a.kinds(t, project+"-"+name); found["topic"] != 1 {
		t.Errorf("up has made %v", found)
	}
	put(t, a, o.BucketName)
	if _, err := s.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found := a.kinds(t, project+"-"+name); len(found) > 0 {
		t.Errorf("after destroy there is still %v", found)
	}
}

// A wrong setting is told before there is any resource.
func TestEngineRefusesSettings(t *testing.T) {
	c := cloud(t)
	a := newAccount(c)
	name := unusedName()
	s := newStack(t, c, name, infra.Program, map[string]string{"memoryMB": "99", "visibilityTimeoutSeconds": "60",
		"architecture": "sparc"})
	_, err := s.Up(t.Context())
	if err == nil {
		t.Fatal("wrong settings are taken")
	}
	if !strings.Contains(err.Error(), project+":memoryMB is") {
		t.Errorf("the error does not name memoryMB: %v", err)
	}
	if found := a.kinds(t, project+"-"+name); len(found) > 0 {
		t.Errorf("wrong settings have made %v", found)
	}
	state, err := s.Export(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(state.Deployment), `"aws:`) {
		t.Errorf("wrong settings have left resources: %s", state.Deployment)
	}
}

// Wrong inputs reach nobody: the provider refuses them, in a preview already.
func TestEngineRefusesInputs(t *testing.T) {
	c := cloud(t)
	a := newAccount(c)
	name := unusedName()
	s := newStack(t, c, name, func(ctx *pulumi.Context) error {
		var q pulumisqs.Queue
		return ctx.RegisterResource("aws:sqs/queue:Queue", project+"-"+name,
			pulumi.Map{"visibilityTimeoutSeconds": pulumi.Int(43201), "visibility": pulumi.Int(1)}, &q)
	}, nil)
	_, err := s.Preview(t.Context())
	for _, part := range []string{"visibilityTimeoutSeconds is 43201", "visibility is no property of"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("a preview does not say %q: %v", part, err)
		}
	}
	if _, err := s.Up(t.Context()); err == nil {
		t.Error("wrong inputs are taken")
	}
	if found := a.kinds(t, project+"-"+name); len(found) > 0 {
		t.Errorf("wrong inputs have made %v", found)
	}
}

// unusedName is a stack's name that no other test has: they share moto.
func unusedName() string { return "t" + strings.ToLower(rand.Text()[:6]) }

// checkOutputs reads the outputs as ops does.
func checkOutputs(t *testing.T, all auto.OutputMap) outputs.Outputs {
	t.Helper()
	values := map[string]any{}
	for key, v := range all {
		values[key] = v.Value
	}
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	return parseOutputs(t, text)
}

func parseOutputs(t *testing.T, text []byte) outputs.Outputs {
	t.Helper()
	o, err := outputs.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := json.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	for _, name := range outputs.Names() {
		if v, ok := values[name]; !ok || v == "" {
			t.Errorf("output %s is %v", name, v)
		}
		delete(values, name)
	}
	if len(values) > 0 {
		t.Errorf("outputs that infra/stack does not name: %v", values)
	}
	return o
}

const sampleKey = "data/v1/maze-task-data-generator/maze_00000000/prompt.txt"

func put(t *testing.T, a *account, bucket string) {
	t.Helper()
	if _, err := a.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String(sampleKey),
		Body: strings.NewReader("a maze")}); err != nil {
		t.Fatal(err)
	}
}

// set changes a setting of the stack.
func (s *stack) set(key, value string) {
	s.t.Helper()
	if err := s.SetConfig(s.t.Context(), project+":"+key, auto.ConfigValue{Value: value}); err != nil {
		s.t.Fatal(err)
	}
}
