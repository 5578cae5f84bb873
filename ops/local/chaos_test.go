package local

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/workers"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

var (
	chaosSeed      = flag.Uint64("chaos.seed", 0, "seed of the first schedule; 0 takes the time")
	chaosSchedules = flag.Int("chaos.schedules", 0, "schedules, at least; CI has 40, make nightly 500")
	chaosFor       = flag.Duration("chaos.for", 0, "go on with further schedules for so long")
	chaosAtOnce    = flag.Int("chaos.parallel", 4, "schedules side by side: they mostly wait")
	chaosKeep      = flag.Bool("chaos.keep", false, "keep the folders of all schedules, and tell all that happened")
)

// TestChaos runs the pipeline while everything that can end or fail does, at
// moments that a seed decides, and checks after each schedule that the dataset
// is that of an undisturbed run, every index once, and that nothing else is
// left. docs/CHAOS.md says what is done and how to repeat a schedule.
func TestChaos(t *testing.T) {
	if *chaosSchedules == 0 && *chaosFor == 0 {
		t.Skip("-chaos.schedules says how many there are")
	}
	t.Parallel()
	if _, err := opsBinary(); err != nil {
		t.Fatal(err)
	}
	// Samples as files and a second dataset of shards: what every schedule must arrive at, in either format.
	var want map[string]content
	if !t.Run("undisturbed", func(t *testing.T) {
		want = newChaos(t, schedule{workers: 2, batch: moodySamples, format: task.Files, late: true, beside: true}).run()
	}) {
		t.FailNow()
	}
	first := *chaosSeed
	if first == 0 {
		first = uint64(time.Now().UnixMilli())
	}
	began := time.Now()
	var mu sync.Mutex
	next, passed, done := 0, 0, 0
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next >= *chaosSchedules && time.Since(began) >= *chaosFor {
			return 0, false
		}
		next++
		return first + uint64(next) - 1, true
	}
	var group sync.WaitGroup
	for range *chaosAtOnce {
		group.Go(func() {
			for seed, ok := take(); ok; seed, ok = take() {
				ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { newChaos(t, newSchedule(seed)).test(want) })
				mu.Lock()
				if ok {
					passed++
				}
				if done++; done%20 == 0 || !ok { // go test shows subtests at the end only
					fmt.Printf("chaos: %d of %d passed after %s, the last with seed %d\n", passed, done,
						time.Since(began).Round(time.Second), seed)
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	fmt.Printf("chaos: %d of %d schedules passed in %s (seeds %d to %d)\n", passed, next,
		time.Since(began).Round(time.Second), first, first+uint64(next)-1)
}

// chaos is one schedule being carried out.
type chaos struct {
	t     *testing.T
	s     schedule
	list  []task.Run
	dir   string
	front *front
	queues
	stack *keeper
	began time.Time
	mu    sync.Mutex
	told  []string
	begun int // of the list, those whose submission has begun
}

func newChaos(t *testing.T, s schedule) *chaos {
	c := &chaos{t: t, s: s, list: s.runs(), began: time.Now()}
	var err error
	if c.dir, err = os.MkdirTemp("", "vm-dataset-chaos-"); err != nil {
		t.Fatal(err)
	}
	if err := installChaos(c.dir); err != nil {
		t.Fatal(err)
	}
	c.front = &front{seed: s.seed, rate: s.rate, dateSkew: s.dateSkew, hurry: 3 * time.Second, log: c.log}
	c.queues = queues{c.front}
	c.stack = &keeper{front: c.front, log: c.log}
	return c
}

func (c *chaos) log(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, fmt.Sprintf("%7.2f ", time.Since(c.began).Seconds())+fmt.Sprintf(format, args...))
}

// test carries the schedule out and compares the end with the undisturbed run.
func (c *chaos) test(want map[string]content) {
	for name, made := range c.run() {
		made.equals(c.t, want[name])
	}
}

// run carries the schedule out, from nothing to the end, checks what must hold
// there, and returns what was made, by dataset.
func (c *chaos) run() map[string]content {
	c.front.start()
	defer c.front.stop()
	c.stack.order = elsewhere{Dir: c.dir, Workers: c.s.workers, Timeout: chaosTimeout, Visibility: chaosTimeout +
		2*time.Second,
		S3: c.front.S3.URL, SQS: c.front.SQS.URL, Behind: c.s.behind}
	c.t.Cleanup(c.report)
	c.log("schedule %+v", c.s)
	c.stack.start()
	defer c.stack.stop()
	c.wait("the stack is up", func() bool { return c.front.outputs.Load() != nil })

	ctx, cancel := context.WithTimeout(c.t.Context(), 15*time.Minute)
	defer cancel()
	c.disturb(ctx)
	if c.t.Failed() {
		c.t.FailNow()
	}
	c.front.on.Store(false)
	c.log("the disturbance is over: %v", c.front.hits)
	if c.s.late {
		if err := c.stack.calm(chaosTimeout); err != nil {
			c.t.Fatal(err)
		}
		c.drained(ctx)
	}
	if err := errors.Join(fix(c.dir), c.stack.calm(calmTimeout)); err != nil {
		c.t.Fatal(err)
	}
	c.settle(ctx)
	c.refuseConflict(ctx)
	return c.check(ctx)
}

// disturb submits the runs while things happen.
func (c *chaos) disturb(ctx context.Context) {
	began := time.Now()
	var group sync.WaitGroup
	group.Go(func() {
		for i, r := range c.list {
			c.mu.Lock()
			c.begun = i + 1
			c.mu.Unlock()
			c.submit(ctx, r, i)
		}
	})
	for _, e := range c.s.events {
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(began.Add(e.at))):
		}
		c.log("event %s", e)
		if e.what == "replay" { // takes its time
			group.Go(func() { c.ops(ctx, e.take, "dlq", "replay") })
			continue
		}
		if err := c.do(ctx, e); err != nil {
			c.log("that failed: %v", err)
		}
	}
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(began.Add(c.s.length))):
	}
	group.Wait()
}

// do makes one event happen.
func (c *chaos) do(ctx context.Context, e event) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	switch e.what {
	case "kill worker":
		workers := c.stack.children(workers.Variable)
		if len(workers) == 0 {
			return errors.New("there is none")
		}
		return syscall.Kill(workers[e.n%len(workers)], syscall.SIGKILL)
	case "kill gateway":
		for _, pid := range c.stack.children("VM_DATASET_S3") {
			return syscall.Kill(pid, syscall.SIGKILL)
		}
		return errors.New("there is none")
	case "kill stack":
		c.stack.signal(syscall.SIGKILL, e.take)
	case "stop stack":
		c.stack.signal(syscall.SIGTERM, e.take)
	case "send again":
		c.mu.Lock()
		begun := c.begun
		c.mu.Unlock()
		var all []task.Task
		for _, r := range c.list[:max(1, begun)] {
			all = append(all, r.Plan()...)
		}
		return c.send(ctx, all[e.n%len(all)].Body())
	case "receive and forget":
		n, err := c.forget(ctx, e.take)
		c.log("forgot %d", n)
		return err
	case "send junk":
		return c.send(ctx, []string{"no task", `{"type":"nobody","num_samples":1}`, `{"type":"moody","num_samples":-1}`,
			`{"type":"moody","num_samples":1,"sed":1}`}[e.n%4])
	case "outage":
		c.front.window.Store(&window{time.Now().Add(e.take), slowDown, 1})
	case "throttle":
		c.front.window.Store(&window{time.Now().Add(e.take), slowDown, []float64{0.3, 0.5, 0.7}[e.n%3]})
	case "silence":
		c.front.window.Store(&window{time.Now().Add(e.take), silence, 0.3})
	default:
		return fmt.Errorf("nobody knows how to %s", e.what)
	}
	return nil
}

// ops runs the program and tells what it said.
func (c *chaos) ops(ctx context.Context, life time.Duration, args ...string) (said string, status int) {
	said, status, err := runOps(ctx, c.dir, c.front, life, args...)
	c.log("ops %s: exit status %d, %v: %s", strings.Join(args, " "), status, err,
		strings.ReplaceAll(strings.TrimSpace(said), "\n", " | "))
	return said, status
}

// submit submits a run, as an operator does who goes on when something came in
// between.
func (c *chaos) submit(ctx context.Context, r task.Run, n int) {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	first := []string{"submit", "--dataset", r.Dataset.String(), "--run", r.ID, "--samples", fmt.Sprint(r.Samples),
		"--batch", fmt.Sprint(r.Batch), "--chunk", fmt.Sprint(r.ChunkSize),
		"--seed", fmt.Sprint(r.Seed), "--format", string(r.Format)}
	for _, g := range r.Generators {
		first = append(first, "--generator", g.Name)
	}
	args := first
	for try := 0; ctx.Err() == nil; try++ {
		var life time.Duration
		if n == 1 && try < len(c.s.submits) { // the second run has tasks enough to be cut off between them
			life = c.s.submits[try]
		}
		said, status := c.ops(ctx, life, args...)
		switch {
		case status == 0:
			return
		case strings.Contains(said, "there is no run"):
			args = first
		default:
			args = []string{"submit", "--dataset", r.Dataset.String(), "--resume", r.ID}
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	c.t.Errorf("run %s could not be submitted", r.ID)
}

// drained waits until the task queue is empty.
func (c *chaos) drained(ctx context.Context) {
	c.t.Helper()
	c.wait("the task queue is empty", func() bool {
		tasks, _, err := c.depth(ctx)
		return err == nil && tasks == 0
	})
}

// settle does what an operator does when the trouble is over: replays the dead
// tasks and sends what is missing, until all is there.
func (c *chaos) settle(ctx context.Context) {
	for range 10 {
		c.drained(ctx)
		found, err := c.drop(ctx, string(task.InvalidTask), string(task.UnknownGenerator), string(task.Conflict))
		if err != nil {
			c.t.Fatal(err)
		}
		c.log("the DLQ has %v", found)
		_, dead, err := c.depth(ctx)
		if err != nil {
			c.t.Fatal(err)
		}
		whole := dead == 0
		if dead > 0 {
			c.ops(ctx, 0, "dlq", "replay")
		}
		for _, r := range c.list {
			said, status := c.ops(ctx, 0, "repair", "--run", r.ID, "--dataset", r.Dataset.String())
			if status != 0 {
				c.t.Errorf("repair --run %s: %s", r.ID, said)
			}
			whole = whole && strings.Contains(said, "nothing is missing")
		}
		if whole {
			return
		}
	}
	c.t.Errorf("not whole after ten rounds of replay and repair")
}

// refuseConflict sends a task whose seed is not that of what is committed: it
// must not change anything.
func (c *chaos) refuseConflict(ctx context.Context) {
	x := task.Task{Generator: moody, NumSamples: 4, Seed: 99, Format: c.s.format, ChunkSize: chaosChunk}
	if err := c.send(ctx, x.Body()); err != nil {
		c.t.Fatal(err)
	}
	c.drained(ctx)
	found, err := c.drop(ctx, string(task.Conflict))
	if err != nil || found[string(task.Conflict)] != 1 {
		c.t.Errorf("a conflicting task: the DLQ has %v, %v", found, err)
	}
}

// check checks what must hold at the end of every schedule.
func (c *chaos) check(ctx context.Context) map[string]content {
	samples := map[string]map[string]int{} // by dataset and generator
	for _, r := range c.list {
		if said, status := c.ops(ctx, 0, "verify", "--run", r.ID, "--dataset", r.Dataset.String()); status != 0 {
			c.t.Errorf("ops verify --run %s has exit status %d: %s", r.ID, status, said)
		}
		name := r.Dataset.String()
		if samples[name] == nil {
			samples[name] = map[string]int{}
		}
		for _, g := range r.Generators {
			samples[name][g.Name] = r.Samples
		}
	}
	if tasks, dead, err := c.depth(ctx); err != nil || tasks+dead > 0 {
		c.t.Errorf("the queue has %d messages, the DLQ %d, %v", tasks, dead, err)
	}
	r := &rig{dir: c.dir}
	if left := r.leftovers(); len(left) > 0 {
		c.t.Errorf("left in the temporary folders: %v", left)
	}
	c.stack.stop()
	if left := processesOf(c.dir); len(left) > 0 {
		c.t.Errorf("processes are left: %v", left)
	}
	made := map[string]content{}
	for name, samples := range samples {
		w, err := readWorld(c.dir, task.Dataset(name))
		if err != nil {
			c.t.Fatal(err)
		}
		made[name] = w.content(c.t, samples)
	}
	return made
}

// wait polls until a condition holds.
func (c *chaos) wait(what string, holds func() bool) {
	c.t.Helper()
	for limit := time.Now().Add(8 * time.Minute); !holds(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(limit) {
			c.t.Fatalf("never: %s", what)
		}
	}
}

// report tells of a schedule that failed all that is needed to understand it.
func (c *chaos) report() {
	if !c.t.Failed() && !*chaosKeep {
		_ = os.RemoveAll(c.dir)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t.Logf("repeat with: go test ./ops/local -run TestChaos -chaos.schedules 1 -chaos.seed %d\n%s", c.s.seed,
		strings.Join(c.told, "\n"))
	if *chaosKeep {
		c.t.Logf("everything is kept in %s", c.dir)
		return
	}
	c.t.Log(tails(c.dir))
	_ = os.RemoveAll(filepath.Clean(c.dir))
}
