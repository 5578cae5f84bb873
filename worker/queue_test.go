package worker

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A message goes to the DLQ with its cause whatever its size, and with as much of the
// rest as that takes.
func TestMoveToDLQ(t *testing.T) {
	server, err := sqsserver.Open(t.TempDir(), sqsserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server)
	t.Cleanup(func() { web.Close(); _ = server.Close() })
	server.SetURL(web.URL)
	client := sqs.New(sqs.Options{BaseEndpoint: &web.URL, Region: "us-east-2",
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""), RetryMaxAttempts: 1})
	const mib = 1 << 20
	for n, test := range []struct {
		name               string
		limit, body, extra int // bytes; extra is the sender's own attribute
		whole              bool
		has, lacks         []string
	}{
		{"small", mib, 1000, 100, true, []string{task.AttributeDetail, task.AttributeReport, "extra",
			task.AttributeMessageID}, nil},
		{"room for no detail", mib, mib - 300, 10, true, []string{task.AttributeMessageID, "extra"},
			[]string{task.AttributeReport}},
		{"room for nothing of the sender's", mib, mib - 300, 200, true, []string{task.AttributeMessageID}, []string{"extra"}},
		{"room for the cause alone", mib, mib - 60, 50, true, nil, []string{"extra", task.AttributeMessageID,
			task.AttributeDetail, task.AttributeReport}},
		{"as large as can be", mib, mib, 0, false, []string{task.AttributeMessageID, task.AttributeDetail},
			[]string{"extra"}},
		{"a queue that takes less", 2000, 1500, 100, true, []string{task.AttributeMessageID}, nil},
		{"a queue that takes 1 KiB", 1024, 400_000, 500, false, []string{task.AttributeMessageID, task.AttributeDetail},
			[]string{"extra"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			url, err := server.CreateQueue(sqsserver.Queue{Name: fmt.Sprint("dead", n), MaxSize: test.limit})
			if err != nil {
				t.Fatal(err)
			}
			d := delivery{firstID: "059f36b4-87a3-44ab-83d2-661975830a7d", receives: 3,
				attributes: map[string]events.SQSMessageAttribute{}}
			if test.extra > 0 {
				d.attributes["extra"] = events.SQSMessageAttribute{DataType: "String",
					StringValue: aws.String(strings.Repeat("x", test.extra))}
			}
			body := strings.Repeat("b", test.body)
			failed := &failure{Failure: store.Failure{Cause: task.Crashed, Detail: strings.Repeat("d", 900)},
				key: "failures/v1/maze/x.json"}
			w := work{Handler: &Handler{queue: client, config: Config{DLQURL: url}}, delivery: d, log: slog.New(slog.NewJSONHandler(t.Output(), nil))}
			if !w.moveToDLQ(t.Context(), body, failed) {
				t.Fatal("it did not")
			}
			out, err := client.ReceiveMessage(t.Context(),
				&sqs.ReceiveMessageInput{QueueUrl: &url, MessageAttributeNames: []string{"All"}})
			if err != nil || len(out.Messages) != 1 {
				t.Fatalf("%d messages, %v", len(out.Messages), err)
			}
			m := out.Messages[0]
			if got := *m.Body; got == body != test.whole || !strings.HasPrefix(body, got) || got == "" {
				t.Errorf("a body of %d bytes went there with %d", len(body), len(got))
			}
			if got := textOf(m, task.AttributeCause); got != string(task.Crashed) {
				t.Errorf("the cause is %q", got)
			}
			for _, name := range test.has {
				if textOf(m, name) == "" {
					t.Errorf("it lacks %s", name)
				}
			}
			for _, name := range test.lacks {
				if textOf(m, name) != "" {
					t.Errorf("it has %s", name)
				}
			}
			if !test.whole && !strings.HasPrefix(textOf(m, task.AttributeDetail), fmt.Sprintf("the message of %d bytes was cut",
				test.body)) {
				t.Errorf("the detail is %q", textOf(m, task.AttributeDetail))
			}
		})
	}
}

func textOf(m types.Message, name string) string {
	return aws.ToString(m.MessageAttributes[name].StringValue)
}
