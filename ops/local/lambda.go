package local

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
)

// Names of the function and of its event source mapping.
const (
	functionName = "vm-dataset-worker"
	mappingID    = "10ca1000-0000-4000-8000-000000000000" // AWS SDKs want a UUID
)

// mapping is the local stack's event source mapping: while it is enabled, the
// workers receive messages of the task queue.
type mapping struct {
	mu       sync.Mutex
	enabled  bool
	changed  context.Context // ends when enabled changes
	change   context.CancelFunc
	polling  int // workers that are receiving
	modified time.Time
}

func newMapping() *mapping {
	m := &mapping{enabled: true, modified: time.Now()}
	m.changed, m.change = context.WithCancel(context.Background())
	return m
}

func (m *mapping) set(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.enabled == on {
		return
	}
	m.enabled, m.modified = on, time.Now()
	m.change()
	m.changed, m.change = context.WithCancel(context.Background())
}

// state returns the state as Lambda names it, and since when. It is Disabled once no
// worker can receive another message; those that have one continue.
func (m *mapping) state() (state string, since time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.enabled:
		return "Enabled", m.modified
	case m.polling > 0:
		return "Disabling", m.modified
	}
	return "Disabled", m.modified
}

// receive receives a message, now or when the mapping is enabled again.
func (m *mapping) receive(ctx context.Context, queue *sqsserver.Server) (*sqsserver.Delivery, error) {
	for {
		m.mu.Lock()
		enabled, changed := m.enabled, m.changed
		if enabled {
			m.polling++
		}
		m.mu.Unlock()
		if !enabled {
			select {
			case <-changed.Done():
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		polling, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(changed, cancel)
		d, err := queue.Receive(polling, tasksQueue)
		stop()
		cancel()
		m.mu.Lock()
		m.polling--
		m.mu.Unlock()
		if d != nil || ctx.Err() != nil || changed.Err() == nil { // else it was disabled while it waited
			return d, err
		}
	}
}

// lambdaAPI serves what the CLI, and any AWS SDK, needs of Lambda's own API: the
// event source mapping, which pauses the stack, and the function's state.
// https://docs.aws.amazon.com/lambda/latest/api/API_Operations.html
func (s *Stack) lambdaAPI(otherwise http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", otherwise)
	mux.HandleFunc("GET /2015-03-31/event-source-mappings/{id}", func(w http.ResponseWriter, r *http.Request) {
		if s.isMapping(w, r) {
			s.writeMapping(w, http.StatusOK)
		}
	})
	mux.HandleFunc("PUT /2015-03-31/event-source-mappings/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !s.isMapping(w, r) {
			return
		}
		var change struct{ Enabled *bool }
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
		d.DisallowUnknownFields()
		if err := d.Decode(&change); err != nil || change.Enabled == nil {
			lambdaError(w, http.StatusBadRequest, "InvalidParameterValueException",
				"the local stack changes nothing but Enabled")
			return
		}
		s.mapping.set(*change.Enabled)
		s.writeMapping(w, http.StatusAccepted)
	})
	mux.HandleFunc("GET /2015-03-31/functions/{name}", func(w http.ResponseWriter, r *http.Request) {
		if name := r.PathValue("name"); name != functionName && name != s.outputs.FunctionARN {
			lambdaError(w, http.StatusNotFound, "ResourceNotFoundException", "there is no function "+name)
			return
		}
		writeJSON(w, http.StatusOK, map[string]any{"Configuration": s.function(),
			"Concurrency": map[string]any{"ReservedConcurrentExecutions": s.config.Workers}})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if sqsserver.Foreign(r) {
			lambdaError(w, http.StatusForbidden, "AccessDeniedException",
				"the local stack takes requests from this machine's programs only")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Stack) isMapping(w http.ResponseWriter, r *http.Request) bool {
	if r.PathValue("id") == mappingID {
		return true
	}
	lambdaError(w, http.StatusNotFound, "ResourceNotFoundException",
		"the only event source mapping of the local stack is "+mappingID)
	return false
}

func (s *Stack) writeMapping(w http.ResponseWriter, status int) {
	state, since := s.mapping.state()
	writeJSON(w, status, map[string]any{
		"UUID": mappingID, "State": state, "StateTransitionReason": "USER_INITIATED", "BatchSize": 1,
		"EventSourceArn": s.outputs.QueueARN, "FunctionArn": s.outputs.FunctionARN,
		"FunctionResponseTypes": []string{"ReportBatchItemFailures"},
		"LastModified":          float64(since.UnixMilli()) / 1000,
	})
}

// function is the worker's configuration. It is Active when every worker process has asked for work.
func (s *Stack) function() map[string]any {
	c := map[string]any{
		"FunctionName": functionName, "FunctionArn": s.outputs.FunctionARN, "Timeout": int(s.config.Timeout.Seconds()),
		"LastUpdateStatus": "Successful", "State": "Active",
	}
	if ready := s.pool.Ready(); ready < s.config.Workers {
		c["State"], c["StateReasonCode"] = "Pending", "Creating"
		c["StateReason"] = fmt.Sprintf("%d of %d workers are ready", ready, s.config.Workers)
	}
	return c
}

func lambdaError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Amzn-Errortype", code)
	writeJSON(w, status, map[string]string{"Type": "User", "Message": message})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
