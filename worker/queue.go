package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// putOff hides the message for the delay, or as long as the queue has it hidden. It reports that it is not done with.
func (w *work) putOff(ctx context.Context, delay time.Duration) (done bool) {
	w.log.Info("task put off", "seconds", delay.Seconds())
	if _, err := w.queue.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &w.config.QueueURL,
		ReceiptHandle: &w.delivery.handle, VisibilityTimeout: seconds(delay)}); err != nil {
		w.log.Error("change visibility", "error", err)
	}
	return false
}

func seconds(d time.Duration) int32 { return int32(d.Round(time.Second).Seconds()) }

// sendOn sends a part of the task as a new message, hidden for the delay. If it cannot, the old message is put off.
func (w *work) sendOn(ctx context.Context, part task.Task, delay time.Duration) bool {
	if _, err := w.queue.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &w.config.QueueURL,
		MessageBody: aws.String(part.Body()), MessageAttributes: w.delivery.forwarded(),
		MessageGroupId: task.Group(part.RunID), DelaySeconds: seconds(delay)}); err != nil {
		w.log.Error("send the rest on", "error", err)
		return w.putOff(ctx, w.retryDelay(task.Storage))
	}
	return true
}

// isLast reports whether the queue would move the message to the DLQ, without a cause, instead of delivering it again.
func (w *work) isLast(ctx context.Context) bool {
	out, err := w.queue.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &w.config.QueueURL,
		AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameRedrivePolicy}})
	var policy struct {
		MaxReceiveCount json.Number `json:"maxReceiveCount"` // in quotes or not
	}
	if err != nil || json.Unmarshal([]byte(out.Attributes["RedrivePolicy"]), &policy) != nil {
		return false // without a policy no delivery is the last
	}
	limit, _ := policy.MaxReceiveCount.Int64()
	return limit > 0 && int64(w.delivery.receives) >= limit
}

// Limits of the size of a message with its attributes: SQS's own, and the least MaximumMessageSize of a queue.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
const (
	maxMessage   = 1 << 20
	leastMessage = 1 << 10
)

var tooLong = regexp.MustCompile(`shorter than (\d+) bytes`)

// moveToDLQ sends a task to the DLQ, with its cause and what fits of the rest, and reports whether it could. The worker
// may not ask for the DLQ's limit: a refusal names it.
func (w *work) moveToDLQ(ctx context.Context, body string, f *failure) bool {
	for limit := maxMessage; ; {
		fitting, attributes := fit(limit, w.delivery, body, f)
		_, err := w.queue.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &w.config.DLQURL, MessageBody: &fitting,
			MessageAttributes: attributes})
		if err == nil {
			return true
		}
		named := tooLong.FindStringSubmatch(err.Error())
		if named == nil || limit == leastMessage {
			w.log.Error("send to the DLQ", "error", err)
			return false
		}
		n, _ := strconv.Atoi(named[1])
		limit = max(min(n, limit/2), leastMessage)
	}
}

// fit makes a message of at most limit bytes: the cause, the body, cut if it must be, then what is most needed first.
func fit(limit int, d delivery, body string, f *failure) (string, map[string]types.MessageAttributeValue) {
	attributes := map[string]types.MessageAttributeValue{}
	room := limit
	add := func(name string, v types.MessageAttributeValue) {
		size := len(name) + len(aws.ToString(v.DataType)) + len(aws.ToString(v.StringValue)) + len(v.BinaryValue)
		if _, there := attributes[name]; !there && size <= room {
			attributes[name] = v
			room -= size
		}
	}
	add(task.AttributeCause, text(string(f.Cause)))
	detail := f.Detail
	if len(body) > room {
		detail = fmt.Sprintf("the message of %d bytes was cut, because the DLQ takes %d; %s", len(body), limit, detail)
		body = cutAt(body, limit-leastMessage/2)
	}
	room -= len(body)
	forwarded := d.forwarded()
	origin := []string{task.AttributeMessageID, task.AttributeReceives}
	for _, name := range append(origin, slices.Sorted(maps.Keys(forwarded))...) {
		add(name, forwarded[name])
	}
	value := text(detail)
	if left := room - len(task.AttributeDetail) - len("String"); left >= 40 { // fewer bytes are of no use
		value.StringValue = aws.String(cutAt(*value.StringValue, left))
	}
	add(task.AttributeDetail, value)
	if f.key != "" {
		add(task.AttributeReport, text(f.key))
	}
	return body, attributes
}

// cutAt is the beginning of a text, of at most n bytes and whole characters.
func cutAt(s string, n int) string { return strings.ToValidUTF8(s[:min(n, len(s))], "") }

// text makes a string attribute: SQS refuses an empty one and most control characters, and all count in its size.
func text(s string) types.MessageAttributeValue {
	s = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == utf8.RuneError || r == 0xFFFE || r == 0xFFFF {
			return ' '
		}
		return r
	}, s)
	if cut := cutAt(s, 1000); cut != s {
		s = cut + "..."
	}
	return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(cmp.Or(s, "none"))}
}

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
	d.deadline = d.began.Add(15 * time.Minute) // Lambda's longest; only a program's own call has no deadline
	if end, ok := ctx.Deadline(); ok {
		d.deadline = end
	}
	return d
}

// Reserve is the end of an invocation's time in which generators are killed and work is committed: 10 %, 2 to 30 s.
func Reserve(total time.Duration) time.Duration {
	return min(max(total/10, 2*time.Second), 30*time.Second)
}

// cleanUp is a context for what must be done though time is up: 10 s, at most half of what is left of the invocation.
func (d delivery) cleanUp(ctx context.Context) (context.Context, context.CancelFunc) {
	left := min(10*time.Second, max(time.Until(d.deadline)/2, time.Second))
	return context.WithTimeout(context.WithoutCancel(ctx), left)
}

func (d delivery) attrs(t task.Task) []any {
	return []any{"request_id", d.requestID, "message_id", d.messageID, "first_message_id", d.firstID, "receives",
		d.receives, "dataset", t.Dataset.String(), "run_id", t.RunID, "generator", t.Generator, "start", t.Range().Start,
		"end", t.Range().End}
}

// maxAttributes is SQS's limit of message attributes per message.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html
const maxAttributes = 10

// forwarded are the attributes of a message that takes this one's place: the sender's own, and where it comes from.
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
		attributes[name] = types.MessageAttributeValue{DataType: aws.String(a.DataType), StringValue: a.StringValue,
			BinaryValue: a.BinaryValue}
	}
	return attributes
}
