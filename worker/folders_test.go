package worker_test

import (
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
	t.Parallel()
	b := newBench(t, worker.Config{CPUs: 2}, map[string]string{"g": `
import atexit, pathlib
def frames():
    for folder in pathlib.Path(sys.argv[sys.argv.index("--output") + 1]).glob("*_task/*"):
        (folder / "frames" / "left").mkdir(parents=True)
        for n in range(3 - seed % 2):
            (folder / "frames" / "left" / f"{n}.txt").write_text("frame")
atexit.register(frames)`})
	x := task.Task{Generator: "g", NumSamples: 2, Seed: 1, ChunkSize: 2}
	repair := task.Task{Generator: "g", Indices: []int{0, 1}, Seed: 1, ChunkSize: 2}
	first := task.Seed("g", 1, 2, 0, 0) % 2
	for task.RepairSeed("g", 1, repair.Attempt, repair.Indices)%2 == first {
		repair.Attempt++
	}
	for n, left := range []int{3 - first, 2 + first} {
		if _, err := b.do([]task.Task{x, repair}[n], time.Minute); err != nil {
			t.Fatal(err)
		}
		var keys []string
		for o, err := range b.store.List(t.Context(), task.DefaultDataset.SamplesPrefix("g"), "") {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, o.Key)
		}
		list := b.receipts("g") // in the order they were committed
		named := list[len(list)-1].Objects()
		slices.Sort(named)
		if frames := strings.Count(strings.Join(keys, " "), "_00000001/frames/left/"); !slices.Equal(keys, named) ||
			frames != left {
			t.Errorf("stored are %v, named %v; %d frames, want %d", keys, named, frames, left)
		}
	}
}
