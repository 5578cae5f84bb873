package cloudtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	pulumisqs "github.com/pulumi/pulumi-aws/sdk/v6/go/aws/sqs"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

// queueNumbers are the attributes of a queue that are numbers, with their limits.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
var queueNumbers = map[string]struct {
	attribute string
	low, high float64
}{
	"visibilityTimeoutSeconds":     {"VisibilityTimeout", 0, 43200},
	"messageRetentionSeconds":      {"MessageRetentionPeriod", 60, 1209600},
	"receiveWaitTimeSeconds":       {"ReceiveMessageWaitTimeSeconds", 0, 20},
	"delaySeconds":                 {"DelaySeconds", 0, 900},
	"maxMessageSize":               {"MaximumMessageSize", 1024, 1048576},
	"kmsDataKeyReusePeriodSeconds": {"KmsDataKeyReusePeriodSeconds", 60, 86400},
}

func queueTypes() map[tokens.Type]resourceType {
	rules := map[string]rule{"name": matches(`[A-Za-z0-9_-]+`, 80), "redrivePolicy": isRedrivePolicy}
	for name, n := range queueNumbers {
		rules[name] = between(n.low, n.high)
	}
	return map[tokens.Type]resourceType{
		"aws:sqs/queue:Queue": {
			schema: schema{
				args: argsOf[pulumisqs.QueueArgs](), state: reflect.TypeFor[pulumisqs.Queue](), rules: rules,
				together: func(in props) error {
					for _, name := range []string{"namePrefix", "policy", "redriveAllowPolicy", "fifoQueue"} {
						if in.has(name) {
							return fmt.Errorf("cloudtest does not know queues with %s: it has resources of their own for policies", name)
						}
					}
					return nil
				},
			},
			name: "name", nameMax: 80, fixed: []string{"name"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				if in.has("redrivePolicy") {
					if err := dlqAllows(ctx, c, in.get("redrivePolicy"), ""); err != nil {
						return "", err
					}
				}
				out, err := c.sqs.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(in.text("name")),
					Attributes: queueAttributes(in), Tags: in.textMap("tags")})
				if err != nil {
					return "", err
				}
				return *out.QueueUrl, nil
			},
			read: readQueue,
			update: func(ctx context.Context, c *Cloud, id string, old, in props) error {
				if in.has("redrivePolicy") {
					if err := dlqAllows(ctx, c, in.get("redrivePolicy"), id); err != nil {
						return err
					}
				}
				if err := setQueueAttributes(ctx, c, id, queueAttributes(in)); err != nil {
					return err
				}
				if gone := goneTags(old, in); len(gone) > 0 {
					if _, err := c.sqs.UntagQueue(ctx, &sqs.UntagQueueInput{QueueUrl: &id, TagKeys: gone}); err != nil {
						return err
					}
				}
				_, err := c.sqs.TagQueue(ctx, &sqs.TagQueueInput{QueueUrl: &id, Tags: in.textMap("tags")})
				return err
			},
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				_, err := c.sqs.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &id})
				return queueGone(err)
			},
		},
		"aws:sqs/queuePolicy:QueuePolicy": queueAttribute("policy", policyAttribute, schema{
			args: argsOf[pulumisqs.QueuePolicyArgs](), state: reflect.TypeFor[pulumisqs.QueuePolicy](),
			required: []string{"policy"}, rules: map[string]rule{"policy": isPolicy, "queueUrl": matches(`https?://.+`, 500)},
		}, nil),
		"aws:sqs/redriveAllowPolicy:RedriveAllowPolicy": queueAttribute("redriveAllowPolicy", allowAttribute, schema{
			args: argsOf[pulumisqs.RedriveAllowPolicyArgs](), state: reflect.TypeFor[pulumisqs.RedriveAllowPolicy](),
			rules: map[string]rule{"redriveAllowPolicy": isRedriveAllowPolicy, "queueUrl": matches(`https?://.+`, 500)},
		}, nil),
		"aws:sqs/redrivePolicy:RedrivePolicy": queueAttribute("redrivePolicy", "RedrivePolicy", schema{
			args: argsOf[pulumisqs.RedrivePolicyArgs](), state: reflect.TypeFor[pulumisqs.RedrivePolicy](),
			rules: map[string]rule{"redrivePolicy": isRedrivePolicy, "queueUrl": matches(`https?://.+`, 500)},
		}, dlqAllows),
	}
}

// queueAttributes are the attributes that the inputs ask for; what they leave
// out gets AWS's default, so that taking an input away takes it back.
func queueAttributes(in props) map[string]string {
	attributes := map[string]string{
		"VisibilityTimeout": "30", "MessageRetentionPeriod": "345600", "ReceiveMessageWaitTimeSeconds": "0",
		"DelaySeconds":       "0",
		"MaximumMessageSize": "262144", "SqsManagedSseEnabled": strconv.FormatBool(in.flag("sqsManagedSseEnabled")),
	}
	for name, n := range queueNumbers {
		if in.has(name) {
			attributes[n.attribute] = strconv.Itoa(int(in.number(name)))
		}
	}
	if in.has("redrivePolicy") {
		attributes["RedrivePolicy"] = in.text("redrivePolicy")
	}
	if in.has("kmsMasterKeyId") {
		attributes["KmsMasterKeyId"] = in.text("kmsMasterKeyId")
	}
	return attributes
}

func readQueue(ctx context.Context, c *Cloud, id string, in props) (props, error) {
	out, err := c.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &id,
		AttributeNames: []types.QueueAttributeName{"All"}})
	if err != nil {
		return props{}, queueGone(err)
	}
	arn := out.Attributes["QueueArn"]
	values := map[string]any{"arn": arn, "url": id, "name": arn[strings.LastIndex(arn, ":")+1:]}
	for name, n := range queueNumbers {
		if v, err := strconv.Atoi(out.Attributes[n.attribute]); err == nil {
			values[name] = v
		}
	}
	if v := out.Attributes["RedrivePolicy"]; v != "" || in.has("redrivePolicy") {
		values["redrivePolicy"] = v
	}
	if v, ok := out.Attributes["SqsManagedSseEnabled"]; ok {
		values["sqsManagedSseEnabled"] = v == "true"
	}
	tags, err := c.sqs.ListQueueTags(ctx, &sqs.ListQueueTagsInput{QueueUrl: &id})
	if err != nil {
		return props{}, queueGone(err)
	}
	if len(tags.Tags) > 0 {
		values["tags"] = anyMap(tags.Tags)
	}
	return outputs(values), nil
}

// queueAttribute is a resource that is one attribute of a queue.
func queueAttribute(input, attribute string, s schema, allowed func(ctx context.Context, c *Cloud, policy any,
	queue string) error) resourceType {
	set := func(ctx context.Context, c *Cloud, id string, in props) error {
		if allowed != nil {
			if err := allowed(ctx, c, in.get(input), id); err != nil {
				return err
			}
		}
		return setQueueAttribute(ctx, c, id, attribute, jsonText(in.get(input)))
	}
	return resourceType{
		schema: s, fixed: []string{"queueUrl"},
		create: func(ctx context.Context, c *Cloud, in props) (string, error) {
			id := in.text("queueUrl")
			return id, set(ctx, c, id, in)
		},
		read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
			v, err := getQueueAttribute(ctx, c, id, attribute)
			if err != nil {
				return props{}, queueGone(err)
			}
			if v == "" {
				return props{}, errGone
			}
			return outputs(map[string]any{input: v, "queueUrl": id}), nil
		},
		update: func(ctx context.Context, c *Cloud, id string, _, in props) error { return set(ctx, c, id, in) },
		remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
			return queueGone(setQueueAttribute(ctx, c, id, attribute, ""))
		},
	}
}

const (
	policyAttribute = "Policy"
	// allowAttribute says which queues may use a queue as their dead letter queue.
	// moto has no room for it.
	allowAttribute = "RedriveAllowPolicy"
)

func setQueueAttribute(ctx context.Context, c *Cloud, url, name, value string) error {
	if name == allowAttribute {
		_, err := getQueueAttribute(ctx, c, url, "QueueArn") // the queue is there
		c.kept.Store(url, value)
		return err
	}
	return setQueueAttributes(ctx, c, url, map[string]string{name: value})
}

// setQueueAttributes sets the policy each time: moto forgets it when any other
// attribute is set.
func setQueueAttributes(ctx context.Context, c *Cloud, url string, attributes map[string]string) error {
	if _, ok := attributes[policyAttribute]; !ok {
		text, err := getQueueAttribute(ctx, c, url, policyAttribute)
		if err != nil {
			return err
		}
		if text != "" {
			attributes[policyAttribute] = text
		}
	}
	_, err := c.sqs.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: attributes})
	return err
}

func getQueueAttribute(ctx context.Context, c *Cloud, url, name string) (string, error) {
	out, err := c.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url,
		AttributeNames: []types.QueueAttributeName{"All"}})
	if err != nil {
		return "", err
	}
	if v, ok := c.kept.Load(url); ok && name == allowAttribute {
		return v.(string), nil
	}
	return out.Attributes[name], nil
}

func queueGone(err error) error {
	var api smithy.APIError
	if errors.As(err, &api) && strings.Contains(api.ErrorCode(), "NonExistentQueue") ||
		errors.As(err, new(*types.QueueDoesNotExist)) {
		return errGone
	}
	return err
}

type redrivePolicy struct {
	DeadLetterTargetARN string `json:"deadLetterTargetArn"`
	MaxReceiveCount     int    `json:"maxReceiveCount"`
}

type redriveAllowPolicy struct {
	RedrivePermission string   `json:"redrivePermission"`
	SourceQueueARNs   []string `json:"sourceQueueArns"`
}

func isRedrivePolicy(v any) string {
	var p redrivePolicy
	if err := strictJSON(v, &p); err != nil {
		return err.Error()
	}
	if problem := arn("sqs")(p.DeadLetterTargetARN); problem != "" {
		return "deadLetterTargetArn " + problem
	}
	if problem := between(1, 1000)(float64(p.MaxReceiveCount)); problem != "" {
		return "maxReceiveCount " + problem
	}
	return ""
}

func isRedriveAllowPolicy(v any) string {
	var p redriveAllowPolicy
	if err := strictJSON(v, &p); err != nil {
		return err.Error()
	}
	if problem := oneOf("allowAll", "denyAll", "byQueue")(p.RedrivePermission); problem != "" {
		return "redrivePermission " + problem
	}
	if (p.RedrivePermission == "byQueue") != (len(p.SourceQueueARNs) > 0) || len(p.SourceQueueARNs) > 10 {
		return "sourceQueueArns goes with byQueue, and has 1 to 10 queues"
	}
	return ""
}

// dlqAllows refuses, as SQS does, a dead letter queue that does not exist or that
// does not allow this queue, which may be one that is only about to be made.
func dlqAllows(ctx context.Context, c *Cloud, policy any, queue string) error {
	var redrive redrivePolicy
	if err := strictJSON(policy, &redrive); err != nil {
		return err
	}
	name := redrive.DeadLetterTargetARN[strings.LastIndex(redrive.DeadLetterTargetARN, ":")+1:]
	dlq, err := c.sqs.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return fmt.Errorf("dead letter queue %s: %w", name, err)
	}
	text, err := getQueueAttribute(ctx, c, *dlq.QueueUrl, allowAttribute)
	if err != nil || text == "" {
		return err
	}
	var allow redriveAllowPolicy
	if err := strictJSON(text, &allow); err != nil {
		return err
	}
	source := ""
	if queue != "" {
		if source, err = getQueueAttribute(ctx, c, queue, "QueueArn"); err != nil {
			return err
		}
	}
	if allow.RedrivePermission == "allowAll" || allow.RedrivePermission == "byQueue" &&
		slices.Contains(allow.SourceQueueARNs, source) {
		return nil
	}
	return fmt.Errorf("dead letter queue %s does not allow the queue %q", name, source)
}

func strictJSON(v any, into any) error {
	d := json.NewDecoder(strings.NewReader(jsonText(v)))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// jsonText is a policy as text; some SDK types take it as an object too.
func jsonText(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	text, _ := json.Marshal(v)
	return string(text)
}

func anyMap(m map[string]string) map[string]any {
	a := map[string]any{}
	for k, v := range m {
		a[k] = v
	}
	return a
}
