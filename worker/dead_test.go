package worker

import (
	"reflect"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A chunk that only met a bad bucket must not be replayed with the seeds of one
// whose generator crashed, or it would have other bytes than undisturbed.
func TestDeadPartsKeepTheirCauses(t *testing.T) {
	whole := task.Task{Generator: "g", NumSamples: 50, Seed: 7, RunID: "r", ChunkSize: 10}
	failed := func(start, end int, cause task.Cause, detail string) Failed {
		return Failed{Range: task.Range{Start: start, End: end}, Cause: cause, Detail: detail}
	}
	got := deadParts(whole, []Failed{
		failed(30, 40, task.Storage, "no answer"), failed(10, 20, task.Crashed, "second"),
		failed(0, 10, task.Crashed, "first"), failed(20, 30, task.Storage, "503"),
	})
	want := []deadPart{
		{whole.Part(task.Range{Start: 0, End: 20}), failed(0, 10, task.Crashed, "first")},
		{whole.Part(task.Range{Start: 20, End: 40}), failed(20, 30, task.Storage, "503")},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	rest := parts(whole, []task.Range{{Start: 40, End: 50}, {Start: 0, End: 10}, {Start: 10, End: 20}})
	if len(rest) != 2 || rest[0].Range() != (task.Range{Start: 0, End: 20}) ||
		rest[1].Range() != (task.Range{Start: 40, End: 50}) || rest[1].Seed != 7 {
		t.Errorf("the rest is %+v", rest)
	}
	repair := task.Task{Generator: "g", Indices: []int{3, 9}, Attempt: 2}
	if p := deadParts(repair, []Failed{failed(3, 10, task.Crashed, "x")}); len(p) != 1 ||
		!reflect.DeepEqual(p[0].task, repair) {
		t.Errorf("a repair becomes %+v", p)
	}
}

// What another worker holds is part of what is sent on, when time runs out as
// well: the message that asked for it is done with then.
func TestRestHoldsWhatOthersHold(t *testing.T) {
	x := task.Task{Generator: "g", NumSamples: 40, Seed: 7, ChunkSize: 10}
	o := &outcome{held: []task.Range{{Start: 0, End: 10}},
		unfinished: []failure{{chunk: task.Chunk{Keep: task.Range{Start: 20, End: 30}}}}}
	if r := o.rest(x).Range(); r != (task.Range{Start: 0, End: 30}) {
		t.Errorf("sent on: samples %s", r)
	}
}
