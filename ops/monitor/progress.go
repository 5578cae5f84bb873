package monitor

import (
	"fmt"
	"io"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Progress is how far a run is at one moment.
type Progress struct {
	Run        string              `json:"run"`
	Time       time.Time           `json:"time"`
	Generators []GeneratorProgress `json:"generators"`
	Committed  int                 `json:"committed"` // samples
	Expected   int                 `json:"expected"`  // samples
	Rate       float64             `json:"rate"`      // samples per second, in the last two minutes
	ETASeconds float64             `json:"eta_seconds,omitempty"`
	Queue      queue.Depth         `json:"queue"`
	// seconds for which an empty queue is still watched, because counts lag
	Settling  float64            `json:"queue_settling_seconds,omitempty"`
	DLQ       int                `json:"dlq"`
	DLQOldest float64            `json:"dlq_oldest_seconds,omitempty"`
	Failures  map[task.Cause]int `json:"failures,omitempty"`        // reports, by cause
	Unread    int                `json:"failures_unread,omitempty"` // reports that were too many to be read
	Cost      *RunCost           `json:"cost,omitempty"`
}

// GeneratorProgress is how far one generator is.
type GeneratorProgress struct {
	Name      string `json:"name"`
	Committed int    `json:"committed"`
	Expected  int    `json:"expected"`
}

// Complete reports whether everything is committed.
func (p *Progress) Complete() bool { return p.Committed >= p.Expected }

// speed is the rate and the ETA, "" if nothing was committed lately.
func (p *Progress) speed() string {
	if p.Rate <= 0 {
		return ""
	}
	s := fmt.Sprintf("  %.1f/s", p.Rate)
	if p.ETASeconds > 0 {
		s += "  ETA " + ui.Span(ui.Seconds(p.ETASeconds))
	}
	return s
}

// settling says why a watch of an empty queue continues, "" if it does not.
func (p *Progress) settling() string {
	if p.Settling < 1 {
		return ""
	}
	return fmt.Sprintf("  (empty: watched for %s more, counts may be late)", ui.Span(ui.Seconds(p.Settling)))
}

// dlqText is how many messages the DLQ has, and for how long.
func (p *Progress) dlqText() string {
	if p.DLQ == 0 {
		return "0"
	}
	least := ""
	if p.DLQ > readForOldest { // SQS shows them in no order
		least = "at least "
	}
	return fmt.Sprintf("%s, the oldest for %s%s", ui.Count(p.DLQ), least, ui.Span(ui.Seconds(p.DLQOldest)))
}

// line is a poll in one line.
func (p *Progress) line() string {
	text := fmt.Sprintf("%s  %s/%s samples  %.1f %%%s  queue %d waiting %d in flight %d delayed  dlq %s%s",
		p.Time.Local().Format("15:04:05"), ui.Count(p.Committed), ui.Count(p.Expected), p.Percent(), p.speed(),
		p.Queue.Waiting, p.Queue.InFlight, p.Queue.Delayed, p.dlqText(), p.settling())
	if p.failed() {
		text += "  failures " + p.causes()
	}
	if p.Cost != nil && !p.Cost.Local {
		text += "  USD " + ui.Dollars(p.Cost.Dollars)
	}
	return text
}

// Percent is how much is committed of what is expected.
func (p *Progress) Percent() float64 {
	if p.Expected == 0 {
		return 100
	}
	return 100 * float64(p.Committed) / float64(p.Expected)
}

// Table prints the progress for people.
func (p *Progress) Table(w io.Writer) {
	fmt.Fprintf(w, "run %s\n", p.Run)
	fmt.Fprintln(w, "GENERATOR\tCOMMITTED\tEXPECTED\t")
	for _, g := range p.Generators {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1f %%\n", g.Name, ui.Count(g.Committed), ui.Count(g.Expected),
			100*float64(g.Committed)/float64(max(g.Expected, 1)))
	}
	fmt.Fprintf(w, "all\t%s\t%s\t%.1f %%%s\n", ui.Count(p.Committed), ui.Count(p.Expected), p.Percent(), p.speed())
	fmt.Fprintf(w, "queue\t%d waiting, %d in flight, %d delayed\n", p.Queue.Waiting, p.Queue.InFlight, p.Queue.Delayed)
	fmt.Fprintf(w, "dlq\t%s\n", p.dlqText())
	if p.failed() {
		fmt.Fprintf(w, "failures\t%s\n", p.causes())
	}
	if p.Cost != nil {
		fmt.Fprintf(w, "cost\t%s\n", p.Cost)
	}
}
