package sqsserver

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

func (s *Server) getAttributes(q *queue, in *request) (any, error) {
	visible, inFlight, delayed := q.counts(s.now())
	if s.options.Lag > 0 {
		visible, inFlight, delayed = q.countsBefore(s.now(), s.options.Lag)
	}
	all := map[string]string{
		"QueueArn":                              s.arn(q.Name),
		"ApproximateNumberOfMessages":           strconv.Itoa(visible),
		"ApproximateNumberOfMessagesNotVisible": strconv.Itoa(inFlight),
		"ApproximateNumberOfMessagesDelayed":    strconv.Itoa(delayed),
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
