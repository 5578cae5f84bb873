package cloudtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/cloudtest"
)

// user is somebody at a terminal, in the folder of the repository.
type user struct {
	t   *testing.T
	env []string
}

func newUser(t *testing.T, c *cloudtest.Cloud) *user {
	u := &user{t: t}
	mine := c.Environment(t.TempDir())
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if _, ok := mine[name]; !ok && !strings.HasPrefix(name, "PULUMI_") && !strings.HasPrefix(name, "AWS_") {
			u.env = append(u.env, variable)
		}
	}
	for name, value := range mine {
		u.env = append(u.env, name+"="+value)
	}
	return u
}

// does runs a program, which must end with a status, and returns what it has
// printed on standard output.
func (u *user) does(status int, name string, args ...string) string {
	u.t.Helper()
	began := time.Now()
	cmd := exec.CommandContext(u.t.Context(), name, args...)
	cmd.Env = u.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		u.t.Fatalf("%s: %v", name, err)
	}
	u.t.Logf("%s %s: %.1f s\n%s%s", filepath.Base(name), strings.Join(args, " "), time.Since(began).Seconds(), &stdout,
		&stderr)
	if got := cmd.ProcessState.ExitCode(); got != status {
		u.t.Fatalf("%s %s ended with status %d, not %d", filepath.Base(name), strings.Join(args, " "), got, status)
	}
	return stdout.String()
}

func (u *user) reads(text string, parts ...string) {
	u.t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			u.t.Errorf("%q does not say %q", text, part)
		}
	}
}

// What the README tells a user to type, from a clone to samples that are whole:
// Pulumi's command line with the Go language host and main.go, then ops on that
// very stack, while the function's image works on its queue.
func TestCommandLine(t *testing.T) {
	c := cloud(t)
	a := newAccount(c)
	u := newUser(t, c)
	want := a.kinds(t, project+"-dev-")
	want["bucket"]++ // which is kept, with the images
	want["repository"]++

	u.does(0, "pulumi", "stack", "init", "dev")
	for key, value := range settings() {
		u.does(0, "pulumi", "config", "set", key, value)
	}
	// The function's scratch space is memory of this machine here.
	u.does(0, "pulumi", "config", "set", "ephemeralStorageMB", "512")
	before := a.kinds(t, project+"-dev-")
	plan := u.predicts()
	if others := func(change string) bool { return !strings.HasPrefix(change, "create ") }; len(plan) < 25 ||
		slices.ContainsFunc(plan, others) {
		t.Errorf("the preview of a new stack is %q", plan)
	}
	if found := a.kinds(t, project+"-dev-"); !maps.Equal(found, before) {
		t.Errorf("a preview has made %v of %v", found, before)
	}
	u.does(0, "pulumi", "up", "--stack", "dev", "--yes", "--non-interactive")
	o := parseOutputs(t, []byte(u.does(0, "pulumi", "stack", "output", "--json")))
	if url := strings.TrimSpace(u.does(0, "pulumi", "stack", "output", "queueUrl")); url != o.QueueURL {
		t.Errorf("pulumi stack output queueUrl: %s, not %s", url, o.QueueURL)
	}
	u.does(0, "pulumi", "up", "--stack", "dev", "--yes", "--non-interactive", "--expect-no-changes")

	u.does(0, "pulumi", "config", "set", "timeoutSeconds", "600")
	same(t, "the preview of less time", u.predicts(), "update aws:lambda/function:Function "+project+"-dev-worker",
		"update aws:lambda/alias:Alias "+project+"-dev-worker", "update aws:cloudwatch/dashboard:Dashboard "+project+"-dev-watch")
	if got := a.timeout(t, o.FunctionName); got != 900 {
		t.Errorf("before up the function has %d s", got)
	}
	u.does(0, "pulumi", "up", "--stack", "dev", "--yes", "--non-interactive")
	if got := a.timeout(t, o.FunctionName); got != 600 {
		t.Errorf("the function has %d s, 600 were set", got)
	}
	same(t, "the preview after it", u.predicts())

	binary := filepath.Join(t.TempDir(), "ops")
	u.does(0, "go", "build", "-o", binary, "./ops")
	ops := func(status int, args ...string) string {
		t.Helper()
		return u.does(status, binary, append([]string{"--stack", "dev"}, args...)...)
	}
	u.reads(ops(0, "info"), o.QueueURL, o.BucketName)
	ops(0, "doctor")
	ops(0, "pause")
	ops(0, "submit", "--generator", "chess-task-data-generator", "--generator", "maze-task-data-generator", "--samples",
		"40", "--batch", "20")
	lose(t, a, o.QueueURL, o.DLQURL)

	working, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- c.RunFunction(working, o.EventSourceMappingID) }()
	ops(0, "resume")
	ops(2, "monitor", "--watch", "--interval", "1")
	ops(2, "verify")
	u.reads(ops(0, "dlq", "list"), "lost")
	u.reads(ops(0, "dlq", "replay", "--yes"), "1 task sent again")
	ops(0, "monitor", "--watch", "--interval", "1")
	u.reads(ops(0, "verify"), ": 2 generators, 80 samples")
	u.reads(ops(0, "logs", "--since", "30m", "--generator", "maze-task-data-generator"), "maze-task-data-generator")
	stop()
	if err := <-ended; err != nil {
		t.Errorf("the function: %v", err)
	}

	u.does(0, "pulumi", "refresh", "--stack", "dev", "--yes", "--non-interactive", "--expect-no-changes")
	ops(0, "destroy", "--yes")
	if found := a.kinds(t, project+"-dev-"); !maps.Equal(found, want) {
		t.Errorf("after destroy there is %v, want %v", found, want)
	}
}

// predicts returns what a preview would change, as up does.
func (u *user) predicts() (changes []string) {
	u.t.Helper()
	var preview struct {
		Steps []struct {
			Op  apitype.OpType
			URN resource.URN
		}
	}
	if err := json.Unmarshal([]byte(u.does(0, "pulumi", "preview", "--stack", "dev", "--non-interactive", "--json")),
		&preview); err != nil {
		u.t.Fatal(err)
	}
	for _, s := range preview.Steps {
		if s.Op != apitype.OpSame {
			changes = append(changes, fmt.Sprintf("%s %s %s", s.Op, s.URN.Type(), s.URN.Name()))
		}
	}
	slices.Sort(changes)
	return changes
}

// timeout is that of a function.
func (a *account) timeout(t *testing.T, function string) int32 {
	t.Helper()
	f, err := a.lambda.GetFunctionConfiguration(t.Context(),
		&lambda.GetFunctionConfigurationInput{FunctionName: &function})
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToInt32(f.Timeout)
}

// lose delivers the first task to workers that die with it, until the queue
// gives it up.
func lose(t *testing.T, a *account, queue, dlq string) {
	t.Helper()
	for range 10 {
		out, err := a.sqs.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue, MaxNumberOfMessages: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range out.Messages {
			if _, err := a.sqs.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &queue,
				ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: 0}); err != nil {
				t.Fatal(err)
			}
		}
		q, err := a.sqs.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &dlq,
			AttributeNames: []sqstypes.QueueAttributeName{"All"}})
		if err != nil {
			t.Fatal(err)
		}
		if q.Attributes["ApproximateNumberOfMessages"] == "1" {
			return
		}
	}
	t.Fatalf("the queue %s does not give up", queue)
}
