package local

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A task that takes many times as long as an invocation may, and that is sent on
// again and again, completes by itself. Nothing of it is a failure, and nothing comes
// into the DLQ. It takes five invocations; with SCALE=1 more than twenty.
func TestTaskOfManyInvocations(t *testing.T) {
	t.Parallel()
	const timeout = 7 * time.Second // of which 2 s are kept back
	chunks := 10                    // of more than 1.7 s: at most two in an invocation, and one also on a busy machine
	if os.Getenv("SCALE") != "" {
		chunks = 44
	}
	for _, format := range []task.Format{task.Files, task.Tar} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			// With as many workers as CPUs, each makes one chunk at a time.
			r := up(t, folder(t), Config{Workers: max(2, runtime.NumCPU()), Timeout: timeout, Visibility: timeout +
				5*time.Second})
			id := r.sendTask(task.Task{Generator: "slower", NumSamples: 2 * chunks, Seed: 5, ChunkSize: 2, Format: format})
			dead := func() int {
				visible, inFlight, delayed := r.queue.Counts(dlqQueue)
				return visible + inFlight + delayed
			}
			eventually(t, "every chunk is committed", func() bool { return dead() > 0 || len(r.receipts("slower")) == chunks })
			r.idle()
			r.holds("slower", task.Range{Start: 0, End: 2 * chunks})
			invocations, wall := map[string]bool{}, 0.0
			for _, receipt := range r.receipts("slower") {
				invocations[receipt.RequestID] = true
				wall += receipt.WallSeconds
				if receipt.MessageID != id {
					t.Errorf("samples %s come from message %s; one was sent, %s", receipt.Range(), receipt.MessageID, id)
				}
			}
			t.Logf("%.0f s of generators in %d invocations of %s", wall, len(invocations), timeout)
			if wall < 1.7*float64(chunks) || len(invocations) < chunks/2 {
				t.Error("the test proves nothing")
			}
			if dead() > 0 {
				t.Errorf("%d messages are in the DLQ", dead())
			}
			if f := r.failures("slower"); len(f) > 0 {
				t.Errorf("reported %s: %s", f[0].Cause, f[0].Detail)
			}
		})
	}
}
