package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

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

// Takes reports whether the queue lets another one, given by its ARN, use it as
// its dead letter queue.
func (s Settings) Takes(source string) bool {
	return s.permission != "denyAll" && (s.permission != "byQueue" || slices.Contains(s.sources, source))
}

// Settings reads the settings of the task queue, DLQSettings those of the dead
// letter queue.
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
