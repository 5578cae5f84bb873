package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// messageTimeout bounds what is said to the queue and the bucket after the work.
const messageTimeout = 10 * time.Second

// maxAttributes is SQS's limit of message attributes per message.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html
const maxAttributes = 10

// messages is what the worker says to the queue: put a message off, send the
// rest of a task on, bury a task in the DLQ.
type messages struct {
	client        *sqs.Client
	queue, dlq    string // URLs
	readMaxOnce   sync.Mutex
	maxReceives   int
	maxIsReadable bool
}

func newMessages(client *sqs.Client, queue, dlq string) *messages {
	return &messages{client: client, queue: queue, dlq: dlq}
}

// putOff hides the message for the delay from now on.
func (m *messages) putOff(ctx context.Context, d delivery, delay time.Duration) error {
	if m.queue == "" {
		return fmt.Errorf("%s is not set", stack.EnvQueueURL)
	}
	_, err := m.client.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{
		QueueUrl: &m.queue, ReceiptHandle: &d.handle, VisibilityTimeout: int32(delay.Round(time.Second).Seconds()),
	})
	return err
}

// sendOn puts the rest of a task on the queue as a new message, which is hidden for
// the delay, a quarter of an hour at most.
func (m *messages) sendOn(ctx context.Context, d delivery, rest task.Task, delay time.Duration) error {
	if m.queue == "" {
		return fmt.Errorf("%s is not set", stack.EnvQueueURL)
	}
	_, err := m.client.SendMessage(ctx, &sqs.SendMessageInput{
		QueueUrl: &m.queue, MessageBody: aws.String(rest.Body()), MessageAttributes: d.forwarded(),
		DelaySeconds: int32(delay.Round(time.Second).Seconds()),
	})
	return err
}

// isLast reports whether the queue would move the message to the DLQ instead of
// delivering it once more. The worker then does it itself, because the queue
// could not say why.
func (m *messages) isLast(ctx context.Context, d delivery) bool {
	m.readMaxOnce.Lock()
	defer m.readMaxOnce.Unlock()
	if !m.maxIsReadable {
		limit, err := m.readMax(ctx)
		if err != nil {
			return false // asked again next time
		}
		m.maxReceives, m.maxIsReadable = limit, true
	}
	return m.maxReceives > 0 && d.receives >= m.maxReceives
}

func (m *messages) readMax(ctx context.Context) (int, error) {
	if m.queue == "" {
		return 0, errors.New("no queue")
	}
	out, err := m.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: &m.queue, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameRedrivePolicy},
	})
	if err != nil {
		return 0, err
	}
	var policy struct {
		MaxReceiveCount json.RawMessage `json:"maxReceiveCount"` // a number, or a number in quotes
	}
	if err := json.Unmarshal([]byte(out.Attributes["RedrivePolicy"]), &policy); err != nil {
		return 0, nil // no redrive policy: nothing is ever the last time
	}
	n, _ := strconv.Atoi(strings.Trim(string(policy.MaxReceiveCount), `"`))
	return n, nil
}

// forwarded are the attributes of a message that takes this one's place: the
// sender's own, and where it comes from.
func (d delivery) forwarded() map[string]types.MessageAttributeValue {
	attributes := map[string]types.MessageAttributeValue{
		task.AttributeMessageID: text(d.firstID),
		task.AttributeReceives: {DataType: aws.String("Number"),
			StringValue: aws.String(strconv.Itoa(d.earlier + d.receives))},
	}
	for name, a := range d.attributes {
		switch name {
		case task.AttributeMessageID, task.AttributeReceives, task.AttributeCause, task.AttributeDetail, task.AttributeReport:
			continue
		}
		if len(attributes) == maxAttributes-3 { // room for cause, detail and report
			break
		}
		attributes[name] = forward(a)
	}
	return attributes
}

func forward(a events.SQSMessageAttribute) types.MessageAttributeValue {
	v := types.MessageAttributeValue{DataType: aws.String(a.DataType), StringValue: a.StringValue}
	if strings.HasPrefix(a.DataType, "Binary") {
		v.BinaryValue, v.StringValue = a.BinaryValue, nil
	}
	return v
}

// text makes a string attribute: SQS refuses an empty one and most control
// characters, and its size counts against the message's.
func text(s string) types.MessageAttributeValue {
	s = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == utf8.RuneError || r == 0xFFFE || r == 0xFFFF {
			return ' '
		}
		return r
	}, s)
	if len(s) > 1000 {
		cut := 1000
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "..."
	}
	if s == "" {
		s = "none"
	}
	return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &s}
}
