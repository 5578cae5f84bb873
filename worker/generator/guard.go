package generator

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Guard watches the generators that run in one worker and stops one before the machine is short of memory or disk: the
// largest, so that the others go on. It also holds each to its Request's limits. It is safe for concurrent use.
type Guard struct {
	Memory   int64 // bytes that this process and all generators may use together; 0 is no limit
	FreeDisk int64 // bytes that stay free where generators write, or an eighth of the disk if that is less; 0 is no limit

	mu       sync.Mutex
	runs     map[*guarded]struct{}
	watching bool
	diskNext time.Time // after one was stopped for the disk: its files are being removed
}

// Watched are the extremes that were seen while a generator ran under a Guard.
type Watched struct {
	MinFreeDisk  int64 // bytes free where it writes
	PeakGroupRSS int64 // bytes, of all its processes together
}

type guarded struct {
	request Request
	pid     int // of its sandbox
	given   int // files and folders that it did not make
	began   time.Time
	stop    func(error)
	seen    Watched
	memory  int64 // bytes, at the last check
	bytes   int64 // in its folder, at the last walk
	files   int
	walk    time.Time // not before
	stopped bool
}

// How often the guard checks. A check of one generator costs about 0.1 ms of CPU, so two a second are 0.02 %. The
// nearer a limit, the more often: nothing fills memory or disk much faster than growth. A walk through what a generator
// has written costs 1 ms per thousand files, and is never more than a twentieth of the time; checks together are never
// more than a fifth, when a limit is near.
const (
	seldom    = 500 * time.Millisecond
	often     = 50 * time.Millisecond
	growth    = 1 << 30 // bytes a second, of one generator
	walkEvery = time.Second
	diskGrace = 2 * time.Second
)

// Part is how much of the memory that there is for generators a number of bytes is; 0 if there is no limit.
func (g *Guard) Part(bytes int64) float64 {
	if g.Memory == 0 {
		return 0
	}
	return float64(bytes) / float64(max(g.Memory-residentMemory(ownProcess), 1))
}

// room returns why a disk has no room for another generator, or nil. It requires twice of what has to stay free.
func (g *Guard) room(scratch string) *Failure {
	if g == nil || g.FreeDisk == 0 {
		return nil
	}
	free, floor, err := g.disk(scratch)
	if err != nil || free >= 2*floor {
		return nil
	}
	return &Failure{Cause: task.DiskFull, ExitCode: -1, Detail: fmt.Sprintf(
		"only %s are free where generators write, %s are needed to start one", megabytes(free), megabytes(2*floor))}
}

// disk returns what is free, and how much of it has to stay free.
func (g *Guard) disk(scratch string) (free, floor int64, err error) {
	free, size, err := diskSpace(scratch)
	return free, min(g.FreeDisk, size/8), err
}

// enter begins to watch a run. stop is called with a *Failure when it has to end.
func (g *Guard) enter(r Request, pid, given int, stop func(error)) *guarded {
	if g == nil {
		return nil
	}
	now := time.Now()
	run := &guarded{request: r, pid: pid, given: given, began: now, stop: stop, walk: now.Add(walkEvery)}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.runs == nil {
		g.runs = map[*guarded]struct{}{}
	}
	g.runs[run] = struct{}{}
	if !g.watching {
		g.watching = true
		go g.loop()
	}
	return run
}

// leave ends the watch. It checks the disk once more: what filled it is still there.
func (g *Guard) leave(run *guarded) Watched {
	if g == nil {
		return Watched{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.runs, run)
	run.checkDisk(g)
	return run.seen
}

func (g *Guard) loop() {
	for wait := often; wait > 0; wait = g.check() {
		time.Sleep(wait)
	}
}

// check checks every run, stops those that have to end, and returns after how long to check again: 0 if there is none.
func (g *Guard) check() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.runs) == 0 {
		g.watching = false
		return 0
	}
	began := time.Now()
	next := min(seldom, g.checkMemory(), g.checkDisk(began))
	for run := range g.runs {
		if !run.stopped {
			run.checkLimits(began)
		}
	}
	return max(next, often, 4*time.Since(began))
}

// checkMemory measures every run, stops the largest until the rest fits, and returns how soon the limit could come.
func (g *Guard) checkMemory() time.Duration {
	own := residentMemory(ownProcess)
	used := own
	families := map[*guarded][]int{}
	for run := range g.runs {
		if run.stopped {
			continue
		}
		pids := family(run.pid)
		families[run] = pids
		run.memory = residentMemory(pids...)
		run.seen.PeakGroupRSS = max(run.seen.PeakGroupRSS, run.memory)
		used += run.memory
	}
	if g.Memory == 0 {
		return seldom
	}
	if used > g.Memory {
		// What processes share has been counted for each of them. To count it once costs 10 ms a GB.
		used = own
		for run, pids := range families {
			run.memory = proportionalMemory(pids...)
			used += run.memory
		}
	}
	count := len(families)
	for used > g.Memory && len(families) > 0 {
		largest := slices.MaxFunc(slices.Collect(maps.Keys(families)),
			func(a, b *guarded) int { return cmp.Compare(a.memory, b.memory) })
		largest.end(task.OutOfMemory, "the generator used %s when the %d that ran used %s of %s", megabytes(largest.memory),
			count, megabytes(used), megabytes(g.Memory))
		delete(families, largest)
		used -= largest.memory
	}
	return timeUntil(g.Memory-used, len(families))
}

// checkDisk stops the run that has written most when a disk is nearly full. It returns how soon that could be.
func (g *Guard) checkDisk(now time.Time) time.Duration {
	next := seldom
	var largest *guarded
	var least int64
	for run := range g.runs {
		left, ok := run.checkDisk(g)
		if !ok || g.FreeDisk == 0 {
			continue
		}
		next = min(next, timeUntil(left, len(g.runs)))
		if left < 0 && !run.stopped && now.After(g.diskNext) {
			run.measure()
			if largest == nil || run.bytes > largest.bytes {
				largest, least = run, run.seen.MinFreeDisk
			}
		}
	}
	if largest != nil {
		largest.end(task.DiskFull, "only %s were free on the disk, of which the generator had written %s", megabytes(least),
			megabytes(largest.bytes))
		g.diskNext = now.Add(diskGrace)
	}
	return next
}

// checkDisk notes what is free on the disk of a run and returns how much that is above what has to stay free.
func (run *guarded) checkDisk(g *Guard) (left int64, ok bool) {
	free, floor, err := g.disk(run.request.Scratch)
	if err != nil {
		return 0, false
	}
	if run.seen.MinFreeDisk == 0 || free < run.seen.MinFreeDisk {
		run.seen.MinFreeDisk = max(free, 1)
	}
	return free - floor, true
}

func (run *guarded) checkLimits(now time.Time) {
	r := run.request
	if r.Patience != nil {
		if limit := r.Patience(); limit > 0 && now.Sub(run.began) > limit {
			run.end(task.TimedOut, "the generator was still running after %s, many times as long as other chunks of it took",
				limit.Round(time.Second))
			return
		}
	}
	if r.MaxBytes == 0 && r.MaxFiles == 0 || now.Before(run.walk) {
		return
	}
	run.measure()
	run.walk = time.Now().Add(max(walkEvery, 20*time.Since(now)))
	switch {
	case r.MaxFiles > 0 && run.files > r.MaxFiles:
		run.end(task.UnsafeOutput, "the generator has written more than %d files", r.MaxFiles)
	case r.MaxBytes > 0 && run.bytes > r.MaxBytes:
		run.end(task.UnsafeOutput, "the generator has written more than %s", megabytes(r.MaxBytes))
	}
}

func (run *guarded) end(cause task.Cause, format string, args ...any) {
	run.stopped = true
	run.stop(&Failure{Cause: cause, Detail: fmt.Sprintf(format, args...), ExitCode: -1})
}

// measure walks through what a generator has written: files and folders of every
// kind, and the bytes they take on the disk. It goes no further than the limit of files.
func (run *guarded) measure() {
	run.bytes, run.files = 0, -run.given
	_ = filepath.WalkDir(run.request.Scratch, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it was removed meanwhile
		}
		if run.files++; run.request.MaxFiles > 0 && run.files > run.request.MaxFiles {
			return fs.SkipAll
		}
		if e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				size := info.Size()
				if stat, ok := info.Sys().(*syscall.Stat_t); ok {
					size = stat.Blocks * 512 // whatever the disk's own blocks are
				}
				run.bytes += size
			}
		}
		return nil
	})
}

// timeUntil is how soon a number of generators could use up what is left.
func timeUntil(left int64, generators int) time.Duration {
	return time.Duration(float64(max(left, 0)) / float64(growth*max(generators, 1)) * float64(time.Second))
}

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }
