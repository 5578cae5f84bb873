package worker

import (
	"cmp"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// What the queue is told and does not answer, or does not do, costs a request or a
// delivery. Nothing is made twice for it, and nothing is lost.
func TestFaultsOfQueue(t *testing.T) {
	for name, test := range map[string]struct {
		operation string // what goes wrong
		fate      fate
		times     int
		held      time.Duration // by another worker
		generator string        // "model" if empty
		kept      int           // deletions that are lost
		messages  int           // that workers get in all
		dead      int           // in the dead letter queue at the end
	}{
		"undisturbed": {messages: 1},
		"delete lost": {kept: 1, messages: 2},
		"held":        {held: time.Hour, messages: 7},
		"put off, answer lost": {operation: "ChangeMessageVisibility", fate: unheard, times: 1, held: time.Hour,
			messages: 7},
		"put off, refused": {operation: "ChangeMessageVisibility", fate: refused, times: 6, held: time.Hour,
			messages: 9},
		"sent on, answer lost": {operation: "SendMessage", fate: unheard, times: 1, held: time.Hour, messages: 11},
		"sent on, refused":     {operation: "SendMessage", fate: refused, times: 2, held: time.Hour, messages: 7},
		"moved to the DLQ":     {generator: "nobody", messages: 1, dead: 1},
		"moved to the DLQ, answer lost": {generator: "nobody", operation: "SendMessage", fate: unheard, times: 1, messages: 1,
			dead: 2},
		"moved to the DLQ, then delete lost": {generator: "nobody", kept: 1, messages: 2, dead: 2},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.pin(t, task.NewManifest("", 2, task.Files))
				x := task.Task{Generator: cmp.Or(test.generator, "model"), NumSamples: 5, ChunkSize: 5, Seed: 2, RunID: "r1",
					Format: task.Files}
				if test.held > 0 {
					holder := store.Holder{RequestID: "somebody", Deadline: time.Now().Add(test.held)}
					if _, err := w.outside().Take(t.Context(), "model", x.Range(), holder, nil); err != nil {
						t.Fatal(err)
					}
				}
				w.kept = test.kept
				w.faults = func(c *call) fate {
					if c.name == test.operation && test.times > 0 {
						test.times--
						return test.fate
					}
					return executed
				}
				began := time.Now()
				w.send(x)
				w.calm(t.Context(), t)
				if test.times > 0 || w.kept > 0 {
					t.Errorf("%d faults and %d lost deletions did not happen", test.times, w.kept)
				}
				if dead, _, _ := w.queue.Counts("dead"); dead != test.dead {
					t.Errorf("%d messages are in the DLQ, want %d", dead, test.dead)
				}
				if w.serial != test.messages {
					t.Errorf("workers got %d messages, want %d", w.serial, test.messages)
				}
				list := w.bucket.receipts()
				if test.dead == 0 && (len(list) != 1 || len(list[0].Samples) != 5 || w.nonce != 1) {
					t.Errorf("%d receipts, the generator ran %d times", len(list), w.nonce)
				}
				t.Logf("%d messages, %s", w.serial, time.Since(began))
			})
		})
	}
}
