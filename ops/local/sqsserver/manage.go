package sqsserver

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (s *Server) apiGetAttributes(_ context.Context, in *request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	visible, inFlight, delayed := q.counts(s.now())
	if s.options.Lag > 0 {
		visible, inFlight, delayed = q.late(s.now(), s.options.Lag)
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
		if !known && name != "All" && name != "RedrivePolicy" && !slices.Contains(undone, name) {
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

func (s *Server) apiSetAttributes(_ context.Context, in *request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	changed := q.Queue
	if err := s.setAttributes(&changed, in.Attributes); err != nil {
		return nil, err
	}
	return nil, s.define(changed)
}

func (s *Server) apiTag(_ context.Context, in *request) (any, error) {
	return nil, s.retag(in, func(q *Queue) error { return q.tag(in.Tags) })
}

func (s *Server) apiUntag(_ context.Context, in *request) (any, error) {
	return nil, s.retag(in, func(q *Queue) error {
		q.Tags = maps.Clone(q.Tags)
		for _, key := range in.TagKeys {
			delete(q.Tags, key)
		}
		return nil
	})
}

func (s *Server) retag(in *request, change func(*Queue) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return err
	}
	changed := q.Queue
	if err := change(&changed); err != nil {
		return err
	}
	return s.define(changed)
}

func (s *Server) apiTags(_ context.Context, in *request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	return map[string]any{"Tags": q.Tags}, nil
}

// move is a message move task: it takes what is in a dead letter queue back to
// where it came from. It ends with the process; what was not moved by then is
// still in its queue, and the task can be started again.
type move struct {
	number      int // of starting
	handle      string
	source      string // ARN
	destination string // ARN, or "" for where each message came from
	status      string
	moved       int
	total       int
	started     time.Time
	problem     string
	cancel      context.CancelFunc
}

var errNoMove = &apiError{shape: "ResourceNotFoundException",
	message: "The resource that you specified for the SourceArn parameter doesn't exist."}

func (s *Server) queueOf(arn string) *queue { return s.queues[arn[strings.LastIndex(arn, ":")+1:]] }

func (s *Server) apiStartMove(_ context.Context, in *request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	source := s.queueOf(in.SourceArn)
	if source == nil || in.DestinationArn != "" && s.queueOf(in.DestinationArn) == nil {
		return nil, errNoMove
	}
	if in.MaxNumberOfMessagesPerSecond < 0 || in.MaxNumberOfMessagesPerSecond > 500 {
		return nil, errParameter("MaxNumberOfMessagesPerSecond must be from 1 to 500.")
	}
	for _, m := range s.moves {
		if m.source == in.SourceArn && m.status == "RUNNING" {
			return nil, &apiError{shape: "UnsupportedOperation", code: "AWS.SimpleQueueService.UnsupportedOperation",
				message: "There is already a task running. Only one active task is allowed for a source queue arn at a given time."}
		}
	}
	ctx, cancel := context.WithCancel(s.context)
	m := &move{number: len(s.moves), handle: token(), source: in.SourceArn, destination: in.DestinationArn,
		status: "RUNNING", total: len(source.messages), started: s.now(), cancel: cancel}
	s.moves[m.handle] = m
	var pace time.Duration
	if in.MaxNumberOfMessagesPerSecond > 0 {
		pace = time.Second / time.Duration(in.MaxNumberOfMessagesPerSecond)
	}
	s.stopped.Go(func() { s.run(ctx, m, source.Name, pace) })
	return map[string]string{"TaskHandle": m.handle}, nil
}

// run moves message by message; each is in just one queue at every moment.
func (s *Server) run(ctx context.Context, m *move, name string, pace time.Duration) {
	defer m.cancel()
	for {
		s.mu.Lock()
		status, problem := s.moveOne(ctx, m, name)
		if m.status = status; status != "RUNNING" {
			m.problem = problem
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if pace > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(pace):
			}
		}
	}
}

func (s *Server) moveOne(ctx context.Context, m *move, name string) (status, problem string) {
	if ctx.Err() != nil {
		return "CANCELLED", ""
	}
	q := s.queues[name]
	if q == nil {
		return "FAILED", "the source queue was deleted"
	}
	next, _ := q.next(s.now())
	if next == nil {
		return "COMPLETED", ""
	}
	target := m.destination
	if target == "" {
		target = next.Source
	}
	to := s.queueOf(target)
	if to == nil {
		return "FAILED", "AWS.SimpleQueueService.NonExistentQueue"
	}
	copied := *next
	copied.Handle, copied.Receives, copied.First, copied.Source, copied.Visible = "", 0, time.Time{}, "", s.now()
	if err := s.commit(change{Queue: to.Name, Put: &copied}, change{Queue: name, Remove: next.ID}); err != nil {
		return "FAILED", err.Error()
	}
	m.moved++
	return "RUNNING", ""
}

func (s *Server) apiListMoves(_ context.Context, in *request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queueOf(in.SourceArn) == nil {
		return nil, errNoMove
	}
	limit := 1
	if in.MaxResults != nil {
		if limit = *in.MaxResults; limit < 1 || limit > maxBatch {
			return nil, errParameter(
				fmt.Sprintf("Value %d for parameter MaxResults is invalid. Reason: Must be between 1 and 10.", limit))
		}
	}
	results := []any{}
	newest := slices.SortedFunc(maps.Values(s.moves), func(a, b *move) int { return b.number - a.number })
	for _, m := range newest {
		if m.source != in.SourceArn || len(results) >= limit {
			continue
		}
		r := map[string]any{"SourceArn": m.source, "Status": m.status, "ApproximateNumberOfMessagesMoved": m.moved,
			"ApproximateNumberOfMessagesToMove": m.total, "StartedTimestamp": m.started.UnixMilli()}
		if m.status == "RUNNING" {
			r["TaskHandle"] = m.handle
		}
		if m.destination != "" {
			r["DestinationArn"] = m.destination
		}
		if m.problem != "" {
			r["FailureReason"] = m.problem
		}
		results = append(results, r)
	}
	return map[string]any{"Results": results}, nil
}

func (s *Server) apiCancelMove(_ context.Context, in *request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.moves[in.TaskHandle]
	if m == nil || m.status != "RUNNING" {
		return nil, &apiError{shape: "ResourceNotFoundException", message: "The task is not running."}
	}
	m.cancel()
	return map[string]int{"ApproximateNumberOfMessagesMoved": m.moved}, nil
}
