package sqsserver

import (
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

func init() {
	checks = append(checks,
		check{"a receive waits as long as its queue says", func(t *testing.T, c *sqs.Client, queue, _ string) {
			set(t, c, queue, "ReceiveMessageWaitTimeSeconds", "1")
			expect(t, "wait", attribute(t, c, queue, "ReceiveMessageWaitTimeSeconds"), "1")
			began := time.Now()
			out := must(c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue}))
			expect(t, "messages", len(out.Messages), 0)
			if took := time.Since(began); took < 900*time.Millisecond {
				t.Errorf("a receive of an empty queue came back after %s", took)
			}
		}},
		check{"a queue's limit of message size holds", func(t *testing.T, c *sqs.Client, queue, _ string) {
			set(t, c, queue, "MaximumMessageSize", "1024")
			expect(t, "limit", attribute(t, c, queue, "MaximumMessageSize"), "1024")
			send(t, c, queue, strings.Repeat("x", 1024))
			_, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue,
				MessageBody: aws.String(strings.Repeat("x", 1025))})
			says(t, err, "shorter than 1024 bytes")
		}},
		check{"a limit of message size has limits", func(t *testing.T, c *sqs.Client, queue, _ string) {
			for _, size := range []string{"1023", "1048577"} {
				_, err := c.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &queue,
					Attributes: map[string]string{"MaximumMessageSize": size}})
				says(t, err, "MaximumMessageSize")
			}
			expect(t, "limit", attribute(t, c, queue, "MaximumMessageSize"), "1048576")
		}},
		check{"the trace header comes with the message", func(t *testing.T, c *sqs.Client, queue, _ string) {
			trace := "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"
			must(c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String("x"),
				MessageSystemAttributes: map[string]types.MessageSystemAttributeValue{
					"AWSTraceHeader": {DataType: aws.String("String"), StringValue: &trace}}}))
			expect(t, "trace", receive(t, c, queue, 30)[0].Attributes["AWSTraceHeader"], trace)
		}},
		check{"other system attributes are refused", func(t *testing.T, c *sqs.Client, queue, _ string) {
			_, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String("x"),
				MessageSystemAttributes: map[string]types.MessageSystemAttributeValue{
					"Other": {DataType: aws.String("String"), StringValue: aws.String("x")}}})
			says(t, err, "Other")
		}},
		check{"the group comes with the message", func(t *testing.T, c *sqs.Client, queue, _ string) {
			must(c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String("x"),
				MessageGroupId: aws.String("tenant-1")}))
			expect(t, "group", receive(t, c, queue, 30)[0].Attributes["MessageGroupId"], "tenant-1")
		}},
		check{"a busy group does not hold up the others", func(t *testing.T, c *sqs.Client, queue, _ string) {
			for i := range 20 {
				must(c.SendMessage(t.Context(),
					&sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String(fmt.Sprint("busy ", i)),
						MessageGroupId: aws.String("busy")}))
			}
			must(c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String("quiet"),
				MessageGroupId: aws.String("quiet")}))
			must(c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue, MaxNumberOfMessages: 1}))
			next := must(c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue, MaxNumberOfMessages: 1}))
			expect(t, "next", *next.Messages[0].Body, "quiet")
		}},
		check{"groups are served in turn", func(t *testing.T, c *sqs.Client, queue, _ string) {
			for _, group := range []string{"backlog", "backlog", "backlog", "backlog", "repair", "repair", "late"} {
				must(c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: &group,
					MessageGroupId: &group}))
			}
			var order []string
			for range 7 { // by one worker: no group ever has a message in flight
				m := must(c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue})).Messages[0]
				must(c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &queue, ReceiptHandle: m.ReceiptHandle}))
				order = append(order, *m.Body)
			}
			expect(t, "order", strings.Join(order, " "), "backlog repair late backlog repair backlog backlog")
		}},
		check{"tags are kept", func(t *testing.T, c *sqs.Client, queue, _ string) {
			name := queue[strings.LastIndex(queue, "/")+1:] + "-tagged"
			tagged := *must(c.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name,
				Tags: map[string]string{"team": "video", "cost": "7"}})).QueueUrl
			must(c.TagQueue(t.Context(),
				&sqs.TagQueueInput{QueueUrl: &tagged, Tags: map[string]string{"cost": "8", "more": ""}}))
			must(c.UntagQueue(t.Context(), &sqs.UntagQueueInput{QueueUrl: &tagged, TagKeys: []string{"team", "never"}}))
			tags := must(c.ListQueueTags(t.Context(), &sqs.ListQueueTagsInput{QueueUrl: &tagged})).Tags
			expect(t, "tags", fmt.Sprint(tags), "map[cost:8 more:]")
			expect(t, "of another queue",
				len(must(c.ListQueueTags(t.Context(), &sqs.ListQueueTagsInput{QueueUrl: &queue})).Tags), 0)
		}},
		check{"lists come in pages", func(t *testing.T, c *sqs.Client, queue, dlq string) {
			name := queue[strings.LastIndex(queue, "/")+1:]
			policy := attribute(t, c, queue, "RedrivePolicy")
			for i := range 3 {
				must(c.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(fmt.Sprint(name, "-", i)),
					Attributes: map[string]string{"RedrivePolicy": policy}}))
			}
			var sizes []int
			var all []string
			for pages := sqs.NewListQueuesPaginator(c, &sqs.ListQueuesInput{QueueNamePrefix: &name,
				MaxResults: aws.Int32(2)}); pages.HasMorePages(); {
				list := must(pages.NextPage(t.Context())).QueueUrls
				sizes, all = append(sizes, len(list)), append(all, list...)
			}
			slices.Sort(all)
			expect(t, "pages", fmt.Sprint(sizes), "[2 2 1]")
			expect(t, "queues", len(slices.Compact(all)), 5)
			sizes = nil
			for pages := sqs.NewListDeadLetterSourceQueuesPaginator(c, &sqs.ListDeadLetterSourceQueuesInput{QueueUrl: &dlq,
				MaxResults: aws.Int32(3)}); pages.HasMorePages(); {
				sizes = append(sizes, len(must(pages.NextPage(t.Context())).QueueUrls))
			}
			expect(t, "pages of sources", fmt.Sprint(sizes), "[3 1]")
		}},
		check{"a queue knows when it was made and changed", func(t *testing.T, c *sqs.Client, queue, _ string) {
			now := time.Now().Unix()
			for _, name := range []types.QueueAttributeName{"CreatedTimestamp", "LastModifiedTimestamp"} {
				seconds, _, _ := strings.Cut(attribute(t, c, queue, name), ".") // moto has a fraction
				at, err := strconv.ParseInt(seconds, 10, 64)
				if err != nil || at < now-60 || at > now+1 {
					t.Errorf("%s is %q at %d", name, attribute(t, c, queue, name), now)
				}
			}
		}},
		check{"what it does not do it refuses by name", func(t *testing.T, c *sqs.Client, queue, _ string) {
			for name, value := range map[string]string{"Policy": `{"Version":"2012-10-17"}`, "KmsMasterKeyId": "alias/aws/sqs",
				"KmsDataKeyReusePeriodSeconds": "300",
				"SqsManagedSseEnabled":         "true", "RedriveAllowPolicy": `{"redrivePermission":"denyAll"}`,
				"FifoQueue": "true", "ContentBasedDeduplication": "true",
				"DeduplicationScope": "queue", "FifoThroughputLimit": "perQueue"} {
				_, err := c.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &queue,
					Attributes: map[string]string{name: value}})
				says(t, err, name)
			}
			_, err := c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &queue,
				AttributeNames: []types.QueueAttributeName{"Nonsense"}})
			says(t, err, "Nonsense")
			_, err = c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String("x"),
				MessageDeduplicationId: aws.String("1")})
			says(t, err, "MessageDeduplicationId")
			_, err = c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &queue,
				Entries: []types.SendMessageBatchRequestEntry{{Id: aws.String("a"), MessageBody: aws.String("x"),
					MessageDeduplicationId: aws.String("1")}}})
			if err == nil {
				err = fmt.Errorf("%s", aws.ToString(must(c.SendMessageBatch(t.Context(),
					&sqs.SendMessageBatchInput{QueueUrl: &queue,
						Entries: []types.SendMessageBatchRequestEntry{{Id: aws.String("a"), MessageBody: aws.String("x"),
							MessageDeduplicationId: aws.String("1")}}})).Failed[0].Message))
			}
			says(t, err, "MessageDeduplicationId")
			_, err = c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue,
				ReceiveRequestAttemptId: aws.String("1")})
			says(t, err, "ReceiveRequestAttemptId")
			_, err = c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue,
				MessageSystemAttributeNames: []types.MessageSystemAttributeName{"Nonsense"}})
			says(t, err, "Nonsense")
			_, err = c.AddPermission(t.Context(), &sqs.AddPermissionInput{QueueUrl: &queue, Label: aws.String("a"),
				AWSAccountIds: []string{"1"}, Actions: []string{"*"}})
			says(t, err, "AddPermission")
			_, err = c.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("x.fifo"),
				Attributes: map[string]string{"FifoQueue": "true"}})
			says(t, err, "FIFO")
		}},
	)
	for name, why := range map[string]string{
		"what it does not do it refuses by name":    "moto does some of it, and says nothing of the rest",
		"a busy group does not hold up the others":  "moto has no fair queues",
		"groups are served in turn":                 "moto has no fair queues",
		"the group comes with the message":          "moto has no groups on standard queues",
		"lists come in pages":                       "moto gives no pages of sources",
		"tags are kept":                             "moto takes no empty tag",
		"a limit of message size has limits":        "moto checks no attribute's range",
		"other system attributes are refused":       "moto words it in its own way",
		"a receive waits as long as its queue says": "moto waits in whole polls of its own",
	} {
		notMoto[name] = why
	}
}

func set(t *testing.T, c *sqs.Client, queue, name, value string) {
	t.Helper()
	must(c.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &queue,
		Attributes: map[string]string{name: value}}))
}

func attribute(t *testing.T, c *sqs.Client, queue string, name types.QueueAttributeName) string {
	t.Helper()
	return must(c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &queue,
		AttributeNames: []types.QueueAttributeName{name}})).Attributes[string(name)]
}

// says checks that a request was refused with a text that has a word in it.
func says(t *testing.T, err error, word string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), word) {
		t.Errorf("got %v, want an error that names %s", err, word)
	}
}

// A client that relies on the queue's wait asks as often as it must, and no
// more: it is not told "nothing" at once, again and again.
func TestReceivesOfAClientThatRelies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := opened(t, Options{})
		url := must(do(s, "CreateQueue",
			&request{QueueName: "q", Attributes: map[string]string{"ReceiveMessageWaitTimeSeconds": "2"}})).(map[string]string)["QueueUrl"]
		began, receives := time.Now(), 0
		for ; time.Since(began) < 3*time.Second && receives < 10_000; receives++ {
			must(do(s, "ReceiveMessage", &request{QueueUrl: url}))
		}
		expect(t, "receives in 3 s", receives, 2)
	})
}

func opened(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Clients of the older protocol read XML: they must be able to read the refusal.
func TestQueryProtocolIsRefusedInItsOwnWords(t *testing.T) {
	s := opened(t, Options{})
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", strings.NewReader("Action=ListQueues&Version=2012-11-05"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	var answer struct {
		Code    string `xml:"Error>Code"`
		Message string `xml:"Error>Message"`
	}
	if err := xml.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	expect(t, "status", w.Code, http.StatusBadRequest)
	if !strings.Contains(answer.Message, "update the client") {
		t.Errorf("code %s, message %s", answer.Code, answer.Message)
	}
}

// Counts can be behind, as those of SQS are.
func TestCountsLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := opened(t, Options{Lag: time.Minute})
		must(s.CreateQueue(Queue{Name: "q"}))
		seen := func() string {
			a := must(do(s, "GetQueueAttributes", &request{QueueUrl: "/q", AttributeNames: []string{"All"}})).(map[string]any)["Attributes"].(map[string]string)
			return a["ApproximateNumberOfMessages"] + " " + a["ApproximateNumberOfMessagesNotVisible"]
		}
		expect(t, "empty", seen(), "0 0")
		body := "x"
		must(do(s, "SendMessage", &request{QueueUrl: "/q", entry: entry{MessageBody: &body}}))
		expect(t, "just sent", seen(), "0 0")
		time.Sleep(59 * time.Second)
		expect(t, "59 s later", seen(), "0 0")
		time.Sleep(2 * time.Second)
		expect(t, "61 s later", seen(), "1 0")
		d := must(s.Receive(context.Background(), "q"))
		if err := s.Delete("q", d.ReceiptHandle); err != nil {
			t.Fatal(err)
		}
		expect(t, "just deleted", seen(), "1 0")
		time.Sleep(61 * time.Second)
		expect(t, "61 s after the delete", seen(), "0 0")
		exact, _, _ := s.Counts("q")
		expect(t, "the process's own count", exact, 0)
	})
}
