package queue

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"pgregory.net/rapid"
)

// testJournal opens the journal of a folder; it is closed with the test at the latest.
func testJournal(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := OpenJournal(filepath.Join(dir, "replay.journal"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// renew is a replay whose messages are new each time it is asked, as those of a
// command that is given other flags are.
func renew(j *Journal, round string) Replay {
	return Replay{Journal: j, Change: func(m Message) (*Outgoing, error) {
		return &Outgoing{Body: round + " " + m.Body, Attributes: map[string]Attribute{"receives": m.Attributes["receives"]}},
			nil
	}, Refused: func(Message, error) {}}
}

func TestReplay(t *testing.T) {
	e := newEndpoint(t, t.TempDir())
	for i := range 35 {
		e.moveToDLQ(t, fmt.Sprintf("message %d", i))
	}
	j := testJournal(t, t.TempDir())
	r := renew(j, "new")
	change, sent := r.Change, 0
	r.Change = func(m Message) (*Outgoing, error) {
		if m.Body == "message 5" {
			return nil, nil
		}
		return change(m)
	}
	r.Sent = func(n int) { sent += n }
	if err := e.client.Replay(t.Context(), r); err != nil || sent != 34 {
		t.Fatalf("%d sent, %v, want 34", sent, err)
	}
	if len(j.Resent()) != 0 {
		t.Errorf("the replay came to its end, but %d are left of it", len(j.Resent()))
	}
	if left := e.bodies(t, dead); !slices.Equal(left, []string{"message 5"}) {
		t.Errorf("left in the DLQ: %v, want the one that was not to be sent, visible", left)
	}
	d, err := e.server.Receive(t.Context(), tasks)
	if err != nil {
		t.Fatal(err)
	}
	if a := d.MessageAttributes["receives"]; a.DataType != "Number" || aws.ToString(a.StringValue) != "3" {
		t.Errorf("attribute receives is %+v", a)
	}
	if got := e.bodies(t, tasks); len(got) != 33 || !strings.HasPrefix(got[0], "new message ") {
		t.Errorf("%d further messages in the queue, want 33 new ones", len(got))
	}
	// Two requests for ten messages, and those that look.
	if n := e.calls["SendMessageBatch"]; n > 5 {
		t.Errorf("%d requests for 34 messages", n)
	}
}

// A replay that is asked to ends, and what it has not looked at is visible.
func TestReplayEnough(t *testing.T) {
	e := newEndpoint(t, t.TempDir())
	for i := range 25 {
		e.moveToDLQ(t, fmt.Sprintf("message %d", i))
	}
	r := renew(testJournal(t, t.TempDir()), "new")
	change, n := r.Change, 0
	r.Change = func(m Message) (*Outgoing, error) {
		if n++; n > 13 {
			return nil, ErrEnough
		}
		return change(m)
	}
	if err := e.client.Replay(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if got, left := len(e.bodies(t, tasks)), len(e.bodies(t, dead)); got != 13 || left != 12 {
		t.Errorf("%d sent and %d left of 25, want 13 and 12", got, left)
	}
}

// The rate is kept over the whole of a replay.
func TestReplayRate(t *testing.T) {
	e := newEndpoint(t, t.TempDir())
	for i := range 60 {
		e.moveToDLQ(t, fmt.Sprintf("message %d", i))
	}
	r := renew(testJournal(t, t.TempDir()), "new")
	r.Rate = 50
	began := time.Now()
	if err := e.client.Replay(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	// The first ten go at once.
	if took := time.Since(began); took < time.Second {
		t.Errorf("60 messages at 50 a second took %s", took)
	}
	if n := len(e.bodies(t, tasks)); n != 60 {
		t.Errorf("%d were sent", n)
	}
}

// A message that the queue refuses stays, and does not hold up the others.
func TestReplayRefused(t *testing.T) {
	e := newEndpoint(t, t.TempDir())
	for i := range 12 {
		e.moveToDLQ(t, fmt.Sprintf("message %d", i))
	}
	j := testJournal(t, t.TempDir())
	r := renew(j, "new")
	var refused []string
	r.Refused = func(m Message, why error) { refused = append(refused, m.Body+": "+why.Error()) }
	r.Change = func(m Message) (*Outgoing, error) {
		if m.Body == "message 3" {
			return &Outgoing{Body: "not \x01 allowed"}, nil
		}
		return &Outgoing{Body: m.Body}, nil
	}
	if err := e.client.Replay(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if len(refused) != 1 || !strings.HasPrefix(refused[0], "message 3: send the task of message ") {
		t.Errorf("refused: %q", refused)
	}
	// With something else in its place, it can be sent.
	if err := e.client.Replay(t.Context(), renew(j, "second")); err != nil {
		t.Fatal(err)
	}
	if got := e.bodies(t, tasks); len(got) != 12 || got[11] != "second message 3" {
		t.Errorf("sent: %q", got)
	}
}

// TestReplayInterrupted stops a replay at any request, by Ctrl-C, by a fault or
// as a kill does, and replays again, with other flags. Then every message has been
// sent, exactly once, but for those that were in the request at the moment of the
// kill: these may have been sent twice, with the same body.
func TestReplayInterrupted(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		e := newEndpoint(t, dir)
		n := rapid.IntRange(1, 30).Draw(rt, "messages")
		for i := range n {
			e.moveToDLQ(t, fmt.Sprintf("message %d", i))
		}
		at := rapid.IntRange(1, 3*(n/10+1)+3).Draw(rt, "at request")
		how := rapid.SampledFrom([]string{"cancelled", "refused", "killed before", "killed after"}).Draw(rt, "how")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var mu sync.Mutex
		requests, gone, inDoubt := 0, false, false
		e.setFault(func(operation string, body []byte, next http.Handler, w http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			requests++
			now := requests == at
			if now && strings.HasPrefix(how, "killed") {
				gone = true
			}
			isGone := gone
			mu.Unlock()
			if now && how == "cancelled" {
				cancel()
				return false // it does not cut requests short
			}
			if now && how == "killed after" {
				inDoubt = operation == "SendMessageBatch"
				next.ServeHTTP(httptest.NewRecorder(), r)
			}
			if isGone { // a dead process says nothing more
				panic(http.ErrAbortHandler)
			}
			if now && how == "refused" {
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprint(w, `{"__type":"com.amazonaws.sqs#AccessDeniedException","message":"no"}`)
				return true
			}
			return false
		})
		folder := t.TempDir()
		j := testJournal(t, folder)
		stopped := e.client.Replay(ctx, renew(j, "first"))
		e.setFault(nil)
		if strings.HasPrefix(how, "killed") { // hidden messages come back by and by
			for _, d := range e.server.InFlight(dead) {
				if err := e.server.Return(dead, d.ReceiptHandle, true); err != nil {
					rt.Fatal(err)
				}
			}
		}
		if _, hidden, _ := e.server.Counts(dead); hidden > 0 && how != "refused" {
			rt.Fatalf("%d messages of the DLQ are hidden from the next replay; the first said %v", hidden, stopped)
		}
		for _, d := range e.server.InFlight(dead) {
			_ = e.server.Return(dead, d.ReceiptHandle, true)
		}
		_ = j.Close()
		j = testJournal(t, folder)
		if err := e.client.Replay(t.Context(), renew(j, "second")); err != nil {
			rt.Fatalf("second replay: %v", err)
		}
		sent := map[string][]string{}
		for _, b := range e.bodies(t, tasks) {
			_, name, _ := strings.Cut(b, " ")
			sent[name] = append(sent[name], b)
		}
		if len(sent) != n {
			rt.Fatalf("%d of %d messages are in the queue after the second replay", len(sent), n)
		}
		doubles := 0
		for name, bodies := range sent {
			if len(bodies) > 1 {
				doubles++
			}
			if len(bodies) > 2 || len(bodies) == 2 && bodies[0] != bodies[1] {
				rt.Fatalf("%s was sent as %q", name, bodies)
			}
		}
		if doubles > 10 || doubles > 0 && !inDoubt {
			rt.Fatalf("%d messages were sent twice; %s at request %d, which the first replay told as %v", doubles, how, at,
				stopped)
		}
		if left := e.bodies(t, dead); len(left) > 0 {
			rt.Fatalf("%v are still in the DLQ", left)
		}
	})
}

// A journal that was cut off anywhere tells what was whole in it, and goes on; what
// is too old to matter is dropped.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "replay.journal")
	j := testJournal(t, dir)
	if _, err := OpenJournal(path); err == nil || !strings.Contains(err.Error(), "another replay") {
		t.Errorf("a second one: %v", err)
	}
	a, b := Message{ID: "a", Body: "x"},
		Message{ID: "b", Attributes: map[string]Attribute{"first_message_id": {Type: "String", Text: "f"}}}
	for _, err := range []error{j.Intend([]Message{a, b}, []Outgoing{{Body: "for <a>"}, {Body: "for b"}}), j.Confirm("a"),
		j.Confirm("b"), j.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for length := range len(whole) + 1 {
		if err := os.WriteFile(path, whole[:length], 0o644); err != nil {
			t.Fatal(err)
		}
		lines := strings.Count(string(whole[:length]), "\n")
		j := testJournal(t, dir)
		if j.IsSent("a") != (lines >= 3) || j.IsSent("b") != (lines >= 4) || j.Resumed() != (lines >= 3) {
			t.Fatalf("after %d lines: %+v", lines, j.entries)
		}
		out := []Outgoing{{Body: "another"}, {Body: "another"}}
		if err := j.Intend([]Message{b, {ID: "c"}}, out); err != nil {
			t.Fatal(err)
		}
		if out[0].Body != map[bool]string{true: "for b", false: "another"}[lines >= 2] || out[1].Body != "another" {
			t.Fatalf("after %d lines b becomes %v", lines, out)
		}
		_ = j.Close()
		if again := testJournal(t, dir); again.entries["c"] == nil || again.entries["b"] == nil {
			t.Fatalf("after %d lines and a new one: %+v", lines, again.entries)
		} else {
			_ = again.Close()
		}
	}
	j = testJournal(t, dir)
	if got := j.Resent(); len(got) != 2 || got[0] != (Resent{"a", "for <a>"}) || got[1] != (Resent{"f", "for b"}) {
		t.Errorf("sent: %+v", got)
	}
	if err := j.End(); err != nil || len(j.Resent()) != 0 {
		t.Errorf("at the end: %v, %+v", err, j.Resent())
	}
	_ = j.Close()
	// Half of it happened long ago.
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	for i := range lines[:len(lines)/2] {
		lines[i] = strings.ReplaceAll(lines[i], `"time":"20`, `"time":"19`)
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o644); err != nil {
		t.Fatal(err)
	}
	_ = testJournal(t, dir).Close()
	if after, err := os.ReadFile(path); err != nil || string(after) != strings.Join(lines[len(lines)/2:], "") {
		t.Errorf("kept %s, %v", after, err)
	}
}
