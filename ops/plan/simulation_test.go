package plan

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// nature is what goes wrong in a simulation: parts of all chunks, invocations or
// deliveries.
type nature struct {
	spread float64 // of chunks' times: standard deviation of their logarithm
	heavy  float64 // chunks that take five times as long
	redraw float64 // chunks whose generator fails on the first seed: two runs are lost
	fails  float64 // chunks that fail in one delivery and pass in another
	never  float64 // chunks that never pass
	lost   float64 // invocations whose worker is killed
	twice  float64 // deliveries that happen again
	quick  bool    // a chunk that never passes fails within a second
}

// rough is worse than what was seen: every generator's chunks differ like the worst
// one's, and something goes wrong with one of a hundred.
var rough = nature{spread: 0.15, heavy: 0.002, redraw: 0.005, fails: 0.002, never: 0.0001, lost: 0.002, twice: 0.002}

// What a stack is configured to, in seconds.
const (
	visibility  = 960
	maxReceives = 3
	grace       = 10
)

// inVain is how long it takes to find cells committed or held, in seconds: each is put,
// refused and read, all of a task side by side.
var inVain = 2 * requestTime.Seconds()

// simulation makes a run, event by event: the tasks that ops submit sends, chunks on
// their grid, retries by the table of causes, and Lambda as a plan sees it.
type simulation struct {
	setting Setting
	nature  nature
	random  *rand.Rand
	costs   map[string]Cost
	index   map[string]int // of generators
	state   [][]byte       // of each chunk of each generator
	held    [][]float32    // until when a chunk is held, in seconds
	now     float64
	events  events
	queue   []*message // visible, in order
	head    int

	running, idle, workers, flying int
	puts                           [][]int32  // in each second, by generator
	partition                      *partition // if S3 refuses what is too much for one
	splits                         float64    // when S3 splits it, in seconds; 0 is never
	ticking                        bool
	seen                           observed
}

// States of a chunk.
const (
	open = iota
	committed
	dead
)

// observed is what a simulation ends with.
type observed struct {
	took, busy, longestWait                            float64 // seconds
	deliveries, cold, mostRunning, mostFlying          int
	redelivered, continued, lost, doubled, busyPutOff  int
	chunks, commits, dead, deadMessages, putsPerSecond int
	putsPerGenerator                                   int
	longest                                            float64 // invocation with a partition, in seconds
	madeAgain                                          int     // chunks that were generated and not stored in time
}

type message struct {
	task     task.Task
	receives int
	since    float64 // visible
	twin     bool    // of a delivery that happened twice
}

type event struct {
	at     float64
	end    *invocation // or a message that becomes visible
	msg    *message
	flying bool // it was in flight until then
	do     func()
}

type events []event

// push and next keep the earliest event first. container/heap does it too, at
// several times the cost.
func (e *events) push(x event) {
	list := append(*e, x)
	i := len(list) - 1
	for i > 0 && list[(i-1)/2].at > x.at {
		list[i] = list[(i-1)/2]
		i = (i - 1) / 2
	}
	list[i] = x
	*e = list
}

func (e *events) next() event {
	list := *e
	first, x := list[0], list[len(list)-1]
	list = list[:len(list)-1]
	for i := 0; len(list) > 0; {
		child := 2*i + 1
		if child+1 < len(list) && list[child+1].at < list[child].at {
			child++
		}
		if child >= len(list) || list[child].at >= x.at {
			list[i] = x
			break
		}
		list[i] = list[child]
		i = child
	}
	*e = list
	return first
}

// invocation is one delivery at work.
type invocation struct {
	message *message
	lost    bool
	done    []task.Chunk
	open    []task.Chunk // no time was left
	held    []task.Chunk // by another worker
	failed  []task.Chunk
	until   float64 // when what is held is free

	// With a partition:
	began    float64
	makings  []*making
	released int
	dies     int // with the commit of the chunk of this number, counted from 1
	refused  bool
	over     bool
}

func simulate(run task.Run, costs map[string]Cost, s Setting, n nature) observed {
	m := newSimulation(run, costs, s, n)
	m.loop()
	m.finish()
	return m.seen
}

func newSimulation(run task.Run, costs map[string]Cost, s Setting, n nature) *simulation {
	m := &simulation{setting: s, nature: n, random: rand.New(rand.NewPCG(1, 2)), costs: costs, index: map[string]int{}}
	for i, g := range run.Generators {
		size := run.Chunk(g)
		m.index[g.Name] = i
		m.state = append(m.state, make([]byte, (run.Start+run.Samples+size-1)/size))
		m.held = append(m.held, make([]float32, len(m.state[i])))
		m.puts = append(m.puts, nil)
	}
	for _, t := range run.Plan() {
		m.queue = append(m.queue, &message{task: t})
	}
	return m
}

// most is how many invocations Lambda allows now.
func (m *simulation) most() int {
	return min(m.setting.Concurrency, firstWorkers+int(moreWorkers*m.now))
}

func (m *simulation) loop() {
	for {
		for m.running < m.most() && m.head < len(m.queue) {
			msg := m.queue[m.head]
			m.queue[m.head] = nil
			m.head++
			m.seen.longestWait = max(m.seen.longestWait, m.now-msg.since)
			m.flying++
			m.seen.mostFlying = max(m.seen.mostFlying, m.flying)
			m.deliver(msg)
		}
		if m.head == len(m.queue) && len(m.events) == 0 {
			return
		}
		// Until Lambda has all its workers, more may start each second.
		if m.head < len(m.queue) && m.most() < m.setting.Concurrency && (len(m.events) == 0 || m.events[0].at > m.now+1) {
			m.now = math.Floor(m.now) + 1
			continue
		}
		e := m.events.next()
		m.now = e.at
		if e.do != nil {
			e.do()
			continue
		}
		if e.end != nil {
			m.settle(e.end)
			m.seen.took = max(m.seen.took, m.now)
			continue
		}
		if e.flying {
			m.flying--
		}
		m.visible(e.msg)
	}
}

func (m *simulation) visible(msg *message) {
	msg.since = m.now
	m.queue = append(m.queue, msg)
}

// later makes a message visible after some seconds; until then it is in flight.
func (m *simulation) later(msg *message, after float64) {
	m.events.push(event{at: m.now + after, msg: &message{task: msg.task, receives: msg.receives, twin: msg.twin},
		flying: true})
}

// deliver gives a message to a worker.
func (m *simulation) deliver(msg *message) {
	m.seen.deliveries++
	msg.receives++
	if msg.receives > 1 {
		m.seen.redelivered++
	}
	m.running++
	m.seen.mostRunning = max(m.seen.mostRunning, m.running)
	began := m.now
	if m.idle > 0 {
		m.idle--
	} else {
		m.workers++
		m.seen.cold++
		began += coldStart.Seconds() * m.vary()
	}
	if !msg.twin && m.random.Float64() < m.nature.twice {
		m.seen.doubled++
		m.events.push(event{at: m.now + 60*m.random.Float64(), msg: &message{task: msg.task, receives: msg.receives,
			twin: true}})
	}
	if m.partition != nil && (m.splits == 0 || m.now < m.splits) {
		m.contend(msg, began)
		return
	}
	inv, took := m.compute(msg, began)
	if m.random.Float64() < m.nature.lost {
		m.die(inv, began, took*m.random.Float64())
		return
	}
	m.seen.busy += took
	m.events.push(event{at: began + took, end: inv})
}

// vary is a factor around 1.
func (m *simulation) vary() float64 {
	s := m.nature.spread
	return math.Exp(s*m.random.NormFloat64() - s*s/2)
}

// compute decides what becomes of each chunk of a task, and how long it takes.
func (m *simulation) compute(msg *message, began float64) (*invocation, float64) {
	t, w := msg.task, m.setting.Worker
	inv := &invocation{message: msg}
	g, cost := m.index[t.Generator], m.costs[t.Generator]
	todo := m.sort(inv)
	limit := w.Limit().Seconds()
	slots := make([]float64, min(max(w.AtOnce(cost, t.ChunkSize), 1), max(len(todo), 1)))
	for _, c := range todo {
		m.held[g][c.Number] = float32(began + w.Timeout.Seconds() + grace)
		i := slices.Index(slots, slices.Min(slots))
		takes, never := m.draw(t, c, len(slots))
		end := slots[i] + takes
		switch {
		case end > limit:
			slots[i] = limit
			inv.open = append(inv.open, c)
			continue
		case never || m.random.Float64() < m.nature.fails:
			inv.failed = append(inv.failed, c)
		default:
			inv.done = append(inv.done, c)
			puts := 2 + cost.objects(t.Format, c.Count())
			if t.Format == task.Tar {
				puts = 2 + shardRequests(cost.SampleBytes*int64(c.Count()))
			}
			m.count(g, began+end, puts)
		}
		slots[i] = end
	}
	took := max(slices.Max(slots), inVain)
	if len(inv.done) > 0 {
		took += w.store(1, int64(t.ChunkSize)*cost.SampleBytes, cost.objects(t.Format, t.ChunkSize))
	}
	return inv, min(took, w.Timeout.Seconds())
}

// sort returns the chunks of a message that are to be made, and notes which are held.
func (m *simulation) sort(inv *invocation) (todo []task.Chunk) {
	g := m.index[inv.message.task.Generator]
	for _, c := range inv.message.task.Chunks() {
		switch {
		case m.state[g][c.Number] != open:
		case float64(m.held[g][c.Number]) > m.now:
			inv.held = append(inv.held, c)
			inv.until = max(inv.until, float64(m.held[g][c.Number]))
		default:
			todo = append(todo, c)
		}
	}
	return todo
}

// draw says how long a chunk takes beside others, so many in all, and whether it
// never passes: that is the chunk's, not the delivery's.
func (m *simulation) draw(t task.Task, c task.Chunk, beside int) (takes float64, never bool) {
	takes = m.setting.chunk(m.costs[t.Generator], c.Count(), beside) * m.vary()
	if m.random.Float64() < m.nature.heavy {
		takes *= 5
	}
	if m.random.Float64() < m.nature.redraw {
		takes *= 3
	}
	never = float64(task.Seed(t.Generator, 1, t.ChunkSize, c.Number, 0))/task.MaxSeed < m.nature.never
	if never && m.nature.quick {
		takes = 1
	}
	return takes, never
}

func (m *simulation) count(generator int, at float64, puts int) {
	second := int(at)
	for len(m.puts[generator]) <= second {
		m.puts[generator] = append(m.puts[generator], make([]int32, max(1024, second/4))...)
	}
	m.puts[generator][second] += int32(puts)
}

// die is the end of a worker: what it had committed stays, its holds end with
// their deadline, and its message comes back with its visibility.
func (m *simulation) die(inv *invocation, began, after float64) {
	m.seen.lost++
	m.seen.busy += after
	part := int(float64(len(inv.done)) * m.random.Float64())
	for _, c := range inv.done[:part] {
		m.commit(inv.message.task, c)
	}
	m.workers--
	m.events.push(event{at: began + after, end: &invocation{lost: true}})
	m.later(inv.message, visibility)
}

func (m *simulation) commit(t task.Task, c task.Chunk) {
	g := m.index[t.Generator]
	if m.state[g][c.Number] != open {
		panic(fmt.Sprintf("chunk %d of %s was made twice", c.Number, t.Generator))
	}
	m.state[g][c.Number] = committed
	m.seen.commits++
}

// settle does with a message what worker.Handler does.
func (m *simulation) settle(inv *invocation) {
	m.running--
	if inv.lost {
		return // in flight until its visibility ends
	}
	m.idle++
	msg := inv.message
	for _, c := range inv.done {
		m.commit(msg.task, c)
	}
	for _, list := range [][]task.Chunk{inv.open, inv.failed} {
		for _, c := range list {
			m.held[m.index[msg.task.Generator]][c.Number] = 0
		}
	}
	if len(inv.open) > 0 && len(inv.done) == 0 {
		inv.failed, inv.open = append(inv.failed, inv.open...), nil
	}
	switch {
	case len(inv.failed) > 0 && msg.receives >= maxReceives:
		for i, c := range inv.failed {
			m.state[m.index[msg.task.Generator]][c.Number] = dead
			m.seen.dead++
			if i == 0 || inv.failed[i-1].Number != c.Number-1 {
				m.seen.deadMessages++
			}
		}
		m.sendOn(msg, append(inv.open, inv.held...))
		m.flying--
	case len(inv.failed) > 0:
		cause := task.Crashed
		if inv.refused {
			cause = task.Storage
		}
		m.later(msg, cause.Delay(msg.receives).Seconds())
	case len(inv.open) > 0:
		m.sendOn(msg, append(inv.open, inv.held...))
		m.flying--
	case len(inv.held) > 0:
		m.seen.busyPutOff++
		wait := inv.until - m.now
		if msg.receives <= 1 {
			wait = min(wait, 30)
		}
		m.later(msg, max(wait, 0)+1)
	default:
		m.flying--
	}
}

// sendOn sends what is left as a new message.
func (m *simulation) sendOn(msg *message, left []task.Chunk) {
	if len(left) == 0 {
		return
	}
	all := left[0].Keep
	for _, c := range left {
		all.Start, all.End = min(all.Start, c.Keep.Start), max(all.End, c.Keep.End)
	}
	m.seen.continued++
	m.visible(&message{task: msg.task.Part(all)})
}

func (m *simulation) finish() {
	for _, list := range m.state {
		m.seen.chunks += len(list)
	}
	sums := map[int]int{} // by second
	for _, list := range m.puts {
		for second, n := range list {
			m.seen.putsPerGenerator = max(m.seen.putsPerGenerator, int(n))
			sums[second] += int(n)
			m.seen.putsPerSecond = max(m.seen.putsPerSecond, sums[second])
		}
	}
}
