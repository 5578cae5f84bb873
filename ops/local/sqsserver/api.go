package sqsserver

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
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
	maxDelay      = 15 * 60      // seconds
	maxVisibility = 12 * 60 * 60 // seconds
	maxWait       = 20 * time.Second
	maxResults    = 1000 // queues in an answer
	maxGroup      = 128  // characters
)

// Foreign reports whether a request may have come from a web page through a browser on this machine.
func Foreign(r *http.Request) bool { return r.Header.Get("Origin") != "" || !isLoopback(r.Host) }

// ServeHTTP serves the AWS JSON protocol. Signatures are not checked: the endpoint listens on loopback only. It refuses
// web pages, which could reach it through a browser on the machine.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if Foreign(r) {
		answer(w, nil, errForeign)
		return
	}
	name, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	if !ok {
		answerQuery(w, errOldProtocol)
		return
	}
	operation := operations[name]
	if operation == nil {
		answer(w, nil, older("UnsupportedOperation", "The local queue has no operation "+name+"."))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4<<20))
	if err != nil {
		answer(w, nil, errParameter("The request is too long or was cut off."))
		return
	}
	var in request
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields() // a parameter that is not known is not done: its name is in the error
	if err := d.Decode(&in); err != nil {
		answer(w, nil, &apiError{shape: "SerializationException",
			message: "The local queue does not understand the request: " + err.Error()})
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
		e, ok := errors.AsType[*apiError](err)
		if !ok {
			e = &apiError{shape: "InternalFailure", message: err.Error(), status: http.StatusInternalServerError}
		}
		fault, status := "Sender", cmp.Or(e.status, http.StatusBadRequest)
		if status >= 500 {
			fault = "Receiver"
		}
		w.Header().Set("X-Amzn-Query-Error", e.oldCode()+";"+fault)
		w.WriteHeader(status)
		out = map[string]string{"__type": "com.amazonaws.sqs#" + e.shape, "message": e.message}
	}
	if out == nil {
		out = struct{}{}
	}
	_ = json.NewEncoder(w).Encode(out) // the client has gone if this fails
}

// answerQuery answers a client of the older protocol, which reads XML.
func answerQuery(w http.ResponseWriter, e *apiError) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprintf(w, "<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error>"+
		"<RequestId>%s</RequestId></ErrorResponse>", e.code, e.message, NewID())
}

type request struct {
	QueueUrl                    string
	QueueName                   string
	QueueNamePrefix             string
	MaxResults                  *int
	NextToken                   string
	Attributes                  map[string]string
	Tags                        map[string]string
	TagKeys                     []string
	AttributeNames              []string
	MessageSystemAttributeNames []string
	MessageAttributeNames       []string
	MaxNumberOfMessages         *int
	WaitTimeSeconds             *int
	Entries                     []entry
	entry
}

// entry is one entry of a batch, or what a request has of it where it is for one message.
type entry struct {
	Id                      string
	MessageBody             *string
	DelaySeconds            *int
	MessageAttributes       map[string]Attribute
	MessageSystemAttributes map[string]Attribute
	MessageGroupId          string
	MessageDeduplicationId  string
	ReceiptHandle           string
	VisibilityTimeout       *int
}

type operation func(*Server, context.Context, *request) (any, error)

var operations = map[string]operation{
	"CreateQueue":                  locked((*Server).createQueue),
	"DeleteQueue":                  onQueue((*Server).deleteQueue),
	"GetQueueUrl":                  locked((*Server).getQueueURL),
	"ListQueues":                   locked((*Server).listQueues),
	"GetQueueAttributes":           onQueue((*Server).getAttributes),
	"SetQueueAttributes":           onQueue((*Server).putAttributes),
	"SendMessage":                  onQueue(one((*Server).send)),
	"SendMessageBatch":             onQueue(batch((*Server).send)),
	"ReceiveMessage":               (*Server).receiveMessages,
	"DeleteMessage":                onQueue(one((*Server).remove)),
	"DeleteMessageBatch":           onQueue(batch((*Server).remove)),
	"ChangeMessageVisibility":      onQueue(one((*Server).changeVisibility)),
	"ChangeMessageVisibilityBatch": onQueue(batch((*Server).changeVisibility)),
	"PurgeQueue":                   onQueue((*Server).purgeQueue),
	"ListDeadLetterSourceQueues":   onQueue((*Server).listSources),
	"TagQueue":                     onQueue((*Server).tagQueue),
	"UntagQueue":                   onQueue((*Server).untagQueue),
	"ListQueueTags":                onQueue((*Server).listTags),
}

// locked is an operation that holds the lock.
func locked(do func(*Server, *request) (any, error)) operation {
	return func(s *Server, _ context.Context, in *request) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return do(s, in)
	}
}

// onQueue is an operation on the queue that the request names. It holds the lock.
func onQueue(do func(*Server, *queue, *request) (any, error)) operation {
	return locked(func(s *Server, in *request) (any, error) {
		q, err := s.find(in.QueueUrl)
		if err != nil {
			return nil, err
		}
		return do(s, q, in)
	})
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

// integer returns a parameter of a request, or a default if the request has none.
func integer(name string, value *int, otherwise, lowest, highest int) (int, *apiError) {
	switch {
	case value == nil:
		return otherwise, nil
	case *value < lowest || *value > highest:
		return 0, errParameter("Value %d for parameter %s is invalid. Reason: Must be between %d and %d.", *value, name,
			lowest, highest)
	}
	return *value, nil
}

// Lengths are compared, and not part of the patterns: those with a count take milliseconds to compile, at each start of
// ops.
var (
	shortName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	printable = regexp.MustCompile(`^[\x21-\x7e]+$`)
)

// isShortName reports whether a text can be the name of a queue or the id of an entry of a batch.
func isShortName(text string) bool { return len(text) <= 80 && shortName.MatchString(text) }

func (s *Server) createQueue(in *request) (any, error) {
	if strings.HasSuffix(in.QueueName, ".fifo") || in.Attributes["FifoQueue"] == "true" {
		return nil, older("UnsupportedOperation", "The local queue has no FIFO queues.")
	}
	if !isShortName(in.QueueName) {
		return nil, errParameter("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
	}
	q := newQueue(Queue{Name: in.QueueName}).Queue
	existing := s.queues[in.QueueName]
	if existing != nil {
		q = existing.Queue
	}
	if err := s.setAttributes(&q, in.Attributes); err != nil {
		return nil, err
	}
	if q.Tags == nil {
		if err := q.tag(in.Tags); err != nil {
			return nil, err
		}
	}
	out := map[string]string{"QueueUrl": s.url(q.Name)}
	if existing != nil {
		if !q.sameAttributes(existing.Queue) {
			return nil, &apiError{shape: "QueueNameExists", code: "QueueAlreadyExists",
				message: "A queue already exists with the same name and a different value for an attribute."}
		}
		return out, nil
	}
	return out, s.define(q)
}

func (s *Server) deleteQueue(q *queue, in *request) (any, error) {
	return nil, s.commit(change{Queue: q.Name, Drop: true})
}

func (s *Server) getQueueURL(in *request) (any, error) {
	if s.queues[in.QueueName] == nil {
		return nil, errNoQueue
	}
	return map[string]string{"QueueUrl": s.url(in.QueueName)}, nil
}

func (s *Server) listQueues(in *request) (any, error) {
	return s.list(in, "QueueUrls", func(q *queue) bool { return strings.HasPrefix(q.Name, in.QueueNamePrefix) })
}

// list answers with the URLs of queues, a page at a time if a limit is named. The
// token of the next page is the name of this one's last queue. The lock is held.
func (s *Server) list(in *request, field string, wanted func(*queue) bool) (any, error) {
	limit, bad := integer("MaxResults", in.MaxResults, maxResults, 1, maxResults)
	if bad != nil {
		return nil, bad
	}
	after, err := base64.URLEncoding.DecodeString(in.NextToken)
	if err != nil {
		return nil, errParameter("Value %s for parameter NextToken is invalid.", in.NextToken)
	}
	urls, last := []string{}, ""
	for _, name := range slices.Sorted(maps.Keys(s.queues)) {
		if name <= string(after) || !wanted(s.queues[name]) {
			continue
		}
		if len(urls) == limit {
			return map[string]any{field: urls, "NextToken": base64.URLEncoding.EncodeToString([]byte(last))}, nil
		}
		urls, last = append(urls, s.url(name)), name
	}
	return map[string]any{field: urls}, nil
}

func (s *Server) listSources(dead *queue, in *request) (any, error) {
	return s.list(in, "queueUrls", func(q *queue) bool { return q.DeadLetter == dead.Name })
}

func (s *Server) purgeQueue(q *queue, in *request) (any, error) {
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

// apiError is an error as the protocol has it: a shape name, which SDKs turn
// into a type, and the code of the older protocol, which some still read.
type apiError struct {
	shape   string
	code    string // the older protocol's, where it differs
	message string
	status  int // default 400
}

func (e *apiError) Error() string { return e.shape + ": " + e.message }

func (e *apiError) oldCode() string { return cmp.Or(e.code, e.shape) }

// older is an error whose code in the older protocol is its shape below the service's name.
func older(shape, message string) *apiError {
	return &apiError{shape: shape, code: "AWS.SimpleQueueService." + shape, message: message}
}

var (
	errNoQueue = &apiError{shape: "QueueDoesNotExist", code: "AWS.SimpleQueueService.NonExistentQueue",
		message: "The specified queue does not exist."}
	errBadHandle = &apiError{shape: "ReceiptHandleIsInvalid",
		message: "The input receipt handle is invalid or has expired."}
	errNotInFlight = older("MessageNotInflight", "The specified message isn't in flight.")
	errEmptyBatch  = older("EmptyBatchRequest", "There should be at least one entry in the request.")
	errLongBatch   = older("TooManyEntriesInBatchRequest", "Maximum number of entries per request are 10.")
	errSameIDs     = older("BatchEntryIdsNotDistinct", "Two or more batch entries in the request have the same Id.")
	errBatchID     = older("InvalidBatchEntryId", "A batch entry id can only contain alphanumeric characters, hyphens "+
		"and underscores. It can be at most 80 letters long.")
	errBatchSize = older("BatchRequestTooLong", "Batch requests cannot be longer than 1048576 bytes.")
	errPurge     = older("PurgeQueueInProgress", "Only one PurgeQueue operation is allowed every 60 seconds.")
	errContents  = &apiError{shape: "InvalidMessageContents",
		message: "The message contains characters outside the allowed set."}
	errOldProtocol = older("UnsupportedOperation",
		"This endpoint speaks the AWS JSON protocol only, which SDKs use since 2023: update the client.")
	errForeign = &apiError{shape: "AccessDenied",
		message: "This endpoint answers programs on this machine only, no web pages.", status: http.StatusForbidden}
)

func errParameter(format string, args ...any) *apiError {
	return &apiError{shape: "InvalidParameterValueException", code: "InvalidParameterValue",
		message: fmt.Sprintf(format, args...)}
}

func errAttribute(name string) *apiError {
	return &apiError{shape: "InvalidAttributeName", message: "Unknown Attribute " + name + "."}
}

func errMissing(name string) *apiError {
	return &apiError{shape: "MissingParameterException", code: "MissingParameter",
		message: "The request must contain the parameter " + name + "."}
}
