// Package queue is the CLI's side of SQS: sending tasks, counting, looking, and
// taking messages out of the dead letter queue.
package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

const (
	batchSize = 10 // entries in one request, SQS's limit
	inFlight  = 16 // requests at once: 5,000 tasks are 500 requests
	maxTries  = 8  // of one batch before the send is given up
)

// Client is one task queue with its dead letter queue.
type Client struct {
	sqs      *sqs.Client
	url, dlq string
}

// New returns the client of two queues, given by their URLs.
func New(client *sqs.Client, url, dlq string) *Client {
	return &Client{sqs: client, url: url, dlq: dlq}
}

// Send sends tasks, ten a request and several requests at once. Entries that the
// queue could not take are sent again. acknowledged is told the place of each
// task that is safely in the queue, one call at a time. When Send fails, those
// that were not acknowledged may or may not have been sent.
func (c *Client) Send(ctx context.Context, tasks []task.Task, acknowledged func(place int) error) error {
	var mu sync.Mutex
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for start := 0; start < len(tasks) && limited.Err() == nil; start += batchSize {
		places := make([]int, 0, batchSize)
		for i := start; i < min(start+batchSize, len(tasks)); i++ {
			places = append(places, i)
		}
		group.Go(func() error {
			return c.sendBatch(limited, tasks, places, func(place int) error {
				mu.Lock()
				defer mu.Unlock()
				return acknowledged(place)
			})
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

func (c *Client) sendBatch(ctx context.Context, tasks []task.Task, places []int, acknowledged func(int) error) error {
	for try := 0; ; try++ {
		in := &sqs.SendMessageBatchInput{QueueUrl: &c.url}
		for _, p := range places {
			in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(p)), MessageBody: aws.String(tasks[p].Body())})
		}
		out, err := c.sqs.SendMessageBatch(ctx, in)
		if err != nil {
			return fmt.Errorf("send tasks: %w", err)
		}
		for _, s := range out.Successful {
			place, err := strconv.Atoi(aws.ToString(s.Id))
			if err != nil {
				return fmt.Errorf("send tasks: the queue answered for an entry %q that was not sent", aws.ToString(s.Id))
			}
			if err := acknowledged(place); err != nil {
				return err
			}
		}
		if len(out.Failed) == 0 {
			return nil
		}
		places = places[:0]
		for _, f := range out.Failed {
			place, err := strconv.Atoi(aws.ToString(f.Id))
			if err != nil || f.SenderFault || try == maxTries {
				return fmt.Errorf("send task %s: the queue refused it: %s: %s", aws.ToString(f.Id), aws.ToString(f.Code), aws.ToString(f.Message))
			}
			places = append(places, place)
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
}

// pause waits before the next try: 0.1 s, doubled each time, up to 10 s.
func pause(ctx context.Context, try int) error {
	d := min(100*time.Millisecond<<try, 10*time.Second)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d/2 + rand.N(d)):
		return nil
	}
}

// Depth is how many messages a queue holds, about: SQS counts with a delay.
type Depth struct {
	Waiting  int `json:"waiting"`
	InFlight int `json:"in_flight"`
	Delayed  int `json:"delayed"`
}

// Total is the number of all messages.
func (d Depth) Total() int { return d.Waiting + d.InFlight + d.Delayed }

// Depth counts the task queue, DLQDepth the dead letter queue.
func (c *Client) Depth(ctx context.Context) (Depth, error) { return c.depth(ctx, c.url) }

// DLQDepth counts the dead letter queue.
func (c *Client) DLQDepth(ctx context.Context) (Depth, error) { return c.depth(ctx, c.dlq) }

func (c *Client) depth(ctx context.Context, url string) (Depth, error) {
	out, err := c.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages, types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
	}})
	if err != nil {
		return Depth{}, fmt.Errorf("count the queue: %w", err)
	}
	number := func(name types.QueueAttributeName) int {
		n, _ := strconv.Atoi(out.Attributes[string(name)])
		return n
	}
	return Depth{
		Waiting:  number(types.QueueAttributeNameApproximateNumberOfMessages),
		InFlight: number(types.QueueAttributeNameApproximateNumberOfMessagesNotVisible),
		Delayed:  number(types.QueueAttributeNameApproximateNumberOfMessagesDelayed),
	}, nil
}

// Message is one message as it was received.
type Message struct {
	ID         string               `json:"message_id"`
	Body       string               `json:"body"`
	Attributes map[string]Attribute `json:"attributes,omitempty"`
	Receives   int                  `json:"receives"`
	Sent       time.Time            `json:"sent"`
	handle     string
}

// Attribute is a message attribute.
type Attribute struct {
	Type   string `json:"type"`
	Text   string `json:"text,omitempty"`
	Binary []byte `json:"binary,omitempty"`
}

// Text returns the text of an attribute, or "".
func (m Message) Text(name string) string { return m.Attributes[name].Text }

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
		r.Attributes[name] = Attribute{Type: aws.ToString(a.DataType), Text: aws.ToString(a.StringValue), Binary: a.BinaryValue}
	}
	return r
}

func (c *Client) receive(ctx context.Context, url string, limit int, hide time.Duration) ([]Message, error) {
	out, err := c.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: int32(limit), VisibilityTimeout: int32(hide.Seconds()), WaitTimeSeconds: 1, // asks every server of the queue
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll}, MessageAttributeNames: []string{"All"},
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

// lookVisibility is for how long messages that are looked at stay hidden from
// others, so that each is seen once.
const lookVisibility = 2 * time.Minute

// Peek shows up to limit messages of the task queue. SQS has no way to look
// without receiving: each look counts against the message's receives.
func (c *Client) Peek(ctx context.Context, limit int) ([]Message, error) {
	return c.look(ctx, c.url, limit)
}

// DLQ returns up to limit messages of the dead letter queue, or all of them if
// limit is 0. They are visible to others again when it returns.
func (c *Client) DLQ(ctx context.Context, limit int) ([]Message, error) {
	return c.look(ctx, c.dlq, limit)
}

func (c *Client) look(ctx context.Context, url string, limit int) (list []Message, err error) {
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		err = errors.Join(err, c.show(ctx, url, list))
	}()
	err = c.drain(ctx, url, func(m Message) (bool, error) {
		list = append(list, m)
		return limit == 0 || len(list) < limit, nil
	})
	return list, err
}

// drain receives message after message, each once, until there is none or each
// says to stop.
func (c *Client) drain(ctx context.Context, url string, each func(Message) (bool, error)) error {
	seen := map[string]bool{}
	for {
		messages, err := c.receive(ctx, url, batchSize, lookVisibility)
		if err != nil {
			return err
		}
		fresh := false
		var rest []Message
		more := true
		for _, m := range messages {
			if seen[m.ID] || !more {
				rest = append(rest, m)
				continue
			}
			seen[m.ID], fresh = true, true
			if more, err = each(m); err != nil {
				return err
			}
		}
		if err := c.show(ctx, url, rest); err != nil {
			return err
		}
		if !more || !fresh {
			return nil
		}
	}
}

// show makes messages visible again.
func (c *Client) show(ctx context.Context, url string, list []Message) error {
	for start := 0; start < len(list); start += batchSize {
		in := &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &url}
		for i, m := range list[start:min(start+batchSize, len(list))] {
			in.Entries = append(in.Entries, types.ChangeMessageVisibilityBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: aws.String(m.handle), VisibilityTimeout: 0})
		}
		if _, err := c.sqs.ChangeMessageVisibilityBatch(ctx, in); err != nil {
			return fmt.Errorf("make messages visible again: %w", err)
		}
	}
	return nil
}

// Replay takes message after message out of the dead letter queue. For each,
// change returns the body to send to the task queue and whether to send it at
// all. A message is deleted only after the queue has confirmed the new one, so
// that an interruption at any point loses nothing; the workers absorb a double.
// It returns how many were sent.
func (c *Client) Replay(ctx context.Context, change func(Message) (body string, attributes map[string]Attribute, send bool, err error)) (sent int, err error) {
	var kept []Message
	err = c.drain(ctx, c.dlq, func(m Message) (bool, error) {
		body, attributes, send, err := change(m)
		if err != nil || !send {
			kept = append(kept, m)
			return err == nil, err
		}
		if err := c.SendMessage(ctx, body, attributes); err != nil {
			kept = append(kept, m)
			return false, err
		}
		sent++
		if _, err := c.sqs.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &c.dlq, ReceiptHandle: &m.handle}); err != nil {
			return false, fmt.Errorf("message %s was sent again but is still in the DLQ: %w", m.ID, err)
		}
		return true, nil
	})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return sent, errors.Join(err, c.show(ctx, c.dlq, kept))
}

// SendMessage sends one message to the task queue.
func (c *Client) SendMessage(ctx context.Context, body string, attributes map[string]Attribute) error {
	in := &sqs.SendMessageInput{QueueUrl: &c.url, MessageBody: &body}
	for name, a := range attributes {
		if in.MessageAttributes == nil {
			in.MessageAttributes = map[string]types.MessageAttributeValue{}
		}
		v := types.MessageAttributeValue{DataType: aws.String(a.Type)}
		if len(a.Binary) > 0 {
			v.BinaryValue = a.Binary
		} else {
			v.StringValue = aws.String(a.Text)
		}
		in.MessageAttributes[name] = v
	}
	if _, err := c.sqs.SendMessage(ctx, in); err != nil {
		return fmt.Errorf("send a message: %w", err)
	}
	return nil
}

// Purge deletes every message of the task queue, PurgeDLQ those of the dead
// letter queue. SQS does it at most once a minute.
func (c *Client) Purge(ctx context.Context) error { return c.purge(ctx, c.url) }

// PurgeDLQ deletes every message of the dead letter queue.
func (c *Client) PurgeDLQ(ctx context.Context) error { return c.purge(ctx, c.dlq) }

func (c *Client) purge(ctx context.Context, url string) error {
	if _, err := c.sqs.PurgeQueue(ctx, &sqs.PurgeQueueInput{QueueUrl: &url}); err != nil {
		return fmt.Errorf("purge the queue: %w", err)
	}
	return nil
}
