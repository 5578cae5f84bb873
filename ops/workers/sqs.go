package workers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
)

// SQS is the task queue of a deployed stack, which others receive from, too.
type SQS struct {
	client     *sqs.Client
	outputs    *stack.Outputs
	visibility time.Duration // the queue's own
	say        func(format string, args ...any)
}

// pollTime is how long a receive waits for a message, in seconds. SQS allows 20; a stop
// waits for the end of a poll, and 10,000 polls cost 0.4 cents.
const pollTime = 10

// Waits between requests that fail, doubled from the first to the last.
const (
	firstWait = time.Second
	lastWait  = time.Minute
)

// requestTime bounds what is sent to the queue after a task.
const requestTime = 30 * time.Second

// OpenSQS reads how long the stack's queue hides a message. It fails where the queue cannot be read.
func OpenSQS(ctx context.Context, client *sqs.Client, o *stack.Outputs,
	say func(format string, args ...any)) (*SQS, error) {
	out, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &o.QueueURL,
		AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameVisibilityTimeout}})
	if err != nil {
		return nil, fmt.Errorf("read the task queue: %w", err)
	}
	seconds, err := strconv.Atoi(out.Attributes[string(types.QueueAttributeNameVisibilityTimeout)])
	if err != nil || seconds < 1 {
		return nil, errors.New("the task queue hides a received task for no time at all: set its VisibilityTimeout")
	}
	return &SQS{client: client, outputs: o, visibility: time.Duration(seconds) * time.Second, say: say}, nil
}

// Receive polls until there is a message or ctx ends. Whatever goes wrong may pass, so it is reported and tried again.
// It does not cut a poll off: the queue may then hand a message to nobody, which counts as a delivery.
func (q *SQS) Receive(ctx context.Context) (*events.SQSMessage, error) {
	wait := firstWait
	for ctx.Err() == nil {
		m, err := q.poll(context.WithoutCancel(ctx))
		switch {
		case m != nil:
			return m, nil
		case err == nil:
			wait = firstWait
			continue
		}
		q.say("receive a task: %v (tried again in %s)", err, wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, lastWait)
	}
	return nil, ctx.Err()
}

// poll returns a message, or nil if there is none.
func (q *SQS) poll(ctx context.Context) (*events.SQSMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTime*time.Second+requestTime)
	defer cancel()
	out, err := q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &q.outputs.QueueURL,
		MaxNumberOfMessages: 1, WaitTimeSeconds: pollTime, MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll}})
	if err != nil || len(out.Messages) == 0 {
		return nil, err
	}
	return q.record(&out.Messages[0]), nil
}

func (q *SQS) record(in *types.Message) *events.SQSMessage {
	m := &events.SQSMessage{
		MessageId: aws.ToString(in.MessageId), ReceiptHandle: aws.ToString(in.ReceiptHandle), Body: aws.ToString(in.Body),
		Md5OfBody: aws.ToString(in.MD5OfBody), Attributes: in.Attributes, EventSource: "aws:sqs",
		MessageAttributes: map[string]events.SQSMessageAttribute{}, EventSourceARN: q.outputs.QueueARN,
		AWSRegion: q.outputs.Region,
	}
	for name, a := range in.MessageAttributes {
		m.MessageAttributes[name] = events.SQSMessageAttribute{StringValue: a.StringValue, BinaryValue: a.BinaryValue,
			DataType: aws.ToString(a.DataType)}
	}
	return m
}

// Keep hides the message for the queue's visibility timeout again, each time a third of that is over.
func (q *SQS) Keep(ctx context.Context, m *events.SQSMessage) {
	every := time.NewTicker(q.visibility / 3)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		_, err := q.client.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &q.outputs.QueueURL,
			ReceiptHandle: &m.ReceiptHandle, VisibilityTimeout: int32(q.visibility.Seconds())})
		if err != nil && ctx.Err() == nil {
			q.say("extend the visibility of message %s: %v", m.MessageId, err)
		}
	}
}

// Delete deletes a message that is done with.
func (q *SQS) Delete(m *events.SQSMessage) error {
	ctx, cancel := context.WithTimeout(context.Background(), requestTime)
	defer cancel()
	_, err := q.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &q.outputs.QueueURL,
		ReceiptHandle: &m.ReceiptHandle})
	return err
}

// Return shows a message that was not begun at once. Who was killed may still hold cells, and requests of its may still
// be executed: as on Lambda, its message comes back by its visibility.
func (q *SQS) Return(m *events.SQSMessage, _ string, end End) {
	if end != NotBegun {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTime)
	defer cancel()
	if _, err := q.client.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{
		QueueUrl: &q.outputs.QueueURL, ReceiptHandle: &m.ReceiptHandle}); err != nil {
		q.say("give a task back: %v (it comes back after its visibility timeout)", err)
	}
}
