package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// clockSkew is how far the clocks of the bucket and of the machine that submitted a run may differ.
const clockSkew = time.Hour

// How many failure reports are read in one poll, which takes a second with S3 and a
// fiftieth of a cent, and of one run, which bounds the memory of a watch.
const (
	readPerPoll = 512
	readPerRun  = 20_000
)

// countFailures counts the failure reports of the run by cause. It lists the generators
// side by side, but for those that are complete, which get no more reports; then it reads
// new reports that can be the run's.
func (m *Monitor) countFailures(ctx context.Context, p *Progress) error {
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, g := range m.generators {
		if g.complete && g.reported != nil {
			continue
		}
		group.Go(func() error {
			keys := []string{}
			for o, err := range m.store.List(limited, m.store.Dataset().FailuresPrefix(g.Name), "") {
				if err != nil {
					return err
				}
				if o.Modified.After(m.run.Created.Add(-clockSkew)) {
					keys = append(keys, o.Key)
				}
			}
			g.reported = keys
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	var keys []string
	for _, g := range m.generators {
		keys = append(keys, g.reported...)
	}
	unread := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { _, known := m.reports[key]; return known })
	unread = unread[:min(len(unread), readPerPoll, max(0, readPerRun-len(m.reports)))]
	causes := make([]task.Cause, len(unread))
	group, limited = errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, key := range unread {
		group.Go(func() error {
			f, err := m.store.Failure(limited, key)
			if f.RunID == m.run.ID {
				causes[i] = f.Cause
			}
			if errors.Is(err, store.ErrNotFound) {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, key := range unread {
		m.reports[key] = causes[i]
	}
	for _, key := range keys {
		switch cause, read := m.reports[key]; {
		case !read:
			p.Unread++
		case cause != "":
			p.Failures[cause]++
		}
	}
	return nil
}

func (p *Progress) failed() bool { return len(p.Failures) > 0 || p.Unread > 0 }

// causes lists the failures, most frequent first.
func (p *Progress) causes() string {
	var list []string
	causes := slices.SortedFunc(slices.Values(task.Causes()),
		func(a, b task.Cause) int { return p.Failures[b] - p.Failures[a] })
	for _, c := range causes {
		if n := p.Failures[c]; n > 0 {
			list = append(list, fmt.Sprintf("%s %d", c, n))
		}
	}
	if p.Unread > 0 {
		list = append(list, ui.Count(p.Unread)+" more that were not read")
	}
	return strings.Join(list, ", ")
}
