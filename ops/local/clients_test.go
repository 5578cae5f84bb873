package local

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// foreign runs a program that nobody here wrote on the stack's endpoints.
func (r *rig) foreign(argv ...string) string {
	r.t.Helper()
	o := r.Outputs()
	cmd := exec.CommandContext(r.t.Context(), argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.t.TempDir(), "AWS_REGION=" + o.Region,
		"AWS_DEFAULT_REGION=" + o.Region,
		"AWS_ENDPOINT_URL_SQS=" + o.SQSEndpoint, "AWS_ENDPOINT_URL_S3=" + o.S3Endpoint, "AWS_ENDPOINT_URL_LAMBDA=" +
			o.LambdaEndpoint, "AWS_ACCESS_KEY_ID=" + o.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + o.SecretAccessKey,
		"QUEUE_URL=" + o.QueueURL, "BUCKET=" + o.BucketName}
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return string(out)
}

// predecessor is a task in the Python predecessor's format.
const predecessor = `{"type": "good", "start_index": 0, "num_samples": 20, "seed": 42, "output_format": "files", "output_bucket": null, "dedup": false}`

func TestAWSCLI(t *testing.T) {
	cli := os.Getenv("AWS_CLI")
	if cli == "" {
		t.Skip("AWS_CLI is not set: no AWS CLI to try")
	}
	r := up(t, folder(t), Config{})
	o := r.Outputs()
	if out := r.foreign(cli, "sqs", "list-queues", "--output", "text"); !strings.Contains(out, o.QueueURL) ||
		!strings.Contains(out, o.DLQURL) {
		t.Errorf("list-queues: %s", out)
	}
	if out := r.foreign(cli, "s3", "ls"); !strings.Contains(out, o.BucketName) {
		t.Errorf("s3 ls: %s", out)
	}
	if out := r.foreign(cli, "sqs", "send-message", "--queue-url", o.QueueURL, "--message-body",
		predecessor); !strings.Contains(out, "MessageId") {
		t.Errorf("send-message: %s", out)
	}
	eventually(t, "it is committed", func() bool { return len(r.receipts("good")) == 1 })
	if out := r.foreign(cli, "s3", "ls", "s3://"+o.BucketName+"/data/v1/good/"); strings.Count(out,
		"PRE good_000000") != 20 {
		t.Errorf("s3 ls: %s", out)
	}
	if out := r.foreign(cli, "lambda", "update-event-source-mapping", "--uuid", o.EventSourceMappingID,
		"--no-enabled"); !strings.Contains(out, `"State": "Disabl`) {
		t.Errorf("update-event-source-mapping: %s", out)
	}
	eventually(t, "the workers are paused", func() bool {
		return strings.Contains(r.foreign(cli, "lambda", "get-event-source-mapping", "--uuid", o.EventSourceMappingID,
			"--query", "State"), `"Disabled"`)
	})
	if out := r.foreign(cli, "lambda", "get-function", "--function-name", o.FunctionName); !strings.Contains(out,
		`"State": "Active"`) {
		t.Errorf("get-function: %s", out)
	}
	to := t.TempDir()
	r.foreign(cli, "s3", "sync", "s3://"+o.BucketName+"/data/v1/", to)
	if found, _ := filepath.Glob(filepath.Join(to, "good", "*", "ground_truth.mp4")); len(found) != 20 {
		t.Errorf("s3 sync brought %d videos", len(found))
	}
}

func TestBoto3(t *testing.T) {
	python := os.Getenv("BOTO3_PYTHON")
	if python == "" {
		t.Skip("BOTO3_PYTHON is not set: no boto3 to try")
	}
	r := up(t, folder(t), Config{})
	out := r.foreign(python, "-c", `
import boto3, os, time
sqs, s3 = boto3.client("sqs"), boto3.client("s3")
print(*sqs.list_queues()["QueueUrls"])
print(*[b["Name"] for b in s3.list_buckets()["Buckets"]])
sqs.send_message(QueueUrl=os.environ["QUEUE_URL"], MessageBody='''`+predecessor+`''')
prefix = "data/v1/good/good_00000019/"
# The cell is there from when it is taken; its size tells when it is complete.
while not (found := [o for o in s3.list_objects_v2(Bucket=os.environ["BUCKET"], Prefix="receipts/").get("Contents", []) if o["Size"] % 3 == 2]):
    time.sleep(0.05)
print(found[0]["Key"])
print(s3.get_object(Bucket=os.environ["BUCKET"], Key=prefix + "prompt.txt")["Body"].read().decode())
`)
	for _, word := range []string{r.Outputs().QueueURL, Bucket, "receipts/v1/good/00000000_00000019.json", "sample "} {
		if !strings.Contains(out, word) {
			t.Errorf("no %s in:\n%s", word, out)
		}
	}
}
