package sqsserver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

func (s *Server) sendMessage(q *queue, in *request) (any, error) {
	m, bad := s.newMessage(q, in.entry)
	if bad != nil {
		return nil, bad
	}
	if err := s.commit(change{Queue: q.Name, Put: m}); err != nil {
		return nil, err
	}
	return sent("", m), nil
}

func (s *Server) sendBatch(q *queue, in *request) (any, error) {
	size := 0
	for _, e := range in.Entries {
		if e.MessageBody != nil {
			size += len(*e.MessageBody) + attributesSize(e.MessageAttributes)
		}
	}
	if size > maxMessage {
		return nil, errBatchSize
	}
	return s.batch(q, in, func(e entry) (change, any, *apiError) {
		m, bad := s.newMessage(q, e)
		if bad != nil {
			return change{}, nil, bad
		}
		return change{Queue: q.Name, Put: m}, sent(e.Id, m), nil
	})
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
		return nil, errParameter(
			fmt.Sprintf("One or more parameters are invalid. Reason: Message must be shorter than %d bytes.", q.MaxSize))
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

func sent(id string, m *message) map[string]string {
	out := map[string]string{"MessageId": m.ID, "MD5OfMessageBody": md5Hex([]byte(m.Body))}
	if len(m.Attributes) > 0 {
		out["MD5OfMessageAttributes"] = attributesMD5(m.Attributes)
	}
	if m.Trace != "" {
		out["MD5OfMessageSystemAttributes"] = attributesMD5(map[string]Attribute{traceAttribute: {DataType: "String",
			StringValue: &m.Trace}})
	}
	if id != "" {
		out["Id"] = id
	}
	return out
}

// batch does one thing for each entry, journals it all at once, and answers for
// each.
func (s *Server) batch(q *queue, in *request, do func(entry) (change, any, *apiError)) (any, error) {
	switch {
	case len(in.Entries) == 0:
		return nil, errEmptyBatch
	case len(in.Entries) > maxBatch:
		return nil, errLongBatch
	}
	ids := map[string]bool{}
	for _, e := range in.Entries {
		if !isShortName(e.Id) {
			return nil, errBatchID
		}
		if ids[e.Id] {
			return nil, errSameIDs
		}
		ids[e.Id] = true
	}
	var changes []change
	successful, failed := []any{}, []any{}
	for _, e := range in.Entries {
		c, out, bad := do(e)
		if bad != nil {
			code := bad.code
			if code == "" {
				code = bad.shape
			}
			failed = append(failed, map[string]any{"Id": e.Id, "SenderFault": true, "Code": code, "Message": bad.message})
			continue
		}
		if c.Put != nil || c.Remove != "" {
			changes = append(changes, c)
		}
		successful = append(successful, out)
	}
	if err := s.commit(changes...); err != nil {
		return nil, err
	}
	return map[string]any{"Successful": successful, "Failed": failed}, nil
}

func (s *Server) receiveMessages(ctx context.Context, in *request) (any, error) {
	limit, bad := integer("MaxNumberOfMessages", in.MaxNumberOfMessages, 1, 1, maxBatch)
	if bad != nil {
		return nil, bad
	}
	system := append(in.AttributeNames, in.MessageSystemAttributeNames...)
	for _, name := range system {
		if !slices.Contains(systemAttributes, name) {
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
		for name, value := range s.delivery(m).Attributes {
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

// wants reports whether a list of names asks for one: All, .*, a name, or the
// beginning of one and .*.
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

// removal is what a delete of a handle changes: nothing if the message is gone or
// was received again since.
func (s *Server) removal(q *queue, handle string) (change, *apiError) {
	if handle == "" {
		return change{}, errMissing("ReceiptHandle")
	}
	if !strings.HasPrefix(handle, q.Name+".") {
		return change{}, errBadHandle
	}
	if m := q.byHandle[handle]; m != nil {
		return change{Queue: q.Name, Remove: m.ID}, nil
	}
	return change{}, nil
}

func (s *Server) deleteMessage(q *queue, in *request) (any, error) {
	c, bad := s.removal(q, in.ReceiptHandle)
	if bad != nil {
		return nil, bad
	}
	if c.Remove == "" {
		return nil, nil
	}
	return nil, s.commit(c)
}

func (s *Server) deleteBatch(q *queue, in *request) (any, error) {
	return s.batch(q, in, func(e entry) (change, any, *apiError) {
		c, bad := s.removal(q, e.ReceiptHandle)
		return c, map[string]string{"Id": e.Id}, bad
	})
}

func (s *Server) changeMessageVisibility(q *queue, in *request) (any, error) {
	d, bad := visibility(in.VisibilityTimeout)
	if bad != nil {
		return nil, bad
	}
	c, bad := s.changeVisibility(q, in.ReceiptHandle, d)
	if bad != nil {
		return nil, bad
	}
	return nil, s.commit(c)
}

func (s *Server) changeVisibilityBatch(q *queue, in *request) (any, error) {
	return s.batch(q, in, func(e entry) (change, any, *apiError) {
		d, bad := visibility(e.VisibilityTimeout)
		if bad != nil {
			return change{}, nil, bad
		}
		c, bad := s.changeVisibility(q, e.ReceiptHandle, d)
		return c, map[string]string{"Id": e.Id}, bad
	})
}
