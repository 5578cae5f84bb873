package logs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// lateness is how late a line may reach the log group and still be shown: each poll
// goes back that far. Lambda sends lines within seconds.
const lateness = 2 * time.Minute

const idsPerPattern = 20 // how many request ids, of 36 characters, a pattern holds

// cloud reads a stack's log group. What one poll has shown is not shown again.
type cloud struct {
	client   *cloudwatchlogs.Client
	group    string
	filter   Filter
	from     time.Time
	shown    map[string]time.Time // event ids, with their time
	requests map[string]bool      // invocations of the wanted tasks, until Lambda reports their end
}

func newCloud(ctx context.Context, g *target.Flags, f Filter, since time.Time) (*cloud, error) {
	t, err := target.Find(ctx, g, "")
	if err != nil {
		return nil, err
	}
	if t.LogGroupName == "" {
		return nil, ui.WithHint(fmt.Errorf("stack %s: the stack outputs lack logGroupName", t.Name),
			"pulumi up, then the same command")
	}
	config, err := t.AWSConfig(ctx)
	if err != nil {
		return nil, err
	}
	// an account may filter 5 times a second: the client retries
	client := cloudwatchlogs.NewFromConfig(config)
	return &cloud{client: client, group: t.LogGroupName, filter: f, from: since, shown: map[string]time.Time{},
		requests: map[string]bool{}}, nil
}

func (c *cloud) next(ctx context.Context, show func(Line) error) error {
	began := time.Now()
	find := func(l Line) bool {
		return l.fields == nil && c.filter.empty() || l.fields != nil && c.filter.match(l)
	}
	if len(c.filter.Tasks) == 0 {
		if err := c.search(ctx, c.filter.pattern(), find, show); err != nil {
			return err
		}
	} else if err := c.nextOfTasks(ctx, find, show); err != nil {
		return err
	}
	if back := began.Add(-lateness); back.After(c.from) {
		c.from = back
	}
	maps.DeleteFunc(c.shown, func(_ string, at time.Time) bool { return at.Before(c.from) })
	return nil
}

// nextOfTasks finds the lines of tasks, and then Lambda's own of the invocations
// in which they were written: those name nothing but the request.
func (c *cloud) nextOfTasks(ctx context.Context, find func(Line) bool, show func(Line) error) error {
	var lines []Line
	keep := func(l Line) error {
		if id := l.text("request_id"); id != "" {
			c.requests[id] = true
		}
		lines = append(lines, l)
		return nil
	}
	if err := c.search(ctx, c.filter.pattern(), find, keep); err != nil {
		return err
	}
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(c.requests)), idsPerPattern) {
		named := func(l Line) bool {
			return l.fields == nil && slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(l.raw, id) })
		}
		pattern := `?"` + strings.Join(ids, `" ?"`) + `"`
		if err := c.search(ctx, pattern, named, keep); err != nil {
			return err
		}
	}
	slices.SortStableFunc(lines, byTime)
	for _, l := range lines {
		if rest, ok := strings.CutPrefix(l.raw, "REPORT RequestId: "); ok {
			id, _, _ := strings.Cut(rest, "\t")
			delete(c.requests, strings.TrimSpace(id))
		}
		if err := show(l); err != nil {
			return err
		}
	}
	return nil
}

// search hands over the events since from that match and were not shown before. A page may be empty and not the last.
func (c *cloud) search(ctx context.Context, pattern string, match func(Line) bool, show func(Line) error) error {
	in := &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &c.group, StartTime: aws.Int64(c.from.UnixMilli())}
	if pattern != "" {
		in.FilterPattern = &pattern
	}
	pages := cloudwatchlogs.NewFilterLogEventsPaginator(c.client, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("read the log group %s: %w", c.group, err)
		}
		for _, e := range page.Events {
			at := time.UnixMilli(aws.ToInt64(e.Timestamp))
			l := newLine(aws.ToString(e.EventId), aws.ToString(e.LogStreamName), aws.ToString(e.Message), at)
			if _, before := c.shown[l.id]; before || !match(l) {
				continue
			}
			c.shown[l.id] = at
			if err := show(l); err != nil {
				return err
			}
		}
	}
	return nil
}
