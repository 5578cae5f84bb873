package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Limits of the size of a message with its attributes: SQS's own, and the least
// that a queue's MaximumMessageSize can be.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
const (
	maxMessage   = 1 << 20
	leastMessage = 1 << 10
)

var tooLong = regexp.MustCompile(`shorter than (\d+) bytes`)

// bury puts a task that cannot pass into the DLQ, with its cause and what fits of
// the rest. The worker may not ask for the DLQ's limit: a refusal names it.
func (m *messages) bury(ctx context.Context, d delivery, body string, f Failed) error {
	if m.dlq == "" {
		return fmt.Errorf("%s is not set", stack.EnvDLQURL)
	}
	for limit := maxMessage; ; {
		fitting, attributes := fit(limit, d, body, f)
		_, err := m.client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &m.dlq, MessageBody: &fitting,
			MessageAttributes: attributes})
		var refused smithy.APIError
		if err == nil || !errors.As(err, &refused) || !strings.HasPrefix(refused.ErrorCode(), "InvalidParameterValue") ||
			limit == leastMessage {
			return err
		}
		next := limit / 4
		if named := tooLong.FindStringSubmatch(refused.ErrorMessage()); named != nil {
			if n, err := strconv.Atoi(named[1]); err == nil && n < limit {
				next = n
			}
		}
		limit = max(next, leastMessage)
	}
}

// fit makes a message of at most limit bytes: always the cause, the whole body if
// there is room for it beside that, and then what is most needed first.
func fit(limit int, d delivery, body string, f Failed) (string, map[string]types.MessageAttributeValue) {
	attributes := map[string]types.MessageAttributeValue{}
	room := limit
	add := func(name string, v types.MessageAttributeValue) {
		size := len(name) + len(aws.ToString(v.DataType)) + len(aws.ToString(v.StringValue)) + len(v.BinaryValue)
		if size <= room {
			attributes[name] = v
			room -= size
		}
	}
	add(task.AttributeCause, text(string(f.Cause)))
	if len(body) > room {
		f.Detail = fmt.Sprintf("the message of %d bytes was cut, because the DLQ takes %d; %s", len(body), limit, f.Detail)
		body = cutAt(body, limit-leastMessage/2)
	}
	room -= len(body)
	forwarded := d.forwarded()
	for _, name := range []string{task.AttributeMessageID, task.AttributeReceives} {
		add(name, forwarded[name])
		delete(forwarded, name)
	}
	for _, name := range slices.Sorted(maps.Keys(forwarded)) {
		add(name, forwarded[name])
	}
	const enough = 40 // bytes of a detail that says anything
	detail := text(f.Detail)
	left := room - len(task.AttributeDetail) - len("String")
	if n := len(*detail.StringValue); n > left && left >= enough {
		detail.StringValue = aws.String(cutAt(*detail.StringValue, left))
	}
	add(task.AttributeDetail, detail)
	if f.Report != "" {
		add(task.AttributeReport, text(f.Report))
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
