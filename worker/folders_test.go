package worker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// What lies in folders of a sample that is made anew takes the place of what was
// there: frames that it has no more are gone.
func TestFoldersAreOverwritten(t *testing.T) {
	b := newBench(t, 2, worker.Limits{}, map[string]string{"g": `
import atexit, pathlib
def frames():
    for folder in pathlib.Path(sys.argv[sys.argv.index("--output") + 1]).glob("*_task/*"):
        (folder / "frames" / "left").mkdir(parents=True)
        for n in range(3 - seed % 2):
            (folder / "frames" / "left" / f"{n}.txt").write_text("frame")
atexit.register(frames)`})
	var numbers []int
	for seed := 1; len(numbers) < 2; seed++ { // one of each
		x := task.Task{Generator: "g", NumSamples: 2, Seed: seed, ChunkSize: 2, Overwrite: true, RunID: fmt.Sprint("r", seed)}
		n := task.Seed("g", seed, 2, 0, 0) % 2
		if slices.Contains(numbers, n) {
			continue
		}
		numbers = append(numbers, n)
		if _, err := b.do(x, time.Minute); err != nil {
			t.Fatal(err)
		}
		var keys, named []string
		for o, err := range b.store.List(t.Context(), task.DataPrefix+"g/", "") {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, o.Key)
		}
		for _, r := range b.receipts("g") {
			named = append(named, r.ObjectKeys()...)
		}
		slices.Sort(named)
		frames := strings.Count(strings.Join(keys, " "), "_00000001/frames/left/")
		if want := 3 - n; !slices.Equal(keys, named) || frames != want {
			t.Errorf("stored are %v, named %v; %d frames, want %d", keys, named, frames, want)
		}
	}
}
