package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Message is one message as it was received.
type Message struct {
	ID         string               `json:"message_id"`
	Body       string               `json:"body"`
	Attributes map[string]Attribute `json:"attributes,omitempty"`
	Receives   int                  `json:"receives"`
	Sent       time.Time            `json:"sent"`
	handle     string
}

// MaxAttributes is how many attributes SQS takes with a message.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html
const MaxAttributes = 10

// Attribute is a message attribute.
type Attribute struct {
	Type   string `json:"type"`
	Text   string `json:"text,omitempty"`
	Binary []byte `json:"binary,omitempty"`
}

// Text returns the text of an attribute, or "".
func (m Message) Text(name string) string { return m.Attributes[name].Text }

// FirstID returns the id of the task's first message, which logs and receipts have. A
// message that SQS itself moved to the DLQ has no attribute for it, but still that id.
func (m Message) FirstID() string { return cmp.Or(m.Text(task.AttributeMessageID), m.ID) }

func write(attributes map[string]Attribute) map[string]types.MessageAttributeValue {
	if len(attributes) == 0 {
		return nil
	}
	written := map[string]types.MessageAttributeValue{}
	for name, a := range attributes {
		v := types.MessageAttributeValue{DataType: aws.String(a.Type)}
		if len(a.Binary) > 0 {
			v.BinaryValue = a.Binary
		} else {
			v.StringValue = aws.String(a.Text)
		}
		written[name] = v
	}
	return written
}

func read(m types.Message) Message {
	r := Message{ID: aws.ToString(m.MessageId), Body: aws.ToString(m.Body), handle: aws.ToString(m.ReceiptHandle)}
	r.Receives, _ = strconv.Atoi(m.Attributes["ApproximateReceiveCount"])
	if ms, err := strconv.ParseInt(m.Attributes["SentTimestamp"], 10, 64); err == nil {
		r.Sent = time.UnixMilli(ms).UTC()
	}
	for name, a := range m.MessageAttributes {
		if r.Attributes == nil {
			r.Attributes = map[string]Attribute{}
		}
		r.Attributes[name] = Attribute{Type: aws.ToString(a.DataType), Text: aws.ToString(a.StringValue),
			Binary: a.BinaryValue}
	}
	return r
}

// receive is not cut short when ctx ends: what it had received would be hidden and nobody would know the handles.
func (c *Client) receive(ctx context.Context, url string, limit int, hide time.Duration) ([]Message, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	out, err := c.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: int32(limit), VisibilityTimeout: int32(hide.Seconds()),
		WaitTimeSeconds:             int32(c.wait.Seconds()),
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		MessageAttributeNames:       []string{"All"},
	})
	if err != nil {
		return nil, fmt.Errorf("receive messages: %w", err)
	}
	var list []Message
	for _, m := range out.Messages {
		list = append(list, read(m))
	}
	return list, nil
}

const readVisibility = 2 * time.Minute // how long messages that are read stay hidden, so that each is read once

// Peek returns up to limit messages of the task queue. SQS can show a message only by
// a receive, which counts: the third one moves the message to the DLQ.
func (c *Client) Peek(ctx context.Context, limit int) ([]Message, error) {
	return c.read(ctx, c.url, limit)
}

// DLQ returns up to limit messages of the dead letter queue, or all of them if
// limit is 0. They are visible to others again when it returns.
func (c *Client) DLQ(ctx context.Context, limit int) ([]Message, error) {
	return c.read(ctx, c.dlq, limit)
}

func (c *Client) read(ctx context.Context, url string, limit int) (list []Message, err error) {
	err = c.visit(ctx, url, batchSize, limit, func(fresh []Message) ([]string, error) {
		list = append(list, fresh...)
		return nil, nil
	})
	return list, err
}

// ErrEnough ends EachDead or Replay before they have read the whole dead letter queue.
var ErrEnough = errors.New("read enough")

// EachDead calls see with each message of the dead letter queue, once. They are visible to others again when it
// returns. It ends with the error of see, or with nil if that is ErrEnough.
func (c *Client) EachDead(ctx context.Context, see func(Message) error) error {
	return enough(c.visit(ctx, c.dlq, batchSize, 0, func(fresh []Message) ([]string, error) {
		for _, m := range fresh {
			if err := see(m); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}))
}

// PurgeDLQOf deletes those messages of the dead letter queue that a function chooses, and returns their number.
func (c *Client) PurgeDLQOf(ctx context.Context, chosen func(Message) bool) (purged int, err error) {
	err = c.visit(ctx, c.dlq, batchSize, 0, func(fresh []Message) ([]string, error) {
		deleted, err := c.deleteDead(ctx, slices.DeleteFunc(fresh, func(m Message) bool { return !chosen(m) }))
		purged += len(deleted)
		return deleted, err
	})
	return purged, err
}

// deleteDead deletes received messages of the dead letter queue and returns the ids of
// those it deleted. Ctrl-C does not interrupt it.
func (c *Client) deleteDead(ctx context.Context, list []Message) (deleted []string, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	in := &sqs.DeleteMessageBatchInput{QueueUrl: &c.dlq}
	for i := range list {
		in.Entries = append(in.Entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)),
			ReceiptHandle: &list[i].handle})
	}
	out, err := c.sqs.DeleteMessageBatch(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("delete messages of the DLQ: %w", err)
	}
	for _, s := range out.Successful {
		if i, err := strconv.Atoi(aws.ToString(s.Id)); err == nil && i >= 0 && i < len(list) {
			deleted = append(deleted, list[i].ID)
		}
	}
	if len(out.Failed) > 0 {
		f := out.Failed[0]
		return deleted, fmt.Errorf("delete messages of the DLQ: %s: %s", aws.ToString(f.Code), aws.ToString(f.Message))
	}
	return deleted, nil
}

// enough returns nil for ErrEnough alone, and any other error as it is.
func enough(err error) error {
	if err == ErrEnough { //nolint:errorlint // joined with another one, that one counts
		return nil
	}
	return err
}

// visit receives messages until there are no more, or up to limit if that is not 0, and
// calls do with the new ones of each receive, at most most. do returns the ids of those it
// deleted. All others are visible again when visit returns, also after an error.
func (c *Client) visit(ctx context.Context, url string, most, limit int, do func(fresh []Message) (deleted []string,
	err error)) (err error) {
	seen, hidden := map[string]bool{}, map[string]string{} // hidden: the last handle of each, by id
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		if e := c.show(ctx, url, slices.Collect(maps.Values(hidden))); e != nil {
			err = errors.Join(err, e)
		}
	}()
	stale := 0 // messages in a row that were received before
	for ctx.Err() == nil && (limit == 0 || len(seen) < limit) {
		// No more than is wanted: each receive counts against a message.
		size := most
		if limit > 0 {
			size = min(size, limit-len(seen))
		}
		messages, err := c.receive(ctx, url, size, readVisibility)
		if err != nil || len(messages) == 0 {
			return err
		}
		var fresh []Message
		for _, m := range messages {
			hidden[m.ID] = m.handle
			if seen[m.ID] {
				stale++ // its visibility ended, or SQS delivered it twice
				continue
			}
			seen[m.ID] = true
			fresh = append(fresh, m)
		}
		if len(fresh) == 0 {
			if stale > len(seen) { // all of them
				return nil
			}
			continue
		}
		stale = 0
		if ctx.Err() != nil {
			break
		}
		deleted, err := do(fresh)
		for _, id := range deleted {
			delete(hidden, id)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// show makes messages visible again. It is no error if they are already.
func (c *Client) show(ctx context.Context, url string, handles []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for part := range slices.Chunk(handles, batchSize) {
		in := &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &url}
		for i := range part {
			in.Entries = append(in.Entries, types.ChangeMessageVisibilityBatchRequestEntry{Id: aws.String(strconv.Itoa(i)),
				ReceiptHandle: &part[i], VisibilityTimeout: 0})
		}
		group.Go(func() error {
			if _, err := c.sqs.ChangeMessageVisibilityBatch(ctx, in); err != nil {
				return fmt.Errorf("make messages visible again: %w", err)
			}
			return nil
		})
	}
	return group.Wait()
}
