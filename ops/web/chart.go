package web

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// chart is the columns of a bar chart, in the units of its picture.
type chart struct {
	Bars        []bar
	Max         string // what the highest one is
	First, Last string // times below the ends
	Label       string // all of it for who does not see it
}

type bar struct {
	X, Y, Width, Height float64
	Title               string
}

// Size of the picture of a chart.
const (
	chartWidth  = 600
	chartHeight = 100
	chartBars   = 60
)

// rates draws how many samples were committed a minute, from the first minute to the last; of a long run each column
// stands for several minutes.
func rates(perMinute map[int64]int, until time.Time) *chart {
	if len(perMinute) == 0 {
		return nil
	}
	minutes := slices.Sorted(maps.Keys(perMinute))
	first, last := minutes[0], max(minutes[len(minutes)-1], until.Unix()/60)
	width := int64(1)
	for _, next := range []int64{2, 5, 10, 30, 60, 120, 360, 1440, 10080} {
		if (last-first)/width < chartBars {
			break
		}
		width = next
	}
	first = min(first, last-9*width) / width * width // a few columns would be as wide as the page
	columns := make([]int, (last-first)/width+1)
	total := 0
	for minute, n := range perMinute {
		columns[(minute-first)/width] += n
		total += n
	}
	clock := func(minute int64) string {
		t := time.Unix(minute*60, 0)
		if last-first >= 24*60 {
			return t.Format("2006-01-02 15:04")
		}
		return t.Format("15:04")
	}
	most := max(slices.Max(columns), 1)
	c := &chart{First: clock(first), Last: clock(last), Max: fmt.Sprintf("%s/min", perMinuteText(most, width)),
		Label: fmt.Sprintf("Samples a minute from %s to %s: %s in all, at most %s a minute", clock(first), clock(last),
			ui.Count(total), perMinuteText(most, width))}
	step := float64(chartWidth) / float64(len(columns))
	for i, n := range columns {
		if n == 0 {
			continue
		}
		h := max(1, float64(n)/float64(most)*chartHeight)
		c.Bars = append(c.Bars, bar{X: float64(i) * step, Y: chartHeight - h, Width: step * .85, Height: h,
			Title: fmt.Sprintf("%s: %s/min", clock(first+int64(i)*width), perMinuteText(n, width))})
	}
	return c
}

// perMinuteText writes a number of samples in some minutes as a rate.
func perMinuteText(n int, minutes int64) string {
	if rate := float64(n) / float64(minutes); rate < 10 && minutes > 1 {
		return fmt.Sprintf("%.1f", rate)
	}
	return ui.Count(n / int(minutes))
}
