package monitor

import (
	"context"
	"errors"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// Watch polls until the run is complete, or nothing is left that could complete it. Each
// poll is shown: live on a terminal, else as a line, or as JSON.
func (m *Monitor) Watch(ctx context.Context, o *ui.Output, interval time.Duration) (*Progress, error) {
	if o.Terminal && !o.JSON {
		p, err := m.watchLive(ctx, interval)
		if p != nil { // the live view leaves nothing behind
			err = errors.Join(err, o.Print(p, p.Table))
		}
		return p, err
	}
	return m.WatchLines(ctx, o, interval, func(p *Progress) error {
		if o.JSON {
			return o.Print(p, nil)
		}
		o.Say("%s", p.line())
		return nil
	})
}

// WatchLines polls as Watch does and reports each poll.
func (m *Monitor) WatchLines(ctx context.Context, o *ui.Output, interval time.Duration,
	report func(*Progress) error) (*Progress, error) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		p, err := m.Poll(ctx)
		switch {
		case err == nil:
			done := m.done(p)
			if err := report(p); err != nil {
				return nil, err
			}
			if done {
				return p, nil
			}
		case m.toleratesFailure(ctx):
			o.Say("poll failed: %s; trying again", ui.Plain(err))
		default:
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// done reports whether a watch can end: the run is complete, or nothing is left that
// could commit more.
func (m *Monitor) done(p *Progress) bool {
	idle := m.idle.Observe(p.Queue, p.Time)
	p.Settling = 0
	if !p.Complete() && !idle && p.Queue.Total() == 0 {
		p.Settling = m.idle.Remaining(p.Time).Seconds()
	}
	return p.Complete() || idle
}
