package worker

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// cleanUpTimeout bounds what is sent to the queue and the bucket after the work.
const cleanUpTimeout = 10 * time.Second

// delivery is one receipt of one message, or one direct invocation.
type delivery struct {
	requestID  string
	messageID  string // empty for a direct invocation
	firstID    string // of the message that started it
	handle     string
	body       string
	receives   int // of this message, counted from 1
	earlier    int // deliveries of the messages it comes from
	attributes map[string]events.SQSMessageAttribute
	began      time.Time
	deadline   time.Time
}

func newDelivery(ctx context.Context, m events.SQSMessage) delivery {
	d := delivery{began: time.Now(), messageID: m.MessageId, firstID: m.MessageId, handle: m.ReceiptHandle, body: m.Body,
		receives: 1, attributes: m.MessageAttributes}
	if n, err := strconv.Atoi(m.Attributes["ApproximateReceiveCount"]); err == nil {
		d.receives = n
	}
	if a := m.MessageAttributes[task.AttributeMessageID]; a.StringValue != nil {
		d.firstID = *a.StringValue
	}
	if a := m.MessageAttributes[task.AttributeReceives]; a.StringValue != nil {
		d.earlier, _ = strconv.Atoi(*a.StringValue)
	}
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		d.requestID = lc.AwsRequestID
	}
	var ok bool
	if d.deadline, ok = ctx.Deadline(); !ok {
		d.deadline = d.began.Add(15 * time.Minute) // Lambda's longest; only a program's own call has no deadline
	}
	return d
}

// Reserve is what is kept of an invocation's time to kill generators, to commit
// what is finished and to answer: a tenth of it, at least 2 s and at most 30 s.
func Reserve(total time.Duration) time.Duration {
	return min(max(total/10, 2*time.Second), 30*time.Second)
}

// cleanUp is the context of what must be done although the time of the work is
// up. It takes no more than half of what is left of the invocation, so that what
// comes after it has time as well.
func (d delivery) cleanUp(ctx context.Context) (context.Context, context.CancelFunc) {
	left := min(cleanUpTimeout, max(time.Until(d.deadline)/2, time.Second))
	return context.WithTimeout(context.WithoutCancel(ctx), left)
}

// attrs are the keys that every log line has.
func (d delivery) attrs(t task.Task) []any {
	return []any{"request_id", d.requestID, "message_id", d.messageID, "first_message_id", d.firstID, "receives",
		d.receives, "dataset", t.Dataset.String(), "run_id", t.RunID, "generator", t.Generator, "start", t.Range().Start,
		"end", t.Range().End}
}

// maxAttributes is SQS's limit of message attributes per message.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html
const maxAttributes = 10

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
		v := types.MessageAttributeValue{DataType: aws.String(a.DataType), StringValue: a.StringValue}
		if strings.HasPrefix(a.DataType, "Binary") {
			v.BinaryValue, v.StringValue = a.BinaryValue, nil
		}
		attributes[name] = v
	}
	return attributes
}
