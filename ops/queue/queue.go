// Package queue is the CLI's side of SQS: sending tasks, counting, looking, and
// taking messages out of the dead letter queue.
package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

const (
	batchSize = 10 // entries in one request, SQS's limit
	inFlight  = 16 // requests at once: 5,000 tasks are 500 requests
	maxTries  = 8  // of one batch before the send is given up

	requestTimeout = 30 * time.Second // of one try: a request without an answer must not hold up the rest
	lastWords      = 30 * time.Second // for what must still be said after Ctrl-C
)

// Client is one task queue with its dead letter queue.
type Client struct {
	sqs      *sqs.Client
	url, dlq string
	pace     time.Duration // before the second try of a batch; doubled for each further one
	wait     time.Duration // of a receive for messages: from 1 s on, SQS asks all of its servers
}

// New returns the client of two queues, given by their URLs.
func New(client *sqs.Client, url, dlq string) *Client {
	return &Client{sqs: client, url: url, dlq: dlq, pace: 100 * time.Millisecond, wait: time.Second}
}

// Send sends tasks, ten a request and several requests at once. Requests that
// got no good answer and entries that the queue could not take are sent again.
// acknowledged is told the place of each task that is safely in the queue, one
// call at a time. When Send fails, those that were not acknowledged may or may
// not have been sent.
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

// sendBatch sends the tasks at the places. Only an entry that the queue names as
// sent counts as sent.
func (c *Client) sendBatch(ctx context.Context, tasks []task.Task, places []int, acknowledged func(int) error) error {
	for try := 1; ; try++ {
		in := &sqs.SendMessageBatchInput{QueueUrl: &c.url}
		for _, p := range places {
			in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(p)), MessageBody: aws.String(tasks[p].Body())})
		}
		out, err := c.trySend(ctx, in)
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && (!temporary(err) || try == maxTries) {
			return fmt.Errorf("send tasks: %w", err)
		}
		if err == nil {
			for _, s := range out.Successful {
				place, _ := strconv.Atoi(aws.ToString(s.Id))
				i := slices.Index(places, place)
				if i < 0 {
					return fmt.Errorf("send tasks: the queue answered for an entry %q that was not sent", aws.ToString(s.Id))
				}
				places = slices.Delete(places, i, i+1)
				if err := acknowledged(place); err != nil {
					return err
				}
			}
			if len(places) == 0 {
				return nil
			}
			if err := refused(tasks, places, out.Failed, try); err != nil {
				return err
			}
		}
		if err := pause(ctx, c.pace, try-1); err != nil {
			return err
		}
	}
}

// trySend is one try. It alone decides about further ones: the SDK's own retries
// would multiply with these.
func (c *Client) trySend(ctx context.Context, in *sqs.SendMessageBatchInput) (*sqs.SendMessageBatchOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.sqs.SendMessageBatch(ctx, in, func(o *sqs.Options) { o.RetryMaxAttempts = 1 })
}

// temporary reports whether the same request may pass later: it got no answer in
// time, or one that does not blame the request.
func temporary(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || retry.IsErrorRetryables(retry.DefaultRetryables).IsErrorRetryable(err) == aws.TrueTernary
}

// refused names a task that the queue will not take: because it is the task's
// fault, or because there were tries enough.
func refused(tasks []task.Task, places []int, failed []types.BatchResultErrorEntry, try int) error {
	why := "no answer for it"
	for _, f := range failed {
		place, err := strconv.Atoi(aws.ToString(f.Id))
		if err != nil || !slices.Contains(places, place) {
			continue
		}
		why = aws.ToString(f.Code) + ": " + aws.ToString(f.Message)
		if f.SenderFault {
			return fmt.Errorf("send %s: the queue refused it: %s", name(tasks[place]), why)
		}
	}
	if try == maxTries {
		return fmt.Errorf("send %s: the queue did not take it in %d tries: %s", name(tasks[places[0]]), maxTries, why)
	}
	return nil
}

func name(t task.Task) string {
	r := t.Range()
	return fmt.Sprintf("the task for samples %d to %d of %s", r.Start, r.End-1, t.Generator)
}

// pause waits before the next try: about pace, doubled each time, at most 10 s.
func pause(ctx context.Context, pace time.Duration, try int) error {
	d := min(pace<<try, 10*time.Second)
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
	var d Depth
	for name, to := range map[types.QueueAttributeName]*int{
		types.QueueAttributeNameApproximateNumberOfMessages:           &d.Waiting,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible: &d.InFlight,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed:    &d.Delayed,
	} {
		// Taken for 0, a missing count would make a full queue look empty.
		if *to, err = strconv.Atoi(out.Attributes[string(name)]); err != nil {
			return Depth{}, fmt.Errorf("count the queue: %s is %q", name, out.Attributes[string(name)])
		}
	}
	return d, nil
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

// receive is not cut short when ctx ends: what it had received would be hidden
// and nobody would know the handles.
func (c *Client) receive(ctx context.Context, url string, limit int, hide time.Duration) ([]Message, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	out, err := c.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: int32(limit), VisibilityTimeout: int32(hide.Seconds()), WaitTimeSeconds: int32(c.wait.Seconds()),
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
	err = c.visit(ctx, url, limit, func(fresh []Message) ([]string, error) {
		list = append(list, fresh...)
		return nil, nil
	})
	return list, err
}

// visit receives messages until there are no more, or as many as the limit if
// it is not 0, and hands over what each receive brought, every message once. do
// returns the ids of those it has deleted. At the end, however it comes, all
// others are visible again.
func (c *Client) visit(ctx context.Context, url string, limit int, do func(fresh []Message) (deleted []string, err error)) (err error) {
	seen, hidden := map[string]bool{}, map[string]string{} // hidden: the last handle of each, by id
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
		defer cancel()
		err = errors.Join(err, c.show(ctx, url, slices.Collect(maps.Values(hidden))))
	}()
	stale := 0 // messages in a row that had been seen before
	for ctx.Err() == nil && (limit == 0 || len(seen) < limit) {
		// Not one more than is wanted: each receive counts against a message.
		size := batchSize
		if limit > 0 {
			size = min(size, limit-len(seen))
		}
		messages, err := c.receive(ctx, url, size, lookVisibility)
		if err != nil || len(messages) == 0 {
			return err
		}
		var fresh []Message
		for _, m := range messages {
			hidden[m.ID] = m.handle
			if seen[m.ID] {
				stale++ // hidden for too short, or delivered twice
				continue
			}
			seen[m.ID] = true
			fresh = append(fresh, m)
		}
		if len(fresh) == 0 {
			if stale > len(seen) { // once around
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

// show makes messages visible again. Those that are so already are no error.
func (c *Client) show(ctx context.Context, url string, handles []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for part := range slices.Chunk(handles, batchSize) {
		in := &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &url}
		for i := range part {
			in.Entries = append(in.Entries, types.ChangeMessageVisibilityBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &part[i], VisibilityTimeout: 0})
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

// Replay takes message after message out of the dead letter queue. For each,
// change returns the body to send to the task queue and whether to send it at
// all; it is called for one message at a time. A message is deleted only after
// the queue has confirmed the new one, so that an interruption at any point
// loses nothing. What it does to a message in between is sent twice by the next
// Replay, so change should return the same for the same message: then the
// workers absorb the double. It returns how many were sent.
func (c *Client) Replay(ctx context.Context, change func(Message) (body string, attributes map[string]Attribute, send bool, err error)) (sent int, err error) {
	err = c.visit(ctx, c.dlq, 0, func(fresh []Message) (deleted []string, err error) {
		var mu sync.Mutex
		var group errgroup.Group // as many at once as a receive brings
		for _, m := range fresh {
			body, attributes, send, err := change(m)
			if err != nil {
				err = errors.Join(err, group.Wait())
				return deleted, err
			}
			if !send {
				continue
			}
			group.Go(func() error {
				if err := c.SendMessage(ctx, body, attributes); err != nil {
					return err
				}
				// Ctrl-C must not come between: it would make a double.
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
				defer cancel()
				_, err := c.sqs.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &c.dlq, ReceiptHandle: &m.handle})
				mu.Lock()
				defer mu.Unlock()
				sent++
				if err != nil {
					return fmt.Errorf("message %s was sent again but is still in the DLQ: %w", m.ID, err)
				}
				deleted = append(deleted, m.ID)
				return nil
			})
		}
		err = group.Wait()
		return deleted, err
	})
	return sent, err
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
		var early *types.PurgeQueueInProgress
		if errors.As(err, &early) {
			return errors.New("purge the queue: it was purged less than 60 seconds ago, which is as often as SQS does it")
		}
		return fmt.Errorf("purge the queue: %w", err)
	}
	return nil
}
