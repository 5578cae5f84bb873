package worker

import (
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

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// putOff hides the message for the delay from now on, and reports that it is not done
// with. If it cannot be hidden, the queue's own visibility timeout does it.
func (w *work) putOff(ctx context.Context, delay time.Duration) (done bool) {
	w.log.Info("task put off", "seconds", delay.Seconds())
	if _, err := w.queue.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &w.config.QueueURL,
		ReceiptHandle: &w.delivery.handle, VisibilityTimeout: seconds(delay)}); err != nil {
		w.log.Error("change visibility", "error", err)
	}
	return false
}

func seconds(d time.Duration) int32 { return int32(d.Round(time.Second).Seconds()) }

// sendOn puts a part of the task on the queue as a new message, which is hidden for the
// delay, a quarter of an hour at most. It reports whether it could; if not, the message
// is put off.
func (w *work) sendOn(ctx context.Context, part task.Task, delay time.Duration) bool {
	if _, err := w.queue.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &w.config.QueueURL,
		MessageBody: aws.String(part.Body()), MessageAttributes: w.delivery.forwarded(),
		DelaySeconds: seconds(delay)}); err != nil {
		w.log.Error("send the rest on", "error", err)
		return w.putOff(ctx, w.retryDelay(task.Storage))
	}
	return true
}

// isLast reports whether the queue would move the message to the DLQ instead of
// delivering it once more. The worker then does it itself, because the queue
// could not give the cause.
func (w *work) isLast(ctx context.Context) bool {
	out, err := w.queue.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &w.config.QueueURL,
		AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameRedrivePolicy}})
	var policy struct {
		MaxReceiveCount json.RawMessage `json:"maxReceiveCount"` // a number, or a number in quotes
	}
	if err != nil || json.Unmarshal([]byte(out.Attributes["RedrivePolicy"]), &policy) != nil {
		return false // without a policy no delivery is the last
	}
	limit, _ := strconv.Atoi(strings.Trim(string(policy.MaxReceiveCount), `"`))
	return limit > 0 && w.delivery.receives >= limit
}

// Limits of the size of a message with its attributes: SQS's own, and the least
// that a queue's MaximumMessageSize can be.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
const (
	maxMessage   = 1 << 20
	leastMessage = 1 << 10
)

var tooLong = regexp.MustCompile(`shorter than (\d+) bytes`)

// moveToDLQ sends a task that cannot pass to the DLQ, with its cause and what fits of the
// rest, and reports whether it could. The worker may not ask for the DLQ's limit: a
// refusal names it.
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

// fit makes a message of at most limit bytes: always the cause, the whole body if
// there is room for it beside that, and then what is most needed first.
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
	const enough = 40 // bytes of a detail that is of use
	value := text(detail)
	if left := room - len(task.AttributeDetail) - len("String"); left >= enough {
		value.StringValue = aws.String(cutAt(*value.StringValue, left))
	}
	add(task.AttributeDetail, value)
	if f.key != "" {
		add(task.AttributeReport, text(f.key))
	}
	return body, attributes
}

// cutAt is the beginning of a text, of at most n bytes and whole characters.
func cutAt(s string, n int) string {
	for n > 0 && n < len(s) && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:min(n, len(s))]
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
	if cut := cutAt(s, 1000); cut != s {
		s = cut + "..."
	}
	if s == "" {
		s = "none"
	}
	return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &s}
}
