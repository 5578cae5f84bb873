package sqsserver

import (
	"context"
	"slices"
	"strings"
	"time"
)

// perMessage is what an operation does for one message: the change, which may be none, and the answer.
type perMessage func(*Server, *queue, entry) (change, map[string]string, *apiError)

// one is an operation on one message.
func one(do perMessage) func(*Server, *queue, *request) (any, error) {
	return func(s *Server, q *queue, in *request) (any, error) {
		c, out, bad := do(s, q, in.entry)
		if bad != nil {
			return nil, bad
		}
		return out, s.commit(c)
	}
}

func (s *Server) send(q *queue, e entry) (change, map[string]string, *apiError) {
	m, bad := s.newMessage(q, e)
	if bad != nil {
		return change{}, nil, bad
	}
	out := map[string]string{"MessageId": m.ID, "MD5OfMessageBody": md5Hex([]byte(m.Body))}
	if len(m.Attributes) > 0 {
		out["MD5OfMessageAttributes"] = attributesMD5(m.Attributes)
	}
	if m.Trace != "" {
		out["MD5OfMessageSystemAttributes"] = attributesMD5(map[string]Attribute{traceAttribute: {DataType: "String",
			StringValue: &m.Trace}})
	}
	return change{Queue: q.Name, Put: m}, out, nil
}

// newMessage makes a message of an entry; the lock is held.
func (s *Server) newMessage(q *queue, e entry) (*message, *apiError) {
	if e.MessageBody == nil || *e.MessageBody == "" {
		return nil, errMissing("MessageBody")
	}
	if !allowed(*e.MessageBody) {
		return nil, errContents
	}
	if len(*e.MessageBody)+attributesSize(e.MessageAttributes) > q.MaxSize {
		return nil, errParameter("One or more parameters are invalid. Reason: Message must be shorter than %d bytes.",
			q.MaxSize)
	}
	if err := checkAttributes(e.MessageAttributes); err != nil {
		return nil, err
	}
	trace, err := traceHeader(e.MessageSystemAttributes)
	if err != nil {
		return nil, err
	}
	switch {
	case e.MessageDeduplicationId != "":
		return nil, errParameter("The local queue has no FIFO queues, and MessageDeduplicationId is for those.")
	case e.MessageGroupId != "" && (len(e.MessageGroupId) > maxGroup || !printable.MatchString(e.MessageGroupId)):
		return nil, errParameter(
			"MessageGroupId can only include alphanumeric and punctuation characters. 1 to 128 in length")
	}
	delay, err := integer("DelaySeconds", e.DelaySeconds, int(q.Delay.Seconds()), 0, maxDelay)
	if err != nil {
		return nil, err
	}
	now := s.now()
	s.order++
	return &message{ID: NewID(), Body: *e.MessageBody, Attributes: e.MessageAttributes, Sent: now,
		Visible: now.Add(time.Duration(delay) * time.Second), Order: s.order, Group: e.MessageGroupId, Trace: trace}, nil
}

// batch is an operation on one message for each entry. It journals all at once, and answers for each.
func batch(do perMessage) func(*Server, *queue, *request) (any, error) {
	return func(s *Server, q *queue, in *request) (any, error) {
		switch {
		case len(in.Entries) == 0:
			return nil, errEmptyBatch
		case len(in.Entries) > maxBatch:
			return nil, errLongBatch
		}
		ids, size := map[string]bool{}, 0
		for _, e := range in.Entries {
			if !isShortName(e.Id) {
				return nil, errBatchID
			}
			if ids[e.Id] {
				return nil, errSameIDs
			}
			ids[e.Id] = true
			if e.MessageBody != nil {
				size += len(*e.MessageBody) + attributesSize(e.MessageAttributes)
			}
		}
		if size > maxMessage {
			return nil, errBatchSize
		}
		var changes []change
		successful, failed := []any{}, []any{}
		for _, e := range in.Entries {
			c, out, bad := do(s, q, e)
			if bad != nil {
				failed = append(failed, map[string]any{"Id": e.Id, "SenderFault": true, "Code": bad.oldCode(),
					"Message": bad.message})
				continue
			}
			out["Id"] = e.Id
			changes, successful = append(changes, c), append(successful, out)
		}
		return map[string]any{"Successful": successful, "Failed": failed}, s.commit(changes...)
	}
}

func (s *Server) receiveMessages(ctx context.Context, in *request) (any, error) {
	limit, bad := integer("MaxNumberOfMessages", in.MaxNumberOfMessages, 1, 1, maxBatch)
	if bad != nil {
		return nil, bad
	}
	system := append(in.AttributeNames, in.MessageSystemAttributeNames...)
	for _, name := range system {
		if !slices.Contains(receivable, name) {
			return nil, errAttribute(name)
		}
	}
	var hide *time.Duration
	if in.VisibilityTimeout != nil {
		d, err := visibility(in.VisibilityTimeout)
		if err != nil {
			return nil, err
		}
		hide = &d
	}
	s.mu.Lock()
	q, err := s.find(in.QueueUrl)
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	name := q.Name
	wait, bad := integer("WaitTimeSeconds", in.WaitTimeSeconds, int(q.Wait.Seconds()), 0, int(maxWait.Seconds()))
	s.mu.Unlock()
	if bad != nil {
		return nil, bad
	}
	ctx, cancel := context.WithTimeout(ctx, min(time.Duration(wait)*time.Second, s.options.MaxWait))
	defer cancel()
	list, err := s.receive(ctx, name, receipt{limit: limit, visibility: hide})
	if err != nil {
		return nil, err
	}
	messages := []any{}
	for _, m := range list {
		out := map[string]any{"MessageId": m.ID, "ReceiptHandle": m.Handle, "Body": m.Body,
			"MD5OfBody": md5Hex([]byte(m.Body))}
		known := map[string]string{}
		for name, value := range s.systemAttributes(m) {
			if wants(system, name) {
				known[name] = value
			}
		}
		if len(known) > 0 {
			out["Attributes"] = known
		}
		chosen := map[string]Attribute{}
		for name, value := range m.Attributes {
			if wants(in.MessageAttributeNames, name) {
				chosen[name] = value
			}
		}
		if len(chosen) > 0 {
			out["MessageAttributes"], out["MD5OfMessageAttributes"] = chosen, attributesMD5(chosen)
		}
		messages = append(messages, out)
	}
	return map[string]any{"Messages": messages}, nil
}

// wants reports whether a list of names asks for one: All, .*, a name, or the beginning of one and .*.
func wants(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		prefix, ok := strings.CutSuffix(n, ".*")
		return n == "All" || n == name || ok && strings.HasPrefix(name, prefix)
	})
}

func visibility(seconds *int) (time.Duration, *apiError) {
	if seconds == nil {
		return 0, errMissing("VisibilityTimeout")
	}
	n, err := integer("VisibilityTimeout", seconds, 0, 0, maxVisibility)
	return time.Duration(n) * time.Second, err
}

// remove changes nothing if the message is gone or was received again since.
func (s *Server) remove(q *queue, e entry) (c change, out map[string]string, bad *apiError) {
	if e.ReceiptHandle == "" {
		return c, nil, errMissing("ReceiptHandle")
	}
	if !strings.HasPrefix(e.ReceiptHandle, q.Name+".") {
		return c, nil, errBadHandle
	}
	if m := q.byHandle[e.ReceiptHandle]; m != nil {
		c = change{Queue: q.Name, Remove: m.ID}
	}
	return c, map[string]string{}, nil
}

// changeVisibility sets from when on a message in flight is visible again.
func (s *Server) changeVisibility(q *queue, e entry) (c change, out map[string]string, bad *apiError) {
	d, bad := visibility(e.VisibilityTimeout)
	if bad != nil {
		return c, nil, bad
	}
	now, m := s.now(), q.byHandle[e.ReceiptHandle]
	if m == nil {
		return c, nil, errBadHandle
	}
	if !m.inFlight(now) {
		return c, nil, errNotInFlight
	}
	next := *m
	next.Visible = now.Add(d)
	if d == 0 {
		next.Handle = ""
	}
	return change{Queue: q.Name, Put: &next}, map[string]string{}, nil
}
