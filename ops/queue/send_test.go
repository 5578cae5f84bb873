package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestSend(t *testing.T) {
	e := newEndpoint(t, t.TempDir())
	all := list(257)
	var acked []int
	if err := e.client.Send(t.Context(), all,
		func(place int) error { acked = append(acked, place); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(acked)
	for i, place := range acked {
		if i != place {
			t.Fatalf("acknowledged %v, want each place once", acked)
		}
	}
	got := e.bodies(t, tasks)
	var want []string
	for _, x := range all {
		want = append(want, x.Body())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d messages arrived, want %d, each once", len(got), len(want))
	}
	if n := e.calls["SendMessageBatch"]; n != 26 {
		t.Errorf("%d requests for 257 tasks, want 26", n)
	}
}

// TestSendWithFaults sends against a queue that fails in every way it can, and
// whose answers get lost. What was acknowledged must be in the queue, and at
// the end everything must have been.
func TestSendWithFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		e := newEndpoint(t, t.TempDir())
		n := rapid.IntRange(1, 60).Draw(rt, "tasks")
		// One kind of fault for each of the first requests: the sends themselves
		// run at once, so only how many of each kind there are is certain.
		kinds := rapid.SliceOfN(rapid.SampledFrom([]string{"500", "lost", "cut", "partial", "silent", "fine"}), 0, 7).Draw(rt,
			"faults")
		var mu sync.Mutex
		e.setFault(func(operation string, body []byte, next http.Handler, w http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			kind := "fine"
			if len(kinds) > 0 {
				kind, kinds = kinds[0], kinds[1:]
			}
			mu.Unlock()
			return faulty(kind, body, next, w, r)
		})
		acked := map[int]int{}
		if err := e.client.Send(t.Context(), list(n), func(place int) error { acked[place]++; return nil }); err != nil {
			rt.Fatal(err)
		}
		there := map[string]bool{}
		for _, b := range e.bodies(t, tasks) {
			there[b] = true
		}
		for i, x := range list(n) {
			if acked[i] != 1 || !there[x.Body()] {
				rt.Fatalf("task %d: acknowledged %d times, in the queue: %v", i, acked[i], there[x.Body()])
			}
		}
	})
}

// faulty plays one fault for a SendMessageBatch.
func faulty(kind string, body []byte, next http.Handler, w http.ResponseWriter, r *http.Request) bool {
	switch kind {
	case "500": // not done
		http.Error(w, `{"__type":"InternalError"}`, http.StatusInternalServerError)
	case "lost": // done, but the answer says otherwise
		next.ServeHTTP(httptest.NewRecorder(), r)
		http.Error(w, `{"__type":"ServiceUnavailable"}`, http.StatusServiceUnavailable)
	case "cut": // done, and the connection dies
		next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	case "partial", "silent": // the first entry is done, the others are not
		var in struct {
			QueueUrl string
			Entries  []map[string]any
		}
		_ = json.Unmarshal(body, &in)
		rest := in.Entries[1:]
		in.Entries = in.Entries[:1]
		part, _ := json.Marshal(in)
		r2 := r.Clone(r.Context())
		r2.Body, r2.ContentLength = io.NopCloser(bytes.NewReader(part)), int64(len(part))
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r2)
		var out map[string]any
		_ = json.Unmarshal(answer.Body.Bytes(), &out)
		failed := []any{}
		for _, f := range rest {
			if kind == "partial" { // the silent one does not say so
				failed = append(failed, map[string]any{"Id": f["Id"], "Code": "InternalError", "SenderFault": false,
					"Message": "try again"})
			}
		}
		out["Failed"] = failed
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_ = json.NewEncoder(w).Encode(out)
	default:
		return false
	}
	return true
}

// TestSendRefused names the task that the queue will never take.
func TestSendRefused(t *testing.T) {
	e := newEndpoint(t, t.TempDir())
	e.setFault(func(operation string, body []byte, next http.Handler, w http.ResponseWriter, r *http.Request) bool {
		var in struct{ Entries []map[string]any }
		_ = json.Unmarshal(body, &in)
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_ = json.NewEncoder(w).Encode(map[string]any{"Successful": []any{}, "Failed": []any{
			map[string]any{"Id": in.Entries[len(in.Entries)-1]["Id"], "Code": "InvalidMessageContents", "SenderFault": true,
				"Message": "bad character"}}})
		return true
	})
	err := e.client.Send(t.Context(), list(3), func(int) error { return nil })
	for _, want := range []string{"maze", "20 to 29", "InvalidMessageContents", "bad character"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	if n := e.calls["SendMessageBatch"]; n != 1 {
		t.Errorf("asked %d times, want once: it is the sender's fault", n)
	}
}

// TestSendGivesUp ends when the queue stays broken, and on a request that is
// wrong at once.
func TestSendGivesUp(t *testing.T) {
	for _, c := range []struct {
		status int
		shape  string
		calls  int
	}{{500, "InternalError", maxTries}, {400, "QueueDoesNotExist", 1}, {403, "AccessDeniedException", 1}} {
		t.Run(c.shape, func(t *testing.T) {
			e := newEndpoint(t, t.TempDir())
			e.setFault(func(operation string, body []byte, next http.Handler, w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Content-Type", "application/x-amz-json-1.0")
				w.WriteHeader(c.status)
				fmt.Fprintf(w, `{"__type":"com.amazonaws.sqs#%s","message":"no"}`, c.shape)
				return true
			})
			if err := e.client.Send(t.Context(), list(1), func(int) error { return nil }); err == nil {
				t.Error("no error")
			}
			if n := e.calls["SendMessageBatch"]; n != c.calls {
				t.Errorf("asked %d times, want %d", n, c.calls)
			}
		})
	}
}

// TestSendStopped sends the rest in a second go, as submit --resume does.
func TestSendStopped(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		e := newEndpoint(t, t.TempDir())
		all := list(rapid.IntRange(1, 80).Draw(rt, "tasks"))
		stopAfter := rapid.IntRange(0, 80).Draw(rt, "stop after")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		acked := map[int]bool{}
		err := e.client.Send(ctx, all, func(place int) error {
			acked[place] = true
			if len(acked) > stopAfter {
				cancel()
			}
			return nil
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			rt.Fatal(err)
		}
		var rest []task.Task
		for i, x := range all {
			if !acked[i] {
				rest = append(rest, x)
			}
		}
		if err := e.client.Send(t.Context(), rest, func(int) error { return nil }); err != nil {
			rt.Fatal(err)
		}
		there := map[string]bool{}
		for _, b := range e.bodies(t, tasks) {
			there[b] = true
		}
		if len(there) != len(all) {
			rt.Fatalf("%d different tasks are in the queue, want %d", len(there), len(all))
		}
	})
}
