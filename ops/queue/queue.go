// Package queue is the CLI's client of SQS: it sends tasks, counts and reads messages,
// and replays those of the dead letter queue.
package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
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

// Send sends tasks, ten per request and 32 requests at once. Requests that failed and entries that the queue did not
// accept are sent again. acknowledged is called with the place of each task that is safely in the queue, one call at a
// time. If Send fails, tasks that were not acknowledged may or may not have been sent.
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

// sendBatch sends the messages at the places. Only an entry that the queue confirms counts as sent. The error is a
// *refusedError if the queue refuses a message for good; others may have been acknowledged by then.
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

// trySend is one try, without the SDK's own retries: they would multiply with those of sendBatch.
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

// Settings are the attributes of a queue that decide about its messages.
type Settings struct {
	ARN         string
	Visibility  time.Duration // how long a task is hidden while a worker has it
	Retention   time.Duration // how long a message is kept, counted from when it was first sent
	DeadLetter  string        // ARN of the queue that takes what was received too often; "" if there is none
	MaxReceives int           // deliveries before that
	permission  string        // which queues may use this one as theirs: allowAll (or ""), byQueue, denyAll
	sources     []string      // their ARNs, if byQueue
}

// Takes reports whether the queue lets another one, given by its ARN, use it as its dead letter queue.
func (s Settings) Takes(source string) bool {
	return s.permission != "denyAll" && (s.permission != "byQueue" || slices.Contains(s.sources, source))
}

// Settings reads the settings of the task queue, DLQSettings those of the dead letter queue.
func (c *Client) Settings(ctx context.Context) (Settings, error) { return c.settings(ctx, c.url) }

// DLQSettings reads the settings of the dead letter queue.
func (c *Client) DLQSettings(ctx context.Context) (Settings, error) { return c.settings(ctx, c.dlq) }

func (c *Client) settings(ctx context.Context, url string) (Settings, error) {
	out, err := c.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url,
		AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll}})
	if err != nil {
		return Settings{}, fmt.Errorf("read the settings of the queue: %w", err)
	}
	seconds := func(name types.QueueAttributeName) time.Duration {
		n, _ := strconv.Atoi(out.Attributes[string(name)])
		return time.Duration(n) * time.Second
	}
	s := Settings{ARN: out.Attributes[string(types.QueueAttributeNameQueueArn)],
		Visibility: seconds(types.QueueAttributeNameVisibilityTimeout),
		Retention:  seconds(types.QueueAttributeNameMessageRetentionPeriod)}
	var policy struct {
		Target     string          `json:"deadLetterTargetArn"`
		Max        json.RawMessage `json:"maxReceiveCount"` // a number, or a number in quotes
		Permission string          `json:"redrivePermission"`
		Sources    []string        `json:"sourceQueueArns"`
	}
	for _, name := range []types.QueueAttributeName{types.QueueAttributeNameRedrivePolicy,
		types.QueueAttributeNameRedriveAllowPolicy} {
		if text := out.Attributes[string(name)]; text != "" {
			if err := json.Unmarshal([]byte(text), &policy); err != nil {
				return Settings{}, fmt.Errorf("read the %s of the queue: %w", name, err)
			}
		}
	}
	s.DeadLetter, s.permission, s.sources = policy.Target, policy.Permission, policy.Sources
	s.MaxReceives, _ = strconv.Atoi(strings.Trim(string(policy.Max), `"`))
	return s, nil
}

// countsLag is how long the counts must be zero before the queue is empty. AWS says that
// they "may not achieve consistency until at least 1 minute after the producers stop
// sending messages"; the half minute more is for that "at least".
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html
const countsLag = 90 * time.Second

// IsExact declares that this queue is one server, as on the local stack: its counts do
// not lag, and a receive finds every message without long polling.
func (c *Client) IsExact() { c.lag, c.wait = 0, 0 }

// Idle decides when the task queue is empty: no message waits, is delayed or in flight.
// No single count can tell, because counts lag.
type Idle struct {
	lag   time.Duration
	empty time.Time // since when the counts are zero; zero if they are not
}

// NewIdle returns the Idle of this queue.
func (c *Client) NewIdle() *Idle { return &Idle{lag: c.lag} }

// Observe takes the counts of a moment and reports whether the queue is idle: the counts
// have been zero for as long as they may lag, and in two polls at least, so that what is
// read after the first one is newer than the end of the last task.
func (i *Idle) Observe(d Depth, now time.Time) bool {
	switch {
	case d.Total() > 0:
		i.empty = time.Time{}
		return false
	case i.empty.IsZero():
		i.empty = now
		return false
	}
	return now.Sub(i.empty) >= i.lag
}

// Remaining is how much longer the counts must be zero.
func (i *Idle) Remaining(now time.Time) time.Duration {
	if i.empty.IsZero() {
		return i.lag
	}
	return max(0, i.lag-now.Sub(i.empty))
}

// WaitIdle polls the task queue at an interval until it is idle. It calls report after
// each poll with the counts and how much longer they must be zero.
func (c *Client) WaitIdle(ctx context.Context, every time.Duration,
	report func(d Depth, remaining time.Duration)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for idle := c.NewIdle(); ; {
		depth, err := c.Depth(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		if idle.Observe(depth, now) {
			return nil
		}
		report(depth, idle.Remaining(now))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
