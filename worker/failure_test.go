package worker

import (
	"cmp"
	"fmt"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// What is not committed goes on by cause: a chunk that only met a bad bucket must not be
// replayed with the seeds of one whose generator crashed, or it would have other bytes
// than undisturbed. What another worker holds is sent on with what no time was left for:
// the message that asked for it is done with then.
func TestPartsKeepTheirCauses(t *testing.T) {
	failed := func(start, end int, cause task.Cause, detail string) *failure {
		return &failure{Failure: store.Failure{Start: start, End: end, Cause: cause, Detail: detail}}
	}
	w := work{failures: []*failure{
		failed(30, 40, task.Storage, "no answer"), failed(10, 20, task.Crashed, "second"),
		failed(0, 10, task.Crashed, "first"), failed(20, 30, task.Storage, "503"), failed(90, 95, task.Storage, "apart"),
	}, unfinished: []*failure{failed(60, 70, task.TimedOut, "late"), failed(40, 50, task.TimedOut, "late")},
		held: []task.Range{{Start: 50, End: 60}, {Start: 80, End: 90}}}
	got := ""
	for _, p := range w.parts() {
		got += fmt.Sprintf("%d-%d %s; ", p.Start, p.End, cmp.Or(p.Detail, "to send on"))
	}
	const want = "0-20 first; 20-40 503; 40-70 to send on; 80-90 to send on; 90-95 apart; "
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
