package local

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func (r *rig) enable(on bool) string {
	r.t.Helper()
	out, err := r.lambda().UpdateEventSourceMapping(r.t.Context(),
		&lambda.UpdateEventSourceMappingInput{UUID: &r.outputs.EventSourceMappingID, Enabled: &on})
	if err != nil {
		r.t.Fatal(err)
	}
	return aws.ToString(out.State)
}

func (r *rig) lambda() *lambda.Client { return lambda.NewFromConfig(AWSConfig(r.outputs)) }

func (r *rig) mappingState() string {
	out, err := r.lambda().GetEventSourceMapping(r.t.Context(),
		&lambda.GetEventSourceMappingInput{UUID: &r.outputs.EventSourceMappingID})
	if err != nil {
		r.t.Fatal(err)
	}
	return aws.ToString(out.State)
}

// While the mapping is disabled no task is taken; one that a worker has goes on.
// The workers themselves stay.
func TestPause(t *testing.T) {
	t.Parallel()
	r := up(t, folder(t), Config{Workers: 2})
	eventually(t, "both workers are ready", func() bool {
		out, err := r.lambda().GetFunction(t.Context(), &lambda.GetFunctionInput{FunctionName: &r.outputs.FunctionName})
		return err == nil && out.Configuration.State == "Active" && *out.Concurrency.ReservedConcurrentExecutions == 2
	})
	r.sendTask(task.Task{Generator: "slow", NumSamples: 1, Seed: 1})
	eventually(t, "a worker has it", func() bool { _, inFlight, _ := r.queue.Counts(tasksQueue); return inFlight == 1 })
	r.enable(false)
	eventually(t, "the mapping is disabled", func() bool { return r.mappingState() == "Disabled" })
	for i := range 20 {
		r.sendTask(task.Task{Generator: "good", StartIndex: 20 * i, NumSamples: 1, Seed: 1})
	}
	eventually(t, "the task that was taken is done",
		func() bool { _, inFlight, _ := r.queue.Counts(tasksQueue); return inFlight == 0 })
	if visible, _, _ := r.queue.Counts(tasksQueue); visible != 20 || len(r.receipts("slow")) != 1 ||
		len(r.receipts("good")) != 0 {
		t.Errorf("%d tasks are waiting", visible)
	}
	if state := r.enable(true); state != "Enabled" {
		t.Error(state)
	}
	r.idle()
	if n := len(r.receipts("good")); n != 20 {
		t.Errorf("%d tasks are committed", n)
	}
}

// Switching on and off under load loses no task and doubles none.
func TestPauseUnderLoad(t *testing.T) {
	t.Parallel()
	r := up(t, folder(t), Config{Workers: 2})
	for i := range 12 {
		r.sendTask(task.Task{Generator: "good", StartIndex: 20 * i, NumSamples: 1, Seed: 1})
	}
	for len(r.receipts("good")) < 12 {
		r.enable(false)
		r.enable(true)
	}
	r.idle()
	for _, receipt := range r.receipts("good") {
		if receipt.Receives != 1 || receipt.Epoch != 1 {
			t.Errorf("%+v", receipt)
		}
	}
}

// The API refuses what it does not do, and requests that a web page could make.
func TestLambdaAPI(t *testing.T) {
	t.Parallel()
	r := up(t, folder(t), Config{Workers: 1})
	mapping := "/2015-03-31/event-source-mappings/" + r.outputs.EventSourceMappingID
	for _, test := range []struct {
		method, path, body, origin string
		status                     int
	}{
		{"GET", mapping, "", "", 200},
		{"PUT", mapping, `{"BatchSize":5}`, "", 400},
		{"PUT", mapping, `{}`, "", 400},
		{"PUT", mapping, `no`, "", 400},
		{"PUT", mapping, `{"Enabled":false}`, "http://example.com", 403},
		{"PUT", mapping + "0", `{"Enabled":false}`, "", 404},
		{"GET", mapping + "0", "", "", 404},
		{"GET", "/2015-03-31/functions/other", "", "", 404},
		{"GET", "/2015-03-31/functions/" + r.outputs.FunctionARN, "", "", 200},
	} {
		request, err := http.NewRequest(test.method, r.outputs.LambdaEndpoint+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		if test.origin != "" {
			request.Header.Set("Origin", test.origin)
		}
		answer, err := (&http.Client{Timeout: time.Minute}).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != test.status {
			t.Errorf("%s: status %d", fmt.Sprint(test), answer.StatusCode)
		}
	}
	if state := r.mappingState(); state != "Enabled" {
		t.Error(state)
	}
}
