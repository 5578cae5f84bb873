package dlq

import (
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A task gets seeds that it has not tried if its seeds were to blame.
func TestFresh(t *testing.T) {
	const run = `{"type":"m","num_samples":1,"seed":5,"output_format":"files","run_id":"r","chunk_size":20`
	for _, c := range []struct {
		name    string
		flags   Replay
		cause   task.Cause
		body    string
		want    string // "" if it is not sent
		differs bool   // the seed must be another
	}{
		{"of a run", Replay{}, task.Crashed, run + `,"attempt":2}`, run + `,"attempt":5}`, false},
		{"of a run, kept", Replay{KeepSeed: true}, task.Crashed, run + `}`, run + `}`, false},
		{"of a run, and its seed is not to blame", Replay{}, task.OutOfMemory, run + `}`, run + `}`, false},
		{"of a run that hangs", Replay{FreshSeed: true}, task.TimedOut, run + `}`, run + `,"attempt":3}`, false},
		{"of none", Replay{}, task.CorruptOutput, `{"type":"m","num_samples":1,"seed":5}`, "", true},
		{"of none and seedless", Replay{}, task.Crashed, `{"type":"m","num_samples":1}`, "", true},
		{"in parts", Replay{Chunk: 5}, task.TimedOut, `{"type":"m","num_samples":1,"seed":5,"chunk_size":20}`,
			`{"type":"m","num_samples":1,"seed":5,"chunk_size":20,"part_size":5}`, false},
		{"in one part again", Replay{Chunk: 20}, task.Lost,
			`{"type":"m","num_samples":1,"seed":5,"chunk_size":20,"part_size":4}`,
			`{"type":"m","num_samples":1,"seed":5,"chunk_size":20}`, false},
		{"in no parts of it", Replay{Chunk: 6}, task.TimedOut, `{"type":"m","num_samples":1,"seed":5,"chunk_size":20}`,
			"", false},
		{"a repair in parts", Replay{Chunk: 5}, task.TimedOut, `{"type":"m","indices":[1,2],"seed":5}`, "", false},
		{"no more attempts", Replay{}, task.Crashed, run + `,"attempt":1000000000}`, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Describe(queue.Message{ID: "id", Body: c.body,
				Attributes: map[string]queue.Attribute{"cause": {Type: "String", Text: string(c.cause)}}})
			got, err := c.flags.fresh(t.Context(), d)
			again, _ := c.flags.fresh(t.Context(), d)
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

// Messages of other programs are described as what they are.
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
		{"a task with attributes of another program", `{"type":"m","num_samples":1}`,
			map[string]queue.Attribute{"cause": attribute("Binary", "", 0, 1), "detail": attribute("Number", "3")}, task.Lost,
			"the worker was killed", "m"},
		{"refused by a worker", "hello", map[string]queue.Attribute{"cause": attribute("String", "invalid_task"),
			"detail": attribute("String", "invalid task: x")}, task.InvalidTask, "invalid task: x", ""},
	} {
		d := Describe(queue.Message{ID: "id", Body: c.body, Attributes: c.attributes})
		if d.Cause != c.cause || !strings.Contains(d.Detail, c.detail) || d.Generator() != c.generator {
			t.Errorf("%s: %s, %q, of %q", c.name, d.Cause, d.Detail, d.Generator())
		}
	}
}
