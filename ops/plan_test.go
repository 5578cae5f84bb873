package main

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// A stack is asked how many workers it may start and how long its queue keeps a
// task; flags go before.
func TestPlanAsksTheStack(t *testing.T) {
	c := newMotoCloud(t)
	c.connect(25)
	c.MemoryMB, c.Architecture = 3538, "arm64"
	c.setQueue(c.QueueURL, "MessageRetentionPeriod", "345600")
	c.ok(c.lambda.UpdateFunctionConfiguration(t.Context(),
		&lambda.UpdateFunctionConfigurationInput{FunctionName: &c.FunctionName, Timeout: aws.Int32(300)}))
	for name, value := range c.environment() {
		t.Setenv(name, value)
	}
	file, err := c.save(t.TempDir())
	must(t, err)
	o := &Output{&ui.Output{Style: &ui.Style{}, Stdout: io.Discard, Stderr: os.Stderr}, &target.Flags{Outputs: file}}
	for _, test := range []struct {
		flags PlanCmd
		want  plan.Setting
	}{
		{PlanCmd{Slower: 1}, plan.Setting{Worker: plan.Worker{MemoryMB: 3538, Architecture: "arm64", DiskMB: 512,
			Timeout: 5 * time.Minute, Slower: 1}, Concurrency: 25, Retention: 4 * 24 * time.Hour}},
		{PlanCmd{Slower: 2, Workers: 7, Memory: 1769, Architecture: "x86_64"},
			plan.Setting{Worker: plan.Worker{MemoryMB: 1769, Architecture: "x86_64", DiskMB: 512, Timeout: 5 * time.Minute,
				Slower: 2}, Concurrency: 7, Retention: 4 * 24 * time.Hour}},
	} {
		got, target, err := test.flags.setting(t.Context(), o)
		must(t, err)
		if got != test.want || target.BucketName != c.BucketName {
			t.Errorf("%+v, want %+v", got, test.want)
		}
	}
}
