package queue

import (
	"context"
	"time"
)

// countsLag is for how long a queue must look empty before it is. AWS says of the
// counts that they "may not achieve consistency until at least 1 minute after the
// producers stop sending messages"; the half minute more is for that "at least".
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html
const countsLag = 90 * time.Second

// IsExact says that this queue is one server, whose counts do not lag and which a
// receive asks for all that it has without waiting: it is one of the local stack.
func (c *Client) IsExact() { c.lag, c.wait = 0, 0 }

// Idle decides when the task queue is empty, which no single count can tell: it
// says that nothing waits, is delayed or with a worker, and nothing that anybody
// does without sending more will change that.
type Idle struct {
	lag   time.Duration
	empty time.Time // since when the counts are zero; zero if they are not
}

// NewIdle returns what decides about this queue.
func (c *Client) NewIdle() *Idle { return &Idle{lag: c.lag} }

// See takes a count and when it was made, and reports whether the queue is idle:
// the counts have been zero for as long as they may lag, and at two looks at least,
// so that what is looked at beside them is later than the last task's end.
func (i *Idle) See(d Depth, now time.Time) bool {
	switch {
	case d.Total() > 0:
		i.empty = time.Time{}
		return false
	case i.empty.IsZero():
		i.empty = now
		return false
	}
	return now.Sub(i.empty) >= i.lag
}

// Left is how long the queue must look empty still.
func (i *Idle) Left(now time.Time) time.Duration {
	if i.empty.IsZero() {
		return i.lag
	}
	return max(0, i.lag-now.Sub(i.empty))
}

// WaitIdle looks at the task queue at each tick until it is idle, and tells each
// look.
func (c *Client) WaitIdle(ctx context.Context, every time.Duration, tell func(d Depth, left time.Duration)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for idle := c.NewIdle(); ; {
		depth, err := c.Depth(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		if idle.See(depth, now) {
			return nil
		}
		tell(depth, idle.Left(now))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
