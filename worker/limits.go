package worker

import (
	"cmp"
	"math"
	"sync"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Limits bound what the generators of a worker may use. A zero is the default.
type Limits struct {
	Memory   int64         // bytes, of worker and generators together; at most and by default those of the machine
	FreeDisk int64         // bytes that stay free in Config.Folder, an eighth of a small disk; default 64 MiB
	Bytes    int64         // that a chunk may write; default sample.MaxBytes
	Files    int           // that a chunk may write for each of its samples, temporary ones counted; default 1,000
	Patience time.Duration // that a chunk gets, however quick others were; default 2 min
}

// Filled returns the limits with the defaults for what is 0.
func (l Limits) Filled() Limits {
	if there := MachineMemory(); l.Memory == 0 || there > 0 && there < l.Memory {
		l.Memory = there
	}
	l.FreeDisk = cmp.Or(l.FreeDisk, 64<<20) // four chunks of 20 samples at 730 kB, and room for the worker to go on
	l.Bytes = cmp.Or(l.Bytes, sample.MaxBytes)
	l.Files = cmp.Or(l.Files, 2*sample.MaxFiles) // some write every frame of a video to a file first
	l.Patience = cmp.Or(l.Patience, 2*time.Minute)
	return l
}

// Guard makes the guard of the limits. A tenth of the memory is left to the system and to growth between two polls.
func (l Limits) Guard() *generator.Guard {
	return &generator.Guard{Memory: l.Memory / 10 * 9, FreeDisk: l.FreeDisk}
}

// MachineMemory is the memory of the container that this process runs in, or of the machine, in bytes; 0 if unknown.
func MachineMemory() int64 {
	limit := uint64(math.MaxInt64)
	for _, of := range []memlimit.Provider{memlimit.FromSystem, memlimit.FromCgroup} {
		if n, err := of(); err == nil {
			limit = min(limit, n)
		}
	}
	return int64(limit % math.MaxInt64) // which stands for none
}

// oneCPU is what a generator that needs one CPU and little memory holds of the worker's slots.
const oneCPU = 1000

// weight is what a chunk of a kind holds of the slots: one CPU, or more where the memory that such chunks were seen
// to use is more than a CPU's share of it. So a worker begins with a generator per CPU.
func (h *Handler) weight(k kind) int64 {
	part := 1.1 * h.guard.Part(h.usage.of(k).memory) // the next one may use more
	return min(max(oneCPU, int64(part*float64(h.capacity))), h.capacity)
}

// kind is what chunks have in common whose time and memory can be compared.
type kind struct {
	generator, commit string
	samples           int
}

func (w *work) kind(c task.Chunk) kind { return kind{w.generator.Name, w.generator.Commit, c.Count()} }

// usage is what the chunks of each kind have used so far.
type usage struct {
	mu    sync.Mutex
	kinds map[kind]extremes
}

type extremes struct {
	chunks int           // that finished
	wall   time.Duration // of the longest of them
	memory int64         // bytes, the most that one has used, finished or not
}

func (u *usage) of(k kind) extremes {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.kinds[k]
}

func (u *usage) add(k kind, more extremes) {
	u.mu.Lock()
	defer u.mu.Unlock()
	e := u.kinds[k]
	u.kinds[k] = extremes{e.chunks + more.chunks, max(e.wall, more.wall), max(e.memory, more.memory)}
}

// patience is how long a chunk of a kind may run: ten times the longest of at least three, and at least the floor;
// before that 0, which is as long as there is time. It doubles with each delivery, as some chunks differ by more.
func (e extremes) patience(floor time.Duration, deliveries int) time.Duration {
	if e.chunks < 3 {
		return 0
	}
	return max(floor, 10*e.wall) << min(max(deliveries-1, 0), 10)
}
