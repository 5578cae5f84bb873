package sqsserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// check is one behaviour of SQS, on fresh queues.
type check struct {
	name string
	do   func(t *testing.T, c *sqs.Client, queue, dlq string)
}

// notMoto are the checks that moto does not pass, and why.
var notMoto = map[string]string{
	"move task takes dead messages back":   "moto has no message move tasks",
	"an old handle deletes nothing":        "moto deletes by any handle",
	"limits are refused by name":           "moto takes control characters",
	"visibility is changed only in flight": "moto changes the visibility of any message",
	"attributes are set and read":          "moto takes unknown attributes",
}

func client(url string) *sqs.Client {
	return sqs.New(sqs.Options{BaseEndpoint: &url, Region: "us-east-2",
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""), RetryMaxAttempts: 1,
		HTTPClient: store.HTTPClient(nil)})
}

func TestBehaviour(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		server.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	s.SetURL(server.URL)
	suite(t, client(server.URL), nil)
}

// The same checks pass against a server that nobody here wrote.
func TestBehaviourOfMoto(t *testing.T) {
	endpoint := os.Getenv("MOTO_ENDPOINT")
	if endpoint == "" {
		t.Skip("MOTO_ENDPOINT is not set: no moto server to compare with")
	}
	suite(t, client(endpoint), notMoto)
}

func suite(t *testing.T, c *sqs.Client, without map[string]string) {
	for n, check := range checks {
		if reason := without[check.name]; reason != "" {
			t.Logf("%s: not compared: %s", check.name, reason)
			continue
		}
		t.Run(check.name, func(t *testing.T) {
			name := fmt.Sprintf("q%d-%d", n, time.Now().UnixNano())
			dlq := must(c.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(name + "-dlq")}))
			arn := must(c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: dlq.QueueUrl,
				AttributeNames: []types.QueueAttributeName{"QueueArn"}})).Attributes["QueueArn"]
			queue := must(c.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: map[string]string{
				"VisibilityTimeout": "30", "RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"2"}`, arn),
			}}))
			check.do(t, c, *queue.QueueUrl, *dlq.QueueUrl)
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func send(t *testing.T, c *sqs.Client, queue, body string) string {
	t.Helper()
	return *must(c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: &body})).MessageId
}

func receive(t *testing.T, c *sqs.Client, queue string, seconds int32) []types.Message {
	t.Helper()
	return must(c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue, MaxNumberOfMessages: 10,
		VisibilityTimeout:           seconds,
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"},
		MessageAttributeNames:       []string{"All"}})).Messages
}

func counts(t *testing.T, c *sqs.Client, queue string) string {
	t.Helper()
	a := must(c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &queue,
		AttributeNames: []types.QueueAttributeName{"All"}})).Attributes
	return a["ApproximateNumberOfMessages"] + " " + a["ApproximateNumberOfMessagesNotVisible"] + " " +
		a["ApproximateNumberOfMessagesDelayed"]
}

func expect(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// refused checks that an error is of a type, and returns its text.
func refused[E error](t *testing.T, err error) {
	t.Helper()
	var e E
	if !errors.As(err, &e) {
		t.Errorf("got %v, want %T", err, e)
	}
}

var checks = []check{
	{"a message is sent, received and deleted", func(t *testing.T, c *sqs.Client, queue, _ string) {
		binary := []byte{0, 1, 255}
		out := must(c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String("hé\n<&>"),
			MessageAttributes: map[string]types.MessageAttributeValue{
				"text": {DataType: aws.String("String"), StringValue: aws.String("v")}, "number": {DataType: aws.String("Number"),
					StringValue: aws.String("3")},
				"bytes": {DataType: aws.String("Binary"), BinaryValue: binary},
			}}))
		list := receive(t, c, queue, 30)
		expect(t, "messages", len(list), 1)
		m := list[0]
		expect(t, "body", *m.Body, "hé\n<&>")
		expect(t, "id", *m.MessageId, *out.MessageId)
		expect(t, "receives", m.Attributes["ApproximateReceiveCount"], "1")
		expect(t, "text", *m.MessageAttributes["text"].StringValue, "v")
		expect(t, "bytes", string(m.MessageAttributes["bytes"].BinaryValue), string(binary))
		expect(t, "hidden", counts(t, c, queue), "0 1 0")
		must(c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &queue, ReceiptHandle: m.ReceiptHandle}))
		expect(t, "gone", counts(t, c, queue), "0 0 0")
	}},
	{"a batch of ten", func(t *testing.T, c *sqs.Client, queue, _ string) {
		in := &sqs.SendMessageBatchInput{QueueUrl: &queue}
		for i := range 10 {
			in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)),
				MessageBody: aws.String(fmt.Sprintf("m%d", i))})
		}
		expect(t, "sent", len(must(c.SendMessageBatch(t.Context(), in)).Successful), 10)
		bodies := map[string]bool{}
		remove := &sqs.DeleteMessageBatchInput{QueueUrl: &queue}
		for i, m := range receive(t, c, queue, 30) {
			bodies[*m.Body] = true
			remove.Entries = append(remove.Entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)),
				ReceiptHandle: m.ReceiptHandle})
		}
		expect(t, "bodies", len(bodies), 10)
		expect(t, "deleted", len(must(c.DeleteMessageBatch(t.Context(), remove)).Successful), 10)
		expect(t, "left", counts(t, c, queue), "0 0 0")
	}},
	{"a bad batch is refused", func(t *testing.T, c *sqs.Client, queue, _ string) {
		entry := types.SendMessageBatchRequestEntry{Id: aws.String("a"), MessageBody: aws.String("x")}
		_, err := c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &queue,
			Entries: []types.SendMessageBatchRequestEntry{entry, entry}})
		refused[*types.BatchEntryIdsNotDistinct](t, err)
		_, err = c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &queue,
			Entries: []types.SendMessageBatchRequestEntry{}})
		refused[*types.EmptyBatchRequest](t, err)
		var many []types.SendMessageBatchRequestEntry
		for i := range 11 {
			many = append(many, types.SendMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), MessageBody: aws.String("x")})
		}
		_, err = c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &queue, Entries: many})
		refused[*types.TooManyEntriesInBatchRequest](t, err)
	}},
	{"limits are refused by name", func(t *testing.T, c *sqs.Client, queue, _ string) {
		large := strings.Repeat("x", 600_000)
		_, err := c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &queue,
			Entries: []types.SendMessageBatchRequestEntry{
				{Id: aws.String("a"), MessageBody: &large}, {Id: aws.String("b"), MessageBody: &large},
			}})
		refused[*types.BatchRequestTooLong](t, err)
		_, err = c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String("a\x01b")})
		refused[*types.InvalidMessageContents](t, err)
		if _, err = c.SendMessage(t.Context(),
			&sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String(large + large)}); err == nil {
			t.Error("a message of 1.2 MB was taken")
		}
		if _, err = c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String("x"),
			DelaySeconds: 901}); err == nil {
			t.Error("a delay of 901 s was taken")
		}
	}},
	{"no such queue", func(t *testing.T, c *sqs.Client, queue, _ string) {
		_, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: aws.String(queue + "-not"),
			MessageBody: aws.String("x")})
		refused[*types.QueueDoesNotExist](t, err)
		_, err = c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("nobody")})
		refused[*types.QueueDoesNotExist](t, err)
	}},
	{"queues are listed by prefix", func(t *testing.T, c *sqs.Client, queue, dlq string) {
		name := queue[strings.LastIndex(queue, "/")+1:]
		list := must(c.ListQueues(t.Context(), &sqs.ListQueuesInput{QueueNamePrefix: &name})).QueueUrls
		expect(t, "queues", len(list), 2)
		expect(t, "url", *must(c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: &name})).QueueUrl, queue)
		expect(t, "sources", len(must(c.ListDeadLetterSourceQueues(t.Context(),
			&sqs.ListDeadLetterSourceQueuesInput{QueueUrl: &dlq})).QueueUrls), 1)
	}},
	{"a delayed message comes later", func(t *testing.T, c *sqs.Client, queue, _ string) {
		must(c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String("x"),
			DelaySeconds: 1}))
		expect(t, "at once", len(receive(t, c, queue, 30)), 0)
		expect(t, "counts", counts(t, c, queue), "0 0 1")
		out := must(c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue, WaitTimeSeconds: 5}))
		expect(t, "with long polling", len(out.Messages), 1)
	}},
	{"long polling ends with a message", func(t *testing.T, c *sqs.Client, queue, _ string) {
		got := make(chan int, 1)
		go func() {
			out, err := c.ReceiveMessage(context.WithoutCancel(t.Context()), &sqs.ReceiveMessageInput{QueueUrl: &queue,
				WaitTimeSeconds: 20})
			if err != nil {
				t.Error(err)
			}
			got <- len(out.Messages)
		}()
		send(t, c, queue, "x")
		select {
		case n := <-got:
			expect(t, "messages", n, 1)
		case <-time.After(10 * time.Second):
			t.Error("long polling went on for 10 s with a message there")
		}
	}},
	{"a message comes back after its visibility", func(t *testing.T, c *sqs.Client, queue, _ string) {
		send(t, c, queue, "x")
		first := receive(t, c, queue, 1)
		expect(t, "hidden", len(receive(t, c, queue, 1)), 0)
		out := must(c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue, WaitTimeSeconds: 5,
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}}))
		expect(t, "again", len(out.Messages), 1)
		expect(t, "receives", out.Messages[0].Attributes["ApproximateReceiveCount"], "2")
		if *first[0].ReceiptHandle == *out.Messages[0].ReceiptHandle {
			t.Error("two receives have the same handle")
		}
	}},
	{"peeking leaves the message visible", func(t *testing.T, c *sqs.Client, queue, _ string) {
		for i := range 3 {
			send(t, c, queue, fmt.Sprint(i))
		}
		zero := must(c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue, MaxNumberOfMessages: 10,
			VisibilityTimeout: 1}))
		for i, m := range zero.Messages {
			must(c.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &queue,
				ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: 0}))
			expect(t, fmt.Sprintf("counts after %d", i), strings.Fields(counts(t, c, queue))[0], fmt.Sprint(i+1))
		}
	}},
	{"visibility is changed only in flight", func(t *testing.T, c *sqs.Client, queue, _ string) {
		send(t, c, queue, "x")
		m := receive(t, c, queue, 30)[0]
		change := func(seconds int32) error {
			_, err := c.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &queue,
				ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: seconds})
			return err
		}
		if err := change(0); err != nil {
			t.Error(err)
		}
		expect(t, "visible", counts(t, c, queue), "1 0 0")
		if err := change(10); err == nil {
			t.Error("the visibility of a message that is not in flight was changed")
		}
		_, err := c.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &queue,
			ReceiptHandle: aws.String("nonsense"), VisibilityTimeout: 1})
		refused[*types.ReceiptHandleIsInvalid](t, err)
	}},
	{"an old handle deletes nothing", func(t *testing.T, c *sqs.Client, queue, _ string) {
		send(t, c, queue, "x")
		old := receive(t, c, queue, 30)[0]
		must(c.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &queue,
			ReceiptHandle: old.ReceiptHandle, VisibilityTimeout: 0}))
		fresh := receive(t, c, queue, 30)[0]
		must(c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &queue, ReceiptHandle: old.ReceiptHandle}))
		expect(t, "in flight", counts(t, c, queue), "0 1 0")
		must(c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &queue, ReceiptHandle: fresh.ReceiptHandle}))
		expect(t, "gone", counts(t, c, queue), "0 0 0")
	}},
	{"a message counts while it is hidden", func(t *testing.T, c *sqs.Client, queue, dlq string) {
		id := send(t, c, queue, "x")
		for range 2 { // as often as the redrive policy allows
			m := receive(t, c, queue, 30)
			expect(t, "received", len(m), 1)
			must(c.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &queue,
				ReceiptHandle: m[0].ReceiptHandle, VisibilityTimeout: 0}))
		}
		expect(t, "a third time", len(receive(t, c, queue, 30)), 0)
		dead := receive(t, c, dlq, 30)
		expect(t, "dead", len(dead), 1)
		expect(t, "id", *dead[0].MessageId, id)
	}},
	{"purge empties the queue, once a minute", func(t *testing.T, c *sqs.Client, queue, _ string) {
		send(t, c, queue, "x")
		send(t, c, queue, "y")
		receive(t, c, queue, 30)
		must(c.PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: &queue}))
		expect(t, "left", counts(t, c, queue), "0 0 0")
		_, err := c.PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: &queue})
		refused[*types.PurgeQueueInProgress](t, err)
	}},
	{"attributes are set and read", func(t *testing.T, c *sqs.Client, queue, _ string) {
		must(c.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &queue,
			Attributes: map[string]string{"VisibilityTimeout": "77"}}))
		a := must(c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &queue,
			AttributeNames: []types.QueueAttributeName{"VisibilityTimeout", "RedrivePolicy"}})).Attributes
		expect(t, "visibility", a["VisibilityTimeout"], "77")
		if !strings.Contains(a["RedrivePolicy"], "maxReceiveCount") {
			t.Errorf("redrive policy %s", a["RedrivePolicy"])
		}
		_, err := c.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &queue,
			Attributes: map[string]string{"Nonsense": "1"}})
		refused[*types.InvalidAttributeName](t, err)
	}},
}

// A browser on the machine must not reach the queue for a web page.
func TestStrangersAreRefused(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, test := range []struct{ header, value string }{{"Origin", "http://example.org"}, {"Host", "example.org"}} {
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", strings.NewReader(`{}`))
		r.Header.Set("X-Amz-Target", "AmazonSQS.ListQueues")
		r.Header.Set(test.header, test.value)
		if test.header == "Host" {
			r.Host = test.value
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		expect(t, test.header, w.Code, http.StatusForbidden)
	}
}
