package plan

import (
	"math/rand/v2"

	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// partition is the one that S3 has for the keys of a new bucket, request by request:
// it takes the first PUTs of each window, up to a number, and answers the others with
// 503, which uses up nothing. Time goes by in ticks; a request takes one.
type partition struct {
	perSecond int
	window    int // in ticks: AWS does not say in what time S3 counts
	random    *rand.Rand
	taken     func(*upload)

	now      int // the next tick
	left     int // that it takes in the window
	counted  int // the window that left is of, counted from 1
	due      [512][]int32
	streams  []stream
	free     []int32
	waiting  int // streams at work
	refusals int
}

const ticks = 20 // in a second, of requestTime

// upload are requests of which as many are sent at once as store.Parallel.
type upload struct {
	of           *making
	left, flying int // not sent yet; sent and not taken yet
	done         func()
}

// stream sends requests one after the other, each until it is taken.
type stream struct {
	of      *upload
	refused int // in a row
}

func (p *partition) put(of *making, n int, done func()) {
	u := &upload{of: of, left: n, done: done}
	for range min(n, uploads) {
		u.left--
		u.flying++
		id := int32(len(p.streams))
		if last := len(p.free) - 1; last >= 0 {
			id, p.free = p.free[last], p.free[:last]
		} else {
			p.streams = append(p.streams, stream{})
		}
		p.streams[id] = stream{of: u}
		p.waiting++
		p.try(id, 0)
	}
}

func (p *partition) try(id int32, after int) {
	slot := &p.due[(p.now+after)%len(p.due)]
	*slot = append(*slot, id)
}

// backoff is the SDK's: up to 1 s after the first 503, up to twice as long after
// each further one, at most 20 s. TestPartition holds it to the SDK.
func (p *partition) backoff(refused int) int {
	return int(p.random.Float64()*min(20, float64(int(1)<<min(refused-1, 5)))*ticks + 0.5)
}

// step answers the requests of a tick.
func (p *partition) step() {
	slot := p.now % len(p.due)
	list := p.due[slot]
	if n := p.now/p.window + 1; n != p.counted {
		p.counted, p.left = n, p.perSecond*p.window/ticks
	}
	p.now++
	p.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for _, id := range list {
		s := &p.streams[id]
		u := s.of
		if u.of != nil && u.of.inv.over {
			p.end(id)
			continue
		}
		if p.left == 0 {
			p.refusals++
			s.refused++
			p.try(id, p.backoff(s.refused))
			continue
		}
		p.left--
		p.taken(u)
		if u.left > 0 {
			u.left--
			s.refused = 0
			p.try(id, 0)
			continue
		}
		p.end(id)
		if u.flying--; u.flying == 0 {
			u.done()
		}
	}
	p.due[slot] = list[:0]
}

func (p *partition) end(id int32) {
	p.waiting--
	p.streams[id].of = nil
	p.free = append(p.free, id)
}

// making is a chunk in an invocation that a partition may refuse requests.
type making struct {
	inv       *invocation
	chunk     task.Chunk
	generated bool
	settled   bool // it is in one of the invocation's lists
}

// at does something later, unless the invocation is over by then.
func (m *simulation) at(when float64, inv *invocation, do func()) {
	m.events.push(event{at: when, do: func() {
		if !inv.over {
			do()
		}
	}})
}

// put sends requests to the partition.
func (m *simulation) put(of *making, n int, done func()) {
	p := m.partition
	if !m.ticking {
		m.ticking = true
		p.now = max(p.now, int(m.now*ticks)+1)
		m.events.push(event{at: float64(p.now) / ticks, do: m.tick})
	}
	p.put(of, n, done)
}

func (m *simulation) tick() {
	p := m.partition
	p.step()
	if m.splits > 0 && m.now >= m.splits {
		p.perSecond = putsPerPrefix * len(m.index)
	}
	if m.ticking = p.waiting > 0; m.ticking {
		m.events.push(event{at: float64(p.now) / ticks, do: m.tick})
	}
}

// contend makes a task's chunks side by side, in what order and for how long the
// partition says: the cell is taken, the generator runs, the samples are stored and
// committed. It is for tasks of no more chunks than a worker makes at once.
func (m *simulation) contend(msg *message, began float64) {
	t, w := msg.task, m.setting.Worker
	inv := &invocation{message: msg, began: began}
	g, cost := m.index[t.Generator], m.costs[t.Generator]
	todo := m.sort(inv)
	if len(todo) > w.AtOnce(cost, t.ChunkSize) {
		panic("a worker makes fewer chunks at once than a task has")
	}
	if m.random.Float64() < m.nature.lost {
		inv.dies = 1 + m.random.IntN(max(len(todo), 1))
	}
	for _, c := range todo {
		x := &making{inv: inv, chunk: c}
		inv.makings = append(inv.makings, x)
		m.held[g][c.Number] = float32(began + w.Timeout.Seconds() + grace)
		takes, never := m.draw(t, c, len(todo))
		m.at(began, inv, func() { m.put(x, 1, func() { m.taken(x, takes, never) }) })
	}
	if len(todo) == 0 {
		m.at(began+inVain, inv, func() { m.over(inv) })
		return
	}
	m.at(began+(w.Timeout-worker.Reserve(w.Timeout)/2).Seconds(), inv, func() {
		for _, x := range inv.makings {
			if !x.settled {
				inv.open, inv.refused = append(inv.open, x.chunk), true
				if x.generated {
					m.seen.madeAgain++
				}
			}
		}
		m.over(inv)
	})
}

// taken runs the generator.
func (m *simulation) taken(x *making, takes float64, never bool) {
	t, w := x.inv.message.task, m.setting.Worker
	cost := m.costs[t.Generator]
	if limit := x.inv.began + w.Limit().Seconds(); m.now+takes > limit {
		m.at(max(limit, m.now), x.inv, func() { m.settled(x, &x.inv.open, 1) })
		return
	}
	bytes := cost.SampleBytes * int64(x.chunk.Count())
	m.at(m.now+takes, x.inv, func() {
		if never || m.random.Float64() < m.nature.fails {
			m.settled(x, &x.inv.failed, 1)
			return
		}
		x.generated = true
		m.at(m.now+float64(bytes)/uploadRate, x.inv, func() {
			n := cost.objects(t.Format, x.chunk.Count())
			if t.Format == task.Tar {
				n = shardRequests(bytes)
			}
			m.put(x, n, func() { m.put(x, 1, func() { m.stored(x) }) })
		})
	})
}

// stored is after the commit.
func (m *simulation) stored(x *making) {
	inv := x.inv
	if inv.dies > 0 && len(inv.done)+1 == inv.dies {
		m.seen.lost++
		m.seen.busy += m.now - inv.began
		for _, c := range inv.done {
			m.commit(inv.message.task, c)
		}
		inv.over = true
		m.workers--
		m.running--
		m.later(inv.message, max(visibility-(m.now-inv.began), 0))
		return
	}
	m.settled(x, &inv.done, 0)
}

// settled gives the cell of a chunk up, which a commit has done, and ends the
// invocation after the last one.
func (m *simulation) settled(x *making, list *[]task.Chunk, puts int) {
	*list = append(*list, x.chunk)
	x.settled = true
	end := func() {
		if x.inv.released++; x.inv.released == len(x.inv.makings) {
			m.over(x.inv)
		}
	}
	if puts == 0 {
		end()
		return
	}
	m.put(x, puts, end)
}

func (m *simulation) over(inv *invocation) {
	inv.over = true
	took := m.now - inv.began
	m.seen.busy += took
	m.seen.longest = max(m.seen.longest, took)
	m.settle(inv)
	m.seen.took = max(m.seen.took, m.now)
}
