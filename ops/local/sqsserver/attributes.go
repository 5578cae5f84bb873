package sqsserver

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// allowed reports whether SQS takes a text: XML 1.0's characters.
func allowed(text string) bool {
	for _, r := range text {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return false
		}
	}
	return true
}

func attributesSize(attributes map[string]Attribute) int {
	n := 0
	for name, a := range attributes {
		n += len(name) + len(a.DataType) + len(a.BinaryValue)
		if a.StringValue != nil {
			n += len(*a.StringValue)
		}
	}
	return n
}

var attributeName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

func checkAttributes(attributes map[string]Attribute) *apiError {
	if len(attributes) > 10 {
		return errParameter("Number of message attributes [%d] exceeds the allowed maximum [10].", len(attributes))
	}
	for name, a := range attributes {
		kind, _, _ := strings.Cut(a.DataType, ".")
		lower := strings.ToLower(name)
		switch {
		case !attributeName.MatchString(name) || len(name) > 256 || strings.HasPrefix(lower, "aws.") ||
			strings.HasPrefix(lower, "amazon."):
			return errParameter("The message attribute name '%s' is invalid.", name)
		case kind != "String" && kind != "Number" && kind != "Binary":
			return errParameter("The type of message (user) attribute '%s' is invalid. You must use only the following "+
				"supported type prefixes: Binary, Number, String.", name)
		case kind == "Binary" && len(a.BinaryValue) == 0, kind != "Binary" && (a.StringValue == nil || *a.StringValue == ""):
			return errParameter("The message (user) attribute '%s' must contain a non-empty value of type %s.", name, kind)
		case kind == "String" && !allowed(*a.StringValue):
			return errContents
		}
		if kind == "Number" {
			if _, err := strconv.ParseFloat(*a.StringValue, 64); err != nil {
				return errParameter("Can't cast the value of message (user) attribute '%s' to a number.", name)
			}
		}
	}
	return nil
}

// attributesMD5 is the digest that SDKs check.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html#sqs-attributes-md5-message-digest-calculation
func attributesMD5(attributes map[string]Attribute) string {
	var b bytes.Buffer
	part := func(p []byte) {
		_ = binary.Write(&b, binary.BigEndian, uint32(len(p)))
		b.Write(p)
	}
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		a := attributes[name]
		part([]byte(name))
		part([]byte(a.DataType))
		if strings.HasPrefix(a.DataType, "Binary") {
			b.WriteByte(2)
			part(a.BinaryValue)
		} else {
			b.WriteByte(1)
			part([]byte(*a.StringValue))
		}
	}
	return md5Hex(b.Bytes())
}

const traceAttribute = "AWSTraceHeader" // the one system attribute that a sender may set

func traceHeader(attributes map[string]Attribute) (string, *apiError) {
	for name, a := range attributes {
		switch {
		case name != traceAttribute:
			return "", errParameter("Message system attribute name '%s' is invalid: a sender can set AWSTraceHeader only.",
				name)
		case a.DataType != "String" || a.StringValue == nil || *a.StringValue == "" || !allowed(*a.StringValue):
			return "", errParameter("The message system attribute '%s' must contain a non-empty value of type String.", name)
		}
		return *a.StringValue, nil
	}
	return "", nil
}

// receivable are the system attributes that a receive may ask for. Two of them are of FIFO
// queues, and no message here has them.
var receivable = []string{"All", "SenderId", "SentTimestamp", "ApproximateReceiveCount",
	"ApproximateFirstReceiveTimestamp",
	"DeadLetterQueueSourceArn", "MessageGroupId", traceAttribute, "MessageDeduplicationId", "SequenceNumber"}

// number is an attribute of a queue that is one, with its range.
type number struct {
	low, high int
	get       func(*Queue) int
	set       func(*Queue, int)
}

func seconds(low, high int, of func(*Queue) *time.Duration) number {
	return number{low, high, func(q *Queue) int { return int(of(q).Seconds()) },
		func(q *Queue, n int) { *of(q) = time.Duration(n) * time.Second }}
}

var numbers = map[string]number{
	"VisibilityTimeout":             seconds(0, 43200, func(q *Queue) *time.Duration { return &q.Visibility }),
	"MessageRetentionPeriod":        seconds(60, 1209600, func(q *Queue) *time.Duration { return &q.Retention }),
	"DelaySeconds":                  seconds(0, 900, func(q *Queue) *time.Duration { return &q.Delay }),
	"ReceiveMessageWaitTimeSeconds": seconds(0, 20, func(q *Queue) *time.Duration { return &q.Wait }),
	"MaximumMessageSize": {1024, maxMessage, func(q *Queue) int { return q.MaxSize },
		func(q *Queue, n int) { q.MaxSize = n }},
}

// unsupported are attributes of SQS that the local queue does not have. They can be
// read, as those of a queue that was never given one, and set to what that means.
var unsupported = []string{"Policy", "RedriveAllowPolicy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds",
	"SqsManagedSseEnabled", "FifoQueue", "ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit"}

// setAttributes sets attributes in a queue's properties; the lock is held.
func (s *Server) setAttributes(q *Queue, attributes map[string]string) error {
	for name, value := range attributes {
		if number, ok := numbers[name]; ok {
			n, err := strconv.Atoi(value)
			if err != nil || n < number.low || n > number.high {
				return &apiError{shape: "InvalidAttributeValue",
					message: fmt.Sprintf("Invalid value for the parameter %s: it must be from %d to %d.", name, number.low,
						number.high)}
			}
			number.set(q, n)
			continue
		}
		switch {
		case name == "RedrivePolicy" && value == "":
			q.DeadLetter, q.MaxReceives = "", 0
		case name == "RedrivePolicy":
			var policy struct {
				DeadLetterTargetArn string          `json:"deadLetterTargetArn"`
				MaxReceiveCount     json.RawMessage `json:"maxReceiveCount"`
			}
			if err := json.Unmarshal([]byte(value), &policy); err != nil {
				return errParameter("Value %s for parameter RedrivePolicy is invalid. Reason: Redrive policy is not a valid "+
					"JSON map.", value)
			}
			n, err := strconv.Atoi(strings.Trim(string(policy.MaxReceiveCount), `"`))
			target := policy.DeadLetterTargetArn[strings.LastIndex(policy.DeadLetterTargetArn, ":")+1:]
			if err != nil || n < 1 || n > 1000 || s.queues[target] == nil {
				return errParameter("Value %s for parameter RedrivePolicy is invalid. Reason: Dead letter target does not "+
					"exist, or maxReceiveCount is not from 1 to 1000.", value)
			}
			q.DeadLetter, q.MaxReceives = target, n
		case !slices.Contains(unsupported, name):
			return errAttribute(name)
		case value != "" && value != "false":
			return older("UnsupportedOperation", "The local queue does not do "+name+".")
		}
	}
	return nil
}

// tag adds tags to a queue's properties, within SQS's limits.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-queue-tags.html
func (q *Queue) tag(tags map[string]string) error {
	all := map[string]string{} // another map: the old one is what the queue still has
	maps.Copy(all, q.Tags)
	for key, value := range tags {
		if key == "" || utf8.RuneCountInString(key) > 128 || utf8.RuneCountInString(value) > 256 ||
			strings.HasPrefix(strings.ToLower(key), "aws:") {
			return errParameter("The tag %s is invalid: a key has 1 to 128 characters and does not begin with aws:, "+
				"a value has 256 at most.", key)
		}
		all[key] = value
	}
	if len(all) > 50 {
		return errParameter("Too many tags added for the queue: it can have 50.")
	}
	q.Tags = all
	return nil
}

func (s *Server) getAttributes(q *queue, in *request) (any, error) {
	n := q.counts(s.now())
	if s.options.Lag > 0 {
		n = q.countsBefore(s.now(), s.options.Lag)
	}
	all := map[string]string{
		"QueueArn":                              s.arn(q.Name),
		"ApproximateNumberOfMessages":           strconv.Itoa(n.visible),
		"ApproximateNumberOfMessagesNotVisible": strconv.Itoa(n.inFlight),
		"ApproximateNumberOfMessagesDelayed":    strconv.Itoa(n.delayed),
		"CreatedTimestamp":                      strconv.FormatInt(q.Created.Unix(), 10),
		"LastModifiedTimestamp":                 strconv.FormatInt(q.Modified.Unix(), 10),
		"SqsManagedSseEnabled":                  "false",
	}
	for name, number := range numbers {
		all[name] = strconv.Itoa(number.get(&q.Queue))
	}
	if q.DeadLetter != "" {
		policy, _ := json.Marshal(map[string]any{"deadLetterTargetArn": s.arn(q.DeadLetter),
			"maxReceiveCount": q.MaxReceives})
		all["RedrivePolicy"] = string(policy)
	}
	out := map[string]string{}
	for _, name := range in.AttributeNames {
		_, known := all[name]
		if !known && name != "All" && name != "RedrivePolicy" && !slices.Contains(unsupported, name) {
			return nil, errAttribute(name)
		}
	}
	for name, value := range all {
		if wants(in.AttributeNames, name) {
			out[name] = value
		}
	}
	return map[string]any{"Attributes": out}, nil
}

func (s *Server) putAttributes(q *queue, in *request) (any, error) {
	changed := q.Queue
	if err := s.setAttributes(&changed, in.Attributes); err != nil {
		return nil, err
	}
	return nil, s.define(changed)
}

func (s *Server) tagQueue(q *queue, in *request) (any, error) {
	changed := q.Queue
	if err := changed.tag(in.Tags); err != nil {
		return nil, err
	}
	return nil, s.define(changed)
}

func (s *Server) untagQueue(q *queue, in *request) (any, error) {
	changed := q.Queue
	changed.Tags = maps.Clone(q.Tags)
	for _, key := range in.TagKeys {
		delete(changed.Tags, key)
	}
	return nil, s.define(changed)
}

func (s *Server) listTags(q *queue, in *request) (any, error) {
	return map[string]any{"Tags": q.Tags}, nil
}
