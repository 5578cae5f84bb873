package sqsserver

import (
	"context"
	"encoding/json"
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
	all := map[string]string{
		"QueueArn":                              s.arn(q.Name),
		"ApproximateNumberOfMessages":           strconv.Itoa(visible),
		"ApproximateNumberOfMessagesNotVisible": strconv.Itoa(inFlight),
		"ApproximateNumberOfMessagesDelayed":    strconv.Itoa(delayed),
		"MaximumMessageSize":                    strconv.Itoa(maxMessage),
		"ReceiveMessageWaitTimeSeconds":         "0",
	}
	for name, number := range seconds {
		all[name] = strconv.Itoa(int(number.of(&q.Queue).Seconds()))
	}
	if q.DeadLetter != "" {
		policy, _ := json.Marshal(map[string]any{"deadLetterTargetArn": s.arn(q.DeadLetter), "maxReceiveCount": q.MaxReceives})
		all["RedrivePolicy"] = string(policy)
	}
	out := map[string]string{}
	for _, name := range in.AttributeNames {
		_, known := all[name]
		if !known && name != "All" && name != "RedrivePolicy" && !strings.HasSuffix(name, "Timestamp") && !slices.Contains(ignored, name) {
			return nil, &apiError{shape: "InvalidAttributeName", message: "Unknown Attribute " + name + "."}
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
	return nil, s.commit(change{Queue: q.Name, Define: &changed})
}

// move is a message move task: it takes what is in a dead letter queue back to
// where it came from. It ends with the process; what was not moved by then is
// still in its queue, and the task can be started again.
type move struct {
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

var errNoMove = &apiError{shape: "ResourceNotFoundException", message: "The resource that you specified for the SourceArn parameter doesn't exist."}

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
			return nil, &apiError{shape: "UnsupportedOperation", code: "AWS.SimpleQueueService.UnsupportedOperation", message: "There is already a task running. Only one active task is allowed for a source queue arn at a given time."}
		}
	}
	ctx, cancel := context.WithCancel(s.context)
	m := &move{handle: token(), source: in.SourceArn, destination: in.DestinationArn, status: "RUNNING", total: len(source.messages), started: s.now(), cancel: cancel}
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
	limit := max(in.MaxResults, 1)
	results := []any{}
	for _, m := range s.moves {
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
