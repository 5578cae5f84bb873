package queue

import (
	"context"
	"time"
)

// countsLag is how long the counts must be zero before the queue is empty. AWS says that
// they "may not achieve consistency until at least 1 minute after the producers stop
// sending messages"; the half minute more is for that "at least".
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html
const countsLag = 90 * time.Second

// IsExact declares that this queue is one server, as on the local stack: its counts do
// not lag, and a receive finds every message without long polling.
func (c *Client) IsExact() { c.lag, c.wait = 0, 0 }

// Idle decides when the task queue is empty: no message waits, is delayed or in flight.
// No single count can tell, because counts lag.
type Idle struct {
	lag   time.Duration
	empty time.Time // since when the counts are zero; zero if they are not
}

// NewIdle returns the Idle of this queue.
func (c *Client) NewIdle() *Idle { return &Idle{lag: c.lag} }

// Observe takes the counts of a moment and reports whether the queue is idle: the counts
// have been zero for as long as they may lag, and in two polls at least, so that what is
// read after the first one is newer than the end of the last task.
func (i *Idle) Observe(d Depth, now time.Time) bool {
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

// Remaining is how much longer the counts must be zero.
func (i *Idle) Remaining(now time.Time) time.Duration {
	if i.empty.IsZero() {
		return i.lag
	}
	return max(0, i.lag-now.Sub(i.empty))
}

// WaitIdle polls the task queue at an interval until it is idle. It calls report after
// each poll with the counts and how much longer they must be zero.
func (c *Client) WaitIdle(ctx context.Context, every time.Duration,
	report func(d Depth, remaining time.Duration)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for idle := c.NewIdle(); ; {
		depth, err := c.Depth(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		if idle.Observe(depth, now) {
			return nil
		}
		report(depth, idle.Remaining(now))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
