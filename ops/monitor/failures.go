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

// clocks is how far the clocks of the store and of who submitted a run may differ.
const clocks = time.Hour

// countFailures counts the failure reports of the run by cause. Listing goes generator
// by generator side by side; then new reports are read, as many as a look reads, of
// those that can be the run's. What is whole brings no more of them.
func (m *Monitor) countFailures(ctx context.Context, p *Progress) error {
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(looks)
	for i, g := range m.run.Generators {
		if m.whole[g.Name] && m.reported[i] != nil {
			continue
		}
		group.Go(func() error {
			keys := []string{}
			for o, err := range m.store.Failures(limited, g.Name) {
				if err != nil {
					return err
				}
				if o.Modified.After(m.run.Created.Add(-clocks)) {
					keys = append(keys, o.Key)
				}
			}
			m.reported[i] = keys
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	keys := slices.Concat(m.reported...)
	unread := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { _, known := m.reports[key]; return known })
	unread = unread[:min(len(unread), readPerLook, max(0, readPerRun-len(m.reports)))]
	causes := make([]task.Cause, len(unread))
	group, limited = errgroup.WithContext(ctx)
	group.SetLimit(looks)
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
