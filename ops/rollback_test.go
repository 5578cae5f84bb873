package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A rollback goes one version back, or to the one that is named, and says how to return.
func TestRollback(t *testing.T) {
	c := newMotoCloud(t)
	deployed := &target.Target{Outputs: c.Outputs, Name: "dev"}
	notes := ""
	do := func(to int) (string, error) {
		var data, messages bytes.Buffer
		err := (&RollbackCmd{To: to}).Run(t.Context(),
			&Output{&ui.Output{Style: &ui.Style{}, Stdout: &data, Stderr: &messages}, &target.Flags{}}, deployed, c.lambda)
		notes = messages.String()
		return data.String(), err
	}
	works := func(want string) {
		t.Helper()
		f, err := c.lambda.GetFunction(t.Context(), &lambda.GetFunctionInput{FunctionName: &deployed.FunctionARN})
		c.ok(f, err)
		if got := aws.ToString(f.Configuration.Version); got != want {
			t.Errorf("version %s works on the queue, not %s", got, want)
		}
	}
	if _, err := do(0); err == nil || !strings.Contains(err.Error(), "has one version of its worker only") {
		t.Errorf("without an alias: %v", err)
	}
	for i := range 11 { // two digits: 9 is before 10
		c.ok(c.lambda.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{
			FunctionName: &c.FunctionName,
			Environment: &lambdatypes.Environment{Variables: map[string]string{
				stack.EnvImage: fmt.Sprint("repository@sha256:", i+1)}}}))
		c.ok(c.lambda.PublishVersion(t.Context(), &lambda.PublishVersionInput{FunctionName: &c.FunctionName}))
	}
	alias, err := c.lambda.CreateAlias(t.Context(), &lambda.CreateAliasInput{FunctionName: &c.FunctionName,
		Name: aws.String(stack.Alias), FunctionVersion: aws.String("11")})
	c.ok(alias, err)
	deployed.FunctionARN = *alias.AliasArn

	out, err := do(0)
	if want := "version 10 works on the queue from now on, 11 did: image repository@sha256:10\n" +
		"back to the other: ops --stack dev rollback --to 11\n"; err != nil || out != want {
		t.Errorf("%v\n%s", err, out)
	}
	works("10")
	deployed.FleetWorkers = 5
	if _, err = do(11); err != nil || !strings.Contains(notes, "note: the stack's fleet keeps the newest image") {
		t.Errorf("beside a fleet: %v, %s", err, notes)
	}
	mapping := deployed.EventSourceMappingID
	deployed.EventSourceMappingID = ""
	if _, err = do(10); err == nil || !strings.Contains(err.Error(), "takes no tasks, and what does has no versions") {
		t.Errorf("with a fleet alone: %v", err)
	}
	works("11")
	deployed.EventSourceMappingID, deployed.FleetWorkers = mapping, 0
	if _, err := do(0); err != nil {
		t.Error(err)
	}
	if _, err := do(0); err != nil {
		t.Error(err)
	}
	works("9")
	if _, err := do(1); err != nil {
		t.Error(err)
	}
	works("1")
	for to, want := range map[int]string{0: "version 1 works on the queue, and no earlier one is left",
		1: "--to 1: that version works on the queue already", 12: "--to 12: the function has no such version"} {
		if _, err := do(to); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("to %d: %v\nwant %s", to, err, want)
		}
	}
	works("1")
}

// After a rollback a dataset takes its generators, commits and locks from the image that works, not from
// the newest, which the stack's outputs describe: its workers refuse the newest. moto runs no images, so a
// real worker's answer is played.
func TestSubmitAfterRollback(t *testing.T) {
	c := newMotoCloud(t)
	c.setEnvironment(t)
	dir := t.TempDir()
	makeGenerators(t, filepath.Join(dir, "source"), "maze-task", "chess-task")
	b := environment.Builder{Root: filepath.Join(dir, "source"), Dir: filepath.Join(dir, "image"), Python: "/usr/bin/python3"}
	index, err := b.Build(t.Context())
	must(t, err)
	index.Generators = index.Generators[1:] // chess came later
	index.Generators[0].Commit, index.Generators[0].Lock = "c0", ""
	index.Generators = append(index.Generators, generator.Generator{Name: "torn-task", Problem: "no index has numpy 9"})
	must(t, index.Write(b.Dir))
	st := store.New(c.s3, c.BucketName)
	f, err := newFunction(b.Dir, &c.Outputs, st, c.sqs)
	must(t, err)
	x, err := f.Handle(t.Context(), json.RawMessage(worker.Examine))
	must(t, err)

	for _, image := range []string{"repository@sha256:1", c.ImageURI} {
		c.ok(c.lambda.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{
			FunctionName: &c.FunctionName,
			Environment:  &lambdatypes.Environment{Variables: map[string]string{stack.EnvImage: image}}}))
		c.ok(c.lambda.PublishVersion(t.Context(), &lambda.PublishVersionInput{FunctionName: &c.FunctionName}))
	}
	alias, err := c.lambda.CreateAlias(t.Context(), &lambda.CreateAliasInput{FunctionName: &c.FunctionName,
		Name: aws.String(stack.Alias), FunctionVersion: aws.String("2")})
	c.ok(alias, err)
	c.FunctionARN, c.Locks = *alias.AliasArn, nil
	c.ok(c.lambda.UpdateEventSourceMapping(t.Context(), &lambda.UpdateEventSourceMappingInput{
		UUID: &c.EventSourceMappingID, Enabled: aws.Bool(false)})) // moto would run the function
	submit := func(dataset task.Dataset, name string) (pinned []task.PinnedGenerator, messages string, err error) {
		t.Helper()
		deployed := &target.Target{Outputs: c.Outputs, Name: "dev", Dataset: dataset}
		q, err := deployed.Queue(t.Context())
		must(t, err)
		cmd := &SubmitCmd{}
		cmd.Generator, cmd.Samples = []string{name}, 4
		var text bytes.Buffer
		err = cmd.Run(t.Context(), &Output{&ui.Output{Style: &ui.Style{}, Stdout: io.Discard, Stderr: &text},
			&target.Flags{LocalDir: dir, Generators: b.Root}}, deployed, q, st.In(dataset))
		m, _ := st.In(dataset).Manifest(t.Context())
		return m.Generators, text.String(), err
	}
	invocation := answer{method: "POST", path: "/2015-03-31/functions/" + c.FunctionName + "/invocations", instead: x}
	for _, test := range []struct {
		name, version, generator string
		answer                   answer
		commit, says             string // the error or a message
	}{
		{"newest", "2", "maze-task", answer{}, "c1", ""},
		{"rolled-back", "1", "maze-task", invocation, "c0", "version 1 of the function works on the queue and not the newest"},
		{"later", "1", "chess-task", invocation, "", "generator chess-task is not ready: it is in " + b.Root + " but not in the stack's image"},
		{"torn", "1", "torn-task", invocation, "", "generator torn-task is not ready: no index has numpy 9"},
		{"dumb", "1", "maze-task", answer{method: "POST", path: invocation.path, failed: true,
			instead: map[string]string{"errorMessage": "num_samples is missing"}}, "",
			"which generators it has is not known: it failed (Unhandled): num_samples is missing"},
		{"denied", "1", "maze-task", answer{method: "GET", path: "/2015-03-31/functions/", status: 403,
			code: "AccessDeniedException"}, "c1", "which version works on the queue (Lambda GetFunctionConfiguration: AccessDenied"},
	} {
		c.ok(c.lambda.UpdateAlias(t.Context(), &lambda.UpdateAliasInput{FunctionName: &c.FunctionName,
			Name: aws.String(stack.Alias), FunctionVersion: &test.version}))
		test.answer.once = true
		c.answer(test.answer)
		pinned, messages, err := submit(task.Dataset(test.name), test.generator)
		if text := fmt.Sprint(messages, err); !strings.Contains(text, test.says) || (err == nil) != (test.commit != "") {
			t.Errorf("%s: %s\nwant %s", test.name, text, test.says)
		}
		if test.commit != "" && (len(pinned) != 1 || pinned[0].Commit != test.commit) {
			t.Errorf("%s: the dataset pins %+v, not %s", test.name, pinned, test.commit)
		}
	}
}

// elsewhere is a Docker daemon on another machine, which only Pulumi asks.
const elsewhere = "ssh://me@192.0.2.1"

// Before it destroys, ops says what would be lost and what stays, and asks.
func TestDestroyAsks(t *testing.T) {
	c := newMotoCloud(t)
	t.Setenv("DOCKER_HOST", elsewhere)
	c.setEnvironment(t)
	deployed := &target.Target{Outputs: c.Outputs, Name: "dev"}
	q, err := deployed.Queue(t.Context())
	c.ok(q, err)
	c.ok(c.lambda.UpdateEventSourceMapping(t.Context(), &lambda.UpdateEventSourceMappingInput{
		UUID: &c.EventSourceMappingID, Enabled: aws.Bool(false)})) // moto would run the function
	for address, n := range map[string]int{c.QueueURL: 3, c.DLQURL: 1} {
		for range n {
			c.ok(c.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &address, MessageBody: aws.String("{}")}))
		}
	}
	for _, test := range []struct {
		stack, outputs string
		retain         *bool
		says           []string
	}{
		{"dev", "", nil, []string{"3 tasks waiting, 0 with workers, 1 in the DLQ", "bucket " + c.BucketName, c.RepositoryURL,
			"adoptBucket " + c.BucketName, "Delete the stack dev, and lose 4 tasks: there is no terminal to confirm it"}},
		{"dev", "", new(true), []string{"they stay", "Delete the stack dev, and lose 4 tasks:"}},
		{"dev", "", new(false), []string{"they are deleted", "pulumi config set retainData true",
			"Delete the stack dev with ALL SAMPLES in " + c.BucketName + ", and lose 4 tasks: there is no terminal"}},
		{stack.Local, "", nil, []string{"the local stack is none of Pulumi's"}},
		{"dev", "outputs.json", nil, []string{"--outputs names outputs and no stack of Pulumi"}},
	} {
		var messages bytes.Buffer
		deployed.Name, deployed.RetainData = test.stack, test.retain
		err := (&DestroyCmd{}).Run(t.Context(), &Output{&ui.Output{Style: &ui.Style{}, Stdout: &messages, Stderr: &messages},
			&target.Flags{Outputs: test.outputs}}, deployed, q)
		for _, want := range test.says {
			if text := fmt.Sprint(messages.String(), err); err == nil || !strings.Contains(text, want) {
				t.Errorf("%s %s: %s\nwant %s", test.stack, test.outputs, text, want)
			}
		}
		if text := messages.String(); test.retain != nil && !*test.retain && strings.Contains(text, "adoptBucket") {
			t.Errorf("a bucket that is deleted cannot be adopted: %s", text)
		}
	}
}

// Without the Docker daemon, which pulumi destroy needs, nothing is asked and nothing begins. The daemon
// may be where the stack's configuration says.
func TestDestroyNeedsDocker(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	deployed := &target.Target{Name: "dev"}
	const nowhere = "unix:///nowhere/docker.sock"
	for _, test := range []struct{ host, pulumi, says string }{
		{nowhere, "echo \"$*\" >&2; exit 1", "there is no Docker daemon at /nowhere/docker.sock: start Docker, or set DOCKER_HOST"},
		{elsewhere, "[ \"$*\" = 'config get docker:host --stack dev --non-interactive' ] && echo unix:///far/docker.sock",
			"there is no Docker daemon at /far/docker.sock"},
		{nowhere, "echo " + elsewhere, ""},
	} {
		t.Setenv("DOCKER_HOST", test.host)
		if err := os.WriteFile(filepath.Join(dir, "pulumi"), []byte("#!/bin/sh\n"+test.pulumi+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		var messages bytes.Buffer
		o := &Output{&ui.Output{Style: &ui.Style{Yes: true}, Stdout: &messages, Stderr: &messages}, &target.Flags{}}
		if test.says == "" {
			if err := dockerAnswers(t.Context(), o, "dev"); err != nil {
				t.Errorf("a daemon on another machine: %v", err)
			}
			continue
		}
		err := (&DestroyCmd{}).Run(t.Context(), o, deployed, nil)
		if err == nil || !strings.Contains(err.Error(), "pulumi destroy needs Docker, to forget the images: "+test.says) ||
			messages.Len() > 0 {
			t.Errorf("%v, %s\nwant %s", err, messages.String(), test.says)
		}
	}
}

// A destroy that stopped half-way can be repeated when the queues are gone. Pulumi is in a process
// group of its own: a terminal would send it a second interrupt, which makes it leave its work.
func TestDestroyAgain(t *testing.T) {
	c := newMotoCloud(t)
	c.setEnvironment(t)
	deployed := &target.Target{Outputs: c.Outputs, Name: "dev"}
	q, err := deployed.Queue(t.Context())
	c.ok(q, err)
	for _, address := range []string{c.QueueURL, c.DLQURL} {
		c.ok(c.sqs.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &address}))
	}
	t.Setenv("DOCKER_HOST", elsewhere)
	dir := t.TempDir()
	text := "#!/bin/sh\nread -r _ _ _ _ group _ </proc/$$/stat\necho \"pulumi $*, own group: $([ $$ = $group ] && echo yes)\" >&2\n"
	if err := os.WriteFile(filepath.Join(dir, "pulumi"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	var messages bytes.Buffer
	err = (&DestroyCmd{}).Run(t.Context(), &Output{&ui.Output{Style: &ui.Style{Yes: true}, Stdout: &messages,
		Stderr: &messages}, &target.Flags{}}, deployed, q)
	for _, want := range []string{"note: the queue is gone already\nnote: the DLQ is gone already\n0 tasks waiting",
		"pulumi destroy --stack dev --yes --non-interactive, own group: yes\n"} {
		if err != nil || !strings.Contains(messages.String(), want) {
			t.Errorf("%v: %s\nwant %s", err, messages.String(), want)
		}
	}
}
