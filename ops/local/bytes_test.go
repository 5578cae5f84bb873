package local

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// maze is the real generator of the property below, with its environment.
const maze = "maze-task-data-generator"

var preparedMaze = sync.OnceValues(func() (string, error) {
	b := environment.Builder{Root: filepath.Join("..", "..", "generators"), Dir: filepath.Join(shared(), "real"),
		Names: []string{maze}}
	_, err := b.Build(context.Background())
	return filepath.Join(b.Dir, generator.IndexFile), err
})

// What the same seed and chunk size make is the same bytes, whatever the batch
// size, the number of workers and what is killed meanwhile.
func TestSameBytesWhateverHappens(t *testing.T) {
	const chunkSize = 3
	both := []task.Format{task.Files, task.Tar}
	type trials struct {
		name     string
		prepared func() (string, error)
		formats  []task.Format
		samples  int
		trials   int
		chunk    time.Duration // how long one takes, about
	}
	all := []trials{{"good", prepared, both, 12, 2, 100 * time.Millisecond}}
	if os.Getenv("SCALE") != "" { // a chunk of mazes takes ten times the CPU of one of the other
		all = []trials{{maze, preparedMaze, both, 12, 3, time.Second}, {"good", prepared, both, 12, 3, 100 * time.Millisecond}}
	}
	for _, g := range all {
		samples := g.samples
		for _, format := range g.formats {
			t.Run(fmt.Sprintf("%s/%s", g.name, format), func(t *testing.T) {
				t.Parallel()
				seed := time.Now().UnixNano()
				random := rand.New(rand.NewPCG(uint64(seed), 0)) //nolint:gosec // repeatable
				var want, shards map[string][]byte
				for trial := range 1 + g.trials {
					batch, workers, kills := samples, 1, 0 // the first one is not disturbed
					if trial > 0 {
						batch, workers, kills = 2+random.IntN(samples), 1+random.IntN(3), 1+random.IntN(2)
					}
					if trial == 1 { // whole chunks, so that the shards are the same ones, too
						batch = chunkSize * (1 + random.IntN(samples/chunkSize-1))
					}
					run := task.Run{Seed: 3, Samples: samples, Batch: batch, ChunkSize: chunkSize, Format: format,
						Generators: []task.RunGenerator{{Name: g.name}}}
					t.Logf("batch %d, %d workers, %d kills (seed %d)", batch, workers, kills, seed)

					dir := folderWith(t, g.prepared)
					for n := range kills {
						r, kill := upElsewhere(t, dir, workers)
						if n == 0 {
							for _, x := range run.Plan() {
								r.sendTask(x)
							}
						}
						committed := random.IntN(samples/chunkSize-1) + n
						eventually(t, "some chunks are committed", func() bool {
							found, _ := filepath.Glob(filepath.Join(objectsDir(dir), Bucket, task.DefaultDataset.Prefix(task.ReceiptKind),
								g.name, "*.json"))
							return len(found) >= committed
						})
						time.Sleep(time.Duration(random.Int64N(int64(g.chunk)))) // anywhere in the next chunk
						kill()
					}
					r := up(t, dir, Config{Workers: workers})
					if kills == 0 {
						for _, x := range run.Plan() {
							r.sendTask(x)
						}
					}
					r.idle()
					r.holds(g.name, task.Range{Start: 0, End: samples})
					if d := r.failures(g.name); len(d) > 0 {
						t.Errorf("reported %s: %s", d[0].Cause, d[0].Detail)
					}
					got := contents(r, g.name, format)
					if want == nil {
						want = got
					}
					if len(got) != len(want) || len(got) < 5*samples {
						t.Errorf("%d objects, want %d", len(got), len(want))
					}
					for key, data := range want {
						if !bytes.Equal(got[key], data) {
							t.Errorf("%s differs", key)
						}
					}
					if format == task.Tar && batch%chunkSize == 0 {
						got := map[string][]byte{} // without the epochs of whoever was the last to try
						for key, data := range r.stored(g.name) {
							got[key[:strings.LastIndex(key, "_e")]] = data
						}
						if shards == nil {
							shards = got
						}
						if len(shards) != samples/chunkSize || !maps.EqualFunc(got, shards, bytes.Equal) {
							t.Errorf("the shards %v differ from %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(shards)))
						}
					}
					if err := r.Down(); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

// contents are the stored objects by key, and for shards their members: the cut
// of shards follows the batches where these are no multiples of the chunk size.
func contents(r *rig, generator string, format task.Format) map[string][]byte {
	stored := r.stored(generator)
	if format == task.Files {
		return stored
	}
	members := map[string][]byte{}
	for key, data := range stored {
		for name, content := range unpack(r.t, data) {
			if members[name] != nil {
				r.t.Errorf("%s is in two shards, one of them %s", name, key)
			}
			members[name] = content
		}
	}
	return members
}
