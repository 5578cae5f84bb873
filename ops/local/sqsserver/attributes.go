package sqsserver

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
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
		return errParameter("Number of message attributes [" + strconv.Itoa(len(attributes)) + "] exceeds the allowed maximum [10].")
	}
	for name, a := range attributes {
		kind, _, _ := strings.Cut(a.DataType, ".")
		lower := strings.ToLower(name)
		switch {
		case !attributeName.MatchString(name) || len(name) > 256 || strings.HasPrefix(lower, "aws.") || strings.HasPrefix(lower, "amazon."):
			return errParameter("The message attribute name '" + name + "' is invalid.")
		case kind != "String" && kind != "Number" && kind != "Binary":
			return errParameter("The type of message (user) attribute '" + name + "' is invalid. You must use only the following supported type prefixes: Binary, Number, String.")
		case kind == "Binary" && len(a.BinaryValue) == 0, kind != "Binary" && (a.StringValue == nil || *a.StringValue == ""):
			return errParameter("The message (user) attribute '" + name + "' must contain a non-empty value of type " + kind + ".")
		case kind == "String" && !allowed(*a.StringValue):
			return errContents
		}
		if kind == "Number" {
			if _, err := strconv.ParseFloat(*a.StringValue, 64); err != nil {
				return errParameter("Can't cast the value of message (user) attribute '" + name + "' to a number.")
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

// The attributes of a queue that are numbers of seconds, with their ranges.
var seconds = map[string]struct {
	low, high int
	of        func(*Queue) *time.Duration
}{
	"VisibilityTimeout":      {0, 43200, func(q *Queue) *time.Duration { return &q.Visibility }},
	"MessageRetentionPeriod": {60, 1209600, func(q *Queue) *time.Duration { return &q.Retention }},
	"DelaySeconds":           {0, 900, func(q *Queue) *time.Duration { return &q.Delay }},
}

// ignored are attributes that a client may set and that mean nothing here.
var ignored = []string{"Policy", "MaximumMessageSize", "ReceiveMessageWaitTimeSeconds", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds", "SqsManagedSseEnabled", "RedriveAllowPolicy"}

// setAttributes sets attributes in a queue's properties; the lock is held.
func (s *Server) setAttributes(q *Queue, attributes map[string]string) error {
	for name, value := range attributes {
		if number, ok := seconds[name]; ok {
			n, err := strconv.Atoi(value)
			if err != nil || n < number.low || n > number.high {
				return &apiError{shape: "InvalidAttributeValue", message: "Invalid value for the parameter " + name + "."}
			}
			*number.of(q) = time.Duration(n) * time.Second
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
				return errParameter("Value " + value + " for parameter RedrivePolicy is invalid. Reason: Redrive policy is not a valid JSON map.")
			}
			n, err := strconv.Atoi(strings.Trim(string(policy.MaxReceiveCount), `"`))
			target := policy.DeadLetterTargetArn[strings.LastIndex(policy.DeadLetterTargetArn, ":")+1:]
			if err != nil || n < 1 || n > 1000 || s.queues[target] == nil {
				return errParameter("Value " + value + " for parameter RedrivePolicy is invalid. Reason: Dead letter target does not exist, or maxReceiveCount is not from 1 to 1000.")
			}
			q.DeadLetter, q.MaxReceives = target, n
		case !slices.Contains(ignored, name):
			return &apiError{shape: "InvalidAttributeName", message: "Unknown Attribute " + name + "."}
		}
	}
	return nil
}
