package main

import (
	"strings"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// TestFresh gives a dead task seeds that it has not tried, if those it had were to
// blame.
func TestFresh(t *testing.T) {
	const run = `{"type":"m","num_samples":1,"seed":5,"output_format":"files","run_id":"r","chunk_size":20`
	for _, c := range []struct {
		name    string
		flags   DLQReplayCmd
		cause   task.Cause
		body    string
		want    string // "" if it is not sent
		differs bool   // the seed must be another
	}{
		{"of a run", DLQReplayCmd{}, task.Crashed, run + `,"attempt":2}`, run + `,"attempt":5}`, false},
		{"of a run, kept", DLQReplayCmd{KeepSeed: true}, task.Crashed, run + `}`, run + `}`, false},
		{"of a run, and its seed is not to blame", DLQReplayCmd{}, task.OutOfMemory, run + `}`, run + `}`, false},
		{"of a run that hangs", DLQReplayCmd{FreshSeed: true}, task.TimedOut, run + `}`, run + `,"attempt":3}`, false},
		{"of none", DLQReplayCmd{}, task.CorruptOutput, `{"type":"m","num_samples":1,"seed":5}`, "", true},
		{"of none and seedless", DLQReplayCmd{}, task.Crashed, `{"type":"m","num_samples":1}`, "", true},
		{"in parts", DLQReplayCmd{Chunk: 5}, task.TimedOut, `{"type":"m","num_samples":1,"seed":5,"chunk_size":20}`,
			`{"type":"m","num_samples":1,"seed":5,"chunk_size":20,"part_size":5}`, false},
		{"whole again", DLQReplayCmd{Chunk: 20}, task.Lost,
			`{"type":"m","num_samples":1,"seed":5,"chunk_size":20,"part_size":4}`,
			`{"type":"m","num_samples":1,"seed":5,"chunk_size":20}`, false},
		{"in no parts of it", DLQReplayCmd{Chunk: 6}, task.TimedOut, `{"type":"m","num_samples":1,"seed":5,"chunk_size":20}`,
			"", false},
		{"a repair in parts", DLQReplayCmd{Chunk: 5}, task.TimedOut, `{"type":"m","indices":[1,2],"seed":5}`, "", false},
		{"no more attempts", DLQReplayCmd{}, task.Crashed, run + `,"attempt":1000000000}`, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := describe(queue.Message{ID: "id", Body: c.body,
				Attributes: map[string]queue.Attribute{"cause": {Type: "String", Text: string(c.cause)}}})
			r := &replay{DLQReplayCmd: &c.flags}
			got, err := r.fresh(d)
			again, _ := r.fresh(d)
			if got.Body() != again.Body() {
				t.Errorf("%s, then %s: what an interrupted replay sends twice would conflict", got.Body(), again.Body())
			}
			if c.differs {
				if err != nil || got.Seed == d.Task.Seed {
					t.Errorf("seed %d is kept: %s, %v", d.Task.Seed, got.Body(), err)
				}
				return
			}
			if (err == nil) != (c.want != "") || err == nil && got.Body() != c.want {
				t.Errorf("got %s, %v, want %s", got.Body(), err, c.want)
			}
		})
	}
}

// Messages that somebody else has put there are told as what they are.
func TestDescribe(t *testing.T) {
	attribute := func(kind, text string, binary ...byte) queue.Attribute {
		return queue.Attribute{Type: kind, Text: text, Binary: binary}
	}
	for _, c := range []struct {
		name, body string
		attributes map[string]queue.Attribute
		cause      task.Cause
		detail     string
		generator  string
	}{
		{"ours", `{"type":"m","num_samples":1}`, map[string]queue.Attribute{"cause": attribute("String", "crashed"),
			"detail": attribute("String", "bang")}, task.Crashed, "bang", "m"},
		{"moved by SQS", `{"type":"m","num_samples":1}`, nil, task.Lost, "the worker was killed", "m"},
		{"no JSON", "hello", nil, task.InvalidTask, "the message is not JSON: hello", ""},
		{"another program's JSON", `{"order":7}`, map[string]queue.Attribute{"cause": attribute("String", "late")},
			task.InvalidTask, `"order" is not a field of a task`, ""},
		{"a task with attributes of somebody else", `{"type":"m","num_samples":1}`,
			map[string]queue.Attribute{"cause": attribute("Binary", "", 0, 1), "detail": attribute("Number", "3")}, task.Lost,
			"the worker was killed", "m"},
		{"refused by a worker", "hello", map[string]queue.Attribute{"cause": attribute("String", "invalid_task"),
			"detail": attribute("String", "invalid task: x")}, task.InvalidTask, "invalid task: x", ""},
	} {
		d := describe(queue.Message{ID: "id", Body: c.body, Attributes: c.attributes})
		if d.Cause != c.cause || !strings.Contains(d.Detail, c.detail) || d.generator() != c.generator {
			t.Errorf("%s: %s, %q, of %q", c.name, d.Cause, d.Detail, d.generator())
		}
	}
}

func TestMoment(t *testing.T) {
	now := time.Now()
	for text, want := range map[string]time.Time{
		"90m": now.Add(-90 * time.Minute), "12h": now.Add(-12 * time.Hour), "3d": now.Add(-72 * time.Hour),
		"0.5d":                 now.Add(-12 * time.Hour),
		"2026-08-01T10:00:00Z": time.Date(2026, 8, 1, 10, 0, 0, 0, time.UTC), "2026-08-01T10:00": time.Date(2026, 8, 1, 10, 0,
			0, 0, time.Local), "2026-08-01": time.Date(2026, 8, 1, 0, 0, 0, 0, time.Local),
	} {
		var m moment
		if err := m.UnmarshalText([]byte(text)); err != nil || m.Sub(want).Abs() > time.Minute {
			t.Errorf("%s is %s, %v; want %s", text, m, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "-3h", "-1d", "xd", "2026-13-01"} {
		if err := new(moment).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is a time", text)
		}
	}
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{"a-b/c.py": "a-b/c.py", "": "''", "a b": "'a b'", "it's": `'it'\''s'`,
		"$HOME": "'$HOME'", "*": "'*'"} {
		if got := quote(word); got != want {
			t.Errorf("%q is quoted as %s, want %s", word, got, want)
		}
	}
}
