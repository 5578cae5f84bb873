// Package queue is the CLI's client of SQS: it sends tasks, counts and reads messages,
// and replays those of the dead letter queue.
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

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

const (
	batchSize = 10 // entries in one request, SQS's limit
	inFlight  = 32 // requests at once: 5,000 tasks are 500 requests
	maxTries  = 20 // of a batch that the queue accepts in part only

	requestTimeout = 30 * time.Second // of one try: a request without an answer must not block the others
	cleanupTimeout = 30 * time.Second // of requests that must still be sent after Ctrl-C
)

// Client is one task queue with its dead letter queue.
type Client struct {
	sqs      *sqs.Client
	url, dlq string
	pace     time.Duration // before the second try of a batch; doubled for each further one
	wait     time.Duration // of a receive: from 1 s on, SQS polls all of its servers
	lag      time.Duration // of the counts: see Idle
}

// New returns the client of a task queue and its dead letter queue, given by their URLs.
func New(client *sqs.Client, url, dlq string) *Client {
	return &Client{sqs: client, url: url, dlq: dlq, pace: 100 * time.Millisecond, wait: time.Second, lag: countsLag}
}

// Send sends tasks, ten per request and 32 requests at once. Requests that failed and
// entries that the queue did not accept are sent again. acknowledged is called with the
// place of each task that is safely in the queue, one call at a time. If Send fails,
// tasks that were not acknowledged may or may not have been sent.
func (c *Client) Send(ctx context.Context, tasks []task.Task, acknowledged func(place int) error) error {
	var mu sync.Mutex
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for start := 0; start < len(tasks) && limited.Err() == nil; start += batchSize {
		batch := tasks[start:min(start+batchSize, len(tasks))]
		group.Go(func() error {
			// of these alone: a run may have half a million
			messages, places := make([]Outgoing, len(batch)), make([]int, len(batch))
			for i, t := range batch {
				messages[i], places[i] = Outgoing{Body: t.Body(), Run: t.RunID, name: name(t)}, i
			}
			return c.sendBatch(limited, messages, places, func(place int) error {
				mu.Lock()
				defer mu.Unlock()
				return acknowledged(start + place)
			})
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// Outgoing is a message to send.
type Outgoing struct {
	Body       string
	Attributes map[string]Attribute
	Run        string // that its task belongs to; may be ""
	name       string // for errors
}

// refusedError says that the queue will never accept a message.
type refusedError struct {
	place int
	text  string
}

func (e *refusedError) Error() string { return e.text }

// sendBatch sends the messages at the places. Only an entry that the queue confirms
// counts as sent. The error is a *refusedError if the queue refuses a message for good;
// others may have been acknowledged by then.
func (c *Client) sendBatch(ctx context.Context, all []Outgoing, places []int, acknowledged func(int) error) error {
	for try := 1; ; try++ {
		in := &sqs.SendMessageBatchInput{QueueUrl: &c.url}
		for _, p := range places {
			in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(p)),
				MessageBody: aws.String(all[p].Body), MessageAttributes: write(all[p].Attributes),
				MessageGroupId: task.Group(all[p].Run)})
		}
		out, err := c.trySend(ctx, in)
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && (!temporary(err) || try >= store.Tries(err)) {
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
			if err := refused(all, places, out.Failed, try); err != nil {
				return err
			}
		}
		if err := pause(ctx, c.pace, try-1); err != nil {
			return err
		}
	}
}

// trySend is one try, without the SDK's own retries: they would multiply with those of
// sendBatch.
func (c *Client) trySend(ctx context.Context, in *sqs.SendMessageBatchInput) (*sqs.SendMessageBatchOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.sqs.SendMessageBatch(ctx, in, func(o *sqs.Options) { o.RetryMaxAttempts = 1 })
}

// temporary reports whether the same request may succeed later: it got no answer in
// time, or an error that is not the request's fault.
func temporary(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) ||
		retry.IsErrorRetryables(retry.DefaultRetryables).IsErrorRetryable(err) == aws.TrueTernary
}

// refused returns an error for a message that the queue does not accept: because it is
// the message's fault, or after maxTries.
func refused(all []Outgoing, places []int, failed []types.BatchResultErrorEntry, try int) error {
	why := "no answer for it"
	for _, f := range failed {
		place, err := strconv.Atoi(aws.ToString(f.Id))
		if err != nil || !slices.Contains(places, place) {
			continue
		}
		why = aws.ToString(f.Code) + ": " + aws.ToString(f.Message)
		if f.SenderFault {
			return &refusedError{place, fmt.Sprintf("send %s: the queue refused it: %s", all[place].name, why)}
		}
	}
	if try == maxTries {
		return fmt.Errorf("send %s: the queue did not take it in %d tries: %s", all[places[0]].name, maxTries, why)
	}
	return nil
}

func name(t task.Task) string {
	r := t.Range()
	return fmt.Sprintf("the task for samples %d to %d of %s", r.Start, r.End-1, t.Generator)
}

// pause waits before the next try: about pace, doubled each time, at most 100 times pace.
func pause(ctx context.Context, pace time.Duration, try int) error {
	d := min(pace<<min(try, 10), 100*pace)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d/2 + rand.N(d)):
		return nil
	}
}

// Depth is how many messages a queue holds. SQS's counts lag: see Idle.
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
	var d Depth
	counts := map[types.QueueAttributeName]*int{
		types.QueueAttributeNameApproximateNumberOfMessages:           &d.Waiting,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible: &d.InFlight,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed:    &d.Delayed,
	}
	out, err := c.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url,
		AttributeNames: slices.Collect(maps.Keys(counts))})
	if err != nil {
		return Depth{}, fmt.Errorf("count the queue: %w", err)
	}
	for name, to := range counts {
		// Taken for 0, a missing count would make a full queue look empty.
		if *to, err = strconv.Atoi(out.Attributes[string(name)]); err != nil {
			return Depth{}, fmt.Errorf("count the queue: %s is %q", name, out.Attributes[string(name)])
		}
	}
	return d, nil
}

// SendMessage sends one message to the task queue.
func (c *Client) SendMessage(ctx context.Context, body string, attributes map[string]Attribute) error {
	in := &sqs.SendMessageInput{QueueUrl: &c.url, MessageBody: &body, MessageAttributes: write(attributes)}
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
	_, err := c.sqs.PurgeQueue(ctx, &sqs.PurgeQueueInput{QueueUrl: &url})
	if _, early := errors.AsType[*types.PurgeQueueInProgress](err); early {
		return errors.New("purge the queue: it was purged less than 60 seconds ago, which is as often as SQS does it")
	}
	if err != nil {
		return fmt.Errorf("purge the queue: %w", err)
	}
	return nil
}
