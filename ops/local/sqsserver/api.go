package sqsserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Limits of SQS.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
const (
	maxMessage    = 1 << 20 // bytes of body and attributes
	maxBatch      = 10
	maxDelay      = 15 * time.Minute
	maxVisibility = 12 * time.Hour
	maxWait       = 20 * time.Second
)

// Foreign reports whether a request may have come from a web page through a
// browser on this machine.
func Foreign(r *http.Request) bool { return r.Header.Get("Origin") != "" || !isLoopback(r.Host) }

// ServeHTTP serves the AWS JSON protocol. Signatures are not checked: the
// endpoint listens on loopback only. It refuses web pages, which could reach it
// through a browser on the machine.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if Foreign(r) {
		answer(w, nil, errForeign)
		return
	}
	name, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	if !ok {
		answer(w, nil, errOldProtocol)
		return
	}
	operation := operations[name]
	if operation == nil {
		answer(w, nil, &apiError{shape: "UnsupportedOperation", code: "AWS.SimpleQueueService.UnsupportedOperation", message: "The local queue has no operation " + name + "."})
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4<<20))
	if err != nil {
		answer(w, nil, errParameter("The request is too long or was cut off."))
		return
	}
	var in request
	if err := json.Unmarshal(body, &in); err != nil {
		answer(w, nil, &apiError{shape: "SerializationException", message: "The request is not JSON of this operation: " + err.Error()})
		return
	}
	out, err := operation(s, r.Context(), &in)
	answer(w, out, err)
}

func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

func answer(w http.ResponseWriter, out any, err error) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.Header().Set("X-Amzn-Requestid", NewID())
	if err != nil {
		var e *apiError
		if !errors.As(err, &e) {
			e = &apiError{shape: "InternalFailure", message: err.Error(), status: http.StatusInternalServerError}
		}
		code, fault, status := e.code, "Sender", e.status
		if code == "" {
			code = e.shape
		}
		if status == 0 {
			status = http.StatusBadRequest
		}
		if status >= 500 {
			fault = "Receiver"
		}
		w.Header().Set("X-Amzn-Query-Error", code+";"+fault)
		w.WriteHeader(status)
		out = map[string]string{"__type": "com.amazonaws.sqs#" + e.shape, "message": e.message}
	}
	if out == nil {
		out = struct{}{}
	}
	_ = json.NewEncoder(w).Encode(out) // the client has gone if this fails
}

// request holds the fields of every operation's input.
type request struct {
	QueueUrl                     string
	QueueName                    string
	QueueNamePrefix              string
	MaxResults                   int
	Attributes                   map[string]string
	AttributeNames               []string
	MessageSystemAttributeNames  []string
	MessageAttributeNames        []string
	MessageBody                  *string
	DelaySeconds                 *int
	MessageAttributes            map[string]Attribute
	MessageGroupId               string
	MessageDeduplicationId       string
	MaxNumberOfMessages          *int
	VisibilityTimeout            *int
	WaitTimeSeconds              *int
	ReceiptHandle                string
	Entries                      []entry
	SourceArn, DestinationArn    string
	MaxNumberOfMessagesPerSecond int
	TaskHandle                   string
}

// entry is one entry of a batch.
type entry struct {
	Id                string
	MessageBody       *string
	DelaySeconds      *int
	MessageAttributes map[string]Attribute
	ReceiptHandle     string
	VisibilityTimeout *int
}

var operations = map[string]func(*Server, context.Context, *request) (any, error){
	"CreateQueue":                  (*Server).apiCreateQueue,
	"DeleteQueue":                  (*Server).apiDeleteQueue,
	"GetQueueUrl":                  (*Server).apiGetQueueURL,
	"ListQueues":                   (*Server).apiListQueues,
	"GetQueueAttributes":           (*Server).apiGetAttributes,
	"SetQueueAttributes":           (*Server).apiSetAttributes,
	"SendMessage":                  (*Server).apiSend,
	"SendMessageBatch":             (*Server).apiSendBatch,
	"ReceiveMessage":               (*Server).apiReceive,
	"DeleteMessage":                (*Server).apiDelete,
	"DeleteMessageBatch":           (*Server).apiDeleteBatch,
	"ChangeMessageVisibility":      (*Server).apiVisibility,
	"ChangeMessageVisibilityBatch": (*Server).apiVisibilityBatch,
	"PurgeQueue":                   (*Server).apiPurge,
	"ListDeadLetterSourceQueues":   (*Server).apiSources,
	"StartMessageMoveTask":         (*Server).apiStartMove,
	"ListMessageMoveTasks":         (*Server).apiListMoves,
	"CancelMessageMoveTask":        (*Server).apiCancelMove,
}

// find returns the queue of a URL. Only its last part counts: clients may reach
// the endpoint under several names. The lock is held.
func (s *Server) find(url string) (*queue, error) {
	if url == "" {
		return nil, errMissing("QueueUrl")
	}
	if q := s.queues[url[strings.LastIndex(url, "/")+1:]]; q != nil {
		return q, nil
	}
	return nil, errNoQueue
}

var queueName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$`)

func (s *Server) apiCreateQueue(_ context.Context, in *request) (any, error) {
	if strings.HasSuffix(in.QueueName, ".fifo") || in.Attributes["FifoQueue"] == "true" {
		return nil, &apiError{shape: "UnsupportedOperation", code: "AWS.SimpleQueueService.UnsupportedOperation", message: "The local queue has no FIFO queues."}
	}
	if !queueName.MatchString(in.QueueName) {
		return nil, errParameter("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := newQueue(Queue{Name: in.QueueName}).Queue
	existing := s.queues[in.QueueName]
	if existing != nil {
		q = existing.Queue
	}
	if err := s.setAttributes(&q, in.Attributes); err != nil {
		return nil, err
	}
	out := map[string]string{"QueueUrl": s.url(q.Name)}
	if existing != nil {
		if existing.Queue != q {
			return nil, &apiError{shape: "QueueNameExists", code: "QueueAlreadyExists", message: "A queue already exists with the same name and a different value for an attribute."}
		}
		return out, nil
	}
	return out, s.commit(change{Queue: q.Name, Define: &q})
}

func (s *Server) apiDeleteQueue(_ context.Context, in *request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	return nil, s.commit(change{Queue: q.Name, Drop: true})
}

func (s *Server) apiGetQueueURL(_ context.Context, in *request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queues[in.QueueName] == nil {
		return nil, errNoQueue
	}
	return map[string]string{"QueueUrl": s.url(in.QueueName)}, nil
}

func (s *Server) apiListQueues(_ context.Context, in *request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	urls := []string{}
	for _, name := range slices.Sorted(maps.Keys(s.queues)) {
		if strings.HasPrefix(name, in.QueueNamePrefix) {
			urls = append(urls, s.url(name))
		}
	}
	return map[string]any{"QueueUrls": urls}, nil
}

func (s *Server) apiSources(_ context.Context, in *request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dead, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	urls := []string{}
	for _, name := range slices.Sorted(maps.Keys(s.queues)) {
		if s.queues[name].DeadLetter == dead.Name {
			urls = append(urls, s.url(name))
		}
	}
	return map[string]any{"queueUrls": urls}, nil
}

func (s *Server) apiSend(_ context.Context, in *request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	m, bad := s.newMessage(q, entry{MessageBody: in.MessageBody, DelaySeconds: in.DelaySeconds, MessageAttributes: in.MessageAttributes})
	if bad != nil {
		return nil, bad
	}
	if err := s.commit(change{Queue: q.Name, Put: m}); err != nil {
		return nil, err
	}
	return sent("", m), nil
}

func (s *Server) apiSendBatch(_ context.Context, in *request) (any, error) {
	size := 0
	for _, e := range in.Entries {
		if e.MessageBody != nil {
			size += len(*e.MessageBody) + attributesSize(e.MessageAttributes)
		}
	}
	if size > maxMessage {
		return nil, errBatchSize
	}
	return s.batch(in, func(q *queue, e entry) (change, any, *apiError) {
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
	if len(*e.MessageBody)+attributesSize(e.MessageAttributes) > maxMessage {
		return nil, errParameter(fmt.Sprintf("One or more parameters are invalid. Reason: Message must be shorter than %d bytes.", maxMessage))
	}
	if err := checkAttributes(e.MessageAttributes); err != nil {
		return nil, err
	}
	delay := q.Delay
	if e.DelaySeconds != nil {
		delay = time.Duration(*e.DelaySeconds) * time.Second
		if delay < 0 || delay > maxDelay {
			return nil, errParameter(fmt.Sprintf("Value %d for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900.", *e.DelaySeconds))
		}
	}
	now := s.now()
	s.order++
	return &message{ID: NewID(), Body: *e.MessageBody, Attributes: e.MessageAttributes, Sent: now, Visible: now.Add(delay), Order: s.order}, nil
}

func sent(id string, m *message) map[string]string {
	out := map[string]string{"MessageId": m.ID, "MD5OfMessageBody": md5Hex([]byte(m.Body))}
	if len(m.Attributes) > 0 {
		out["MD5OfMessageAttributes"] = attributesMD5(m.Attributes)
	}
	if id != "" {
		out["Id"] = id
	}
	return out
}

var batchID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$`)

// batch does one thing for each entry, journals it all at once, and answers for
// each.
func (s *Server) batch(in *request, do func(*queue, entry) (change, any, *apiError)) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	switch {
	case len(in.Entries) == 0:
		return nil, errEmptyBatch
	case len(in.Entries) > maxBatch:
		return nil, errLongBatch
	}
	ids := map[string]bool{}
	for _, e := range in.Entries {
		if !batchID.MatchString(e.Id) {
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
		c, out, bad := do(q, e)
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

func (s *Server) apiReceive(ctx context.Context, in *request) (any, error) {
	limit, wait := 1, time.Duration(0)
	if in.MaxNumberOfMessages != nil {
		if limit = *in.MaxNumberOfMessages; limit < 1 || limit > maxBatch {
			return nil, errParameter(fmt.Sprintf("Value %d for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if provided.", limit))
		}
	}
	if in.WaitTimeSeconds != nil {
		if wait = time.Duration(*in.WaitTimeSeconds) * time.Second; wait < 0 || wait > maxWait {
			return nil, errParameter(fmt.Sprintf("Value %d for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= 20, if provided.", *in.WaitTimeSeconds))
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
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	list, err := s.receive(ctx, name, limit, hide)
	if err != nil {
		return nil, err
	}
	messages := []any{}
	for _, m := range list {
		out := map[string]any{"MessageId": m.ID, "ReceiptHandle": m.Handle, "Body": m.Body, "MD5OfBody": md5Hex([]byte(m.Body))}
		system := map[string]string{}
		for name, value := range s.delivery(m).Attributes {
			if wants(append(in.AttributeNames, in.MessageSystemAttributeNames...), name) {
				system[name] = value
			}
		}
		if len(system) > 0 {
			out["Attributes"] = system
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
	d := time.Duration(*seconds) * time.Second
	if d < 0 || d > maxVisibility {
		return 0, errParameter(fmt.Sprintf("Value %d for parameter VisibilityTimeout is invalid. Reason: Must be between 0 and 43200.", *seconds))
	}
	return d, nil
}

// remove is what a delete of a handle changes: nothing if the message is gone or
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

func (s *Server) apiDelete(_ context.Context, in *request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	c, bad := s.removal(q, in.ReceiptHandle)
	if bad != nil {
		return nil, bad
	}
	if c.Remove == "" {
		return nil, nil
	}
	return nil, s.commit(c)
}

func (s *Server) apiDeleteBatch(_ context.Context, in *request) (any, error) {
	return s.batch(in, func(q *queue, e entry) (change, any, *apiError) {
		c, bad := s.removal(q, e.ReceiptHandle)
		return c, map[string]string{"Id": e.Id}, bad
	})
}

func (s *Server) apiVisibility(_ context.Context, in *request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
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

func (s *Server) apiVisibilityBatch(_ context.Context, in *request) (any, error) {
	return s.batch(in, func(q *queue, e entry) (change, any, *apiError) {
		d, bad := visibility(e.VisibilityTimeout)
		if bad != nil {
			return change{}, nil, bad
		}
		c, bad := s.changeVisibility(q, e.ReceiptHandle, d)
		return c, map[string]string{"Id": e.Id}, bad
	})
}

func (s *Server) apiPurge(_ context.Context, in *request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.find(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	now := s.now()
	if !q.purged.IsZero() && now.Sub(q.purged) < time.Minute {
		return nil, errPurge
	}
	var changes []change
	for id := range q.messages {
		changes = append(changes, change{Queue: q.Name, Remove: id})
	}
	if err := s.commit(changes...); err != nil {
		return nil, err
	}
	q.purged = now
	return nil, nil
}
