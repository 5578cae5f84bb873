package infra

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/price"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Metrics of AWS.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
// https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
const (
	sqsNamespace  = "AWS/SQS"
	queueName     = "QueueName"
	queueVisible  = "ApproximateNumberOfMessagesVisible"
	queueInFlight = "ApproximateNumberOfMessagesNotVisible"
	queueAge      = "ApproximateAgeOfOldestMessage" // seconds

	lambdaNamespace   = "AWS/Lambda"
	functionName      = "FunctionName"
	lambdaDuration    = "Duration" // milliseconds
	lambdaInvocations = "Invocations"
	lambdaErrors      = "Errors"
	lambdaThrottles   = "Throttles"
	lambdaConcurrent  = "ConcurrentExecutions"
)

// dollarsPerSecond is what a second of one invocation costs.
func (c *Config) dollarsPerSecond() float64 {
	return price.PerSecond(c.MemoryMB, c.EphemeralStorageMB, c.Architecture)
}

// Columns of a dashboard, and the size of our widgets in columns and rows.
const (
	dashboardColumns          = 24
	widgetWidth, widgetHeight = 8, 6
)

// source is what a dashboard shows.
type source struct{ region, queue, dlq, function string }

// dashboard is the body of a CloudWatch dashboard.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
type dashboard struct {
	Widgets []widget `json:"widgets"`
}

type widget struct {
	Type       string     `json:"type"`
	X          int        `json:"x"`
	Y          int        `json:"y"`
	Width      int        `json:"width"`
	Height     int        `json:"height"`
	Properties properties `json:"properties"`
}

type properties struct {
	Title       string            `json:"title"`
	Region      string            `json:"region"`
	View        string            `json:"view"`
	Stacked     bool              `json:"stacked"`
	Period      int               `json:"period"` // seconds
	Metrics     []series          `json:"metrics"`
	Annotations map[string][]line `json:"annotations,omitempty"` // of kind horizontal
}

// line is drawn across a graph.
type line struct {
	Label string  `json:"label"`
	Value float64 `json:"value"`
}

// series is one line of a graph: a metric, or an expression of other ones.
type series struct {
	namespace, metric string
	dimensions        []string // name, value, name, value
	options           options
}

type options struct {
	ID         string `json:"id,omitempty"`
	Expression string `json:"expression,omitempty"`
	Label      string `json:"label,omitempty"`
	Stat       string `json:"stat,omitempty"`
	Visible    *bool  `json:"visible,omitempty"`
	YAxis      string `json:"yAxis,omitempty"`
}

// MarshalJSON writes the list that CloudWatch wants.
func (s series) MarshalJSON() ([]byte, error) {
	var list []any
	if s.metric != "" {
		list = append(list, s.namespace, s.metric)
		for _, d := range s.dimensions {
			list = append(list, d)
		}
	}
	return json.Marshal(append(list, s.options))
}

func newDashboard(from source, c *Config) dashboard {
	queue := func(name, metric string, o options) series {
		return series{sqsNamespace, metric, []string{queueName, name}, o}
	}
	function := func(metric string, o options) series {
		return series{lambdaNamespace, metric, []string{functionName, from.function}, o}
	}
	worker := func(metric string, o options, dimensions ...string) series {
		return series{task.MetricNamespace, metric, append([]string{task.DimensionFunction, from.function}, dimensions...), o}
	}
	var failures []series
	for _, cause := range task.Causes() {
		if cause != task.Lost { // no worker is left to count it
			failures = append(failures, worker(task.MetricFailures, options{Label: string(cause), Stat: "Sum"},
				task.DimensionCause, string(cause)))
		}
	}
	hidden := new(bool)
	cost := fmt.Sprintf("time / 1000 * %s + calls * %s", decimal(c.dollarsPerSecond()), decimal(price.Invocation.Dollars))

	var d dashboard
	add := func(title string, period int, stacked bool, metrics []series, lines ...line) {
		n := len(d.Widgets)
		perRow := dashboardColumns / widgetWidth
		p := properties{Title: title, Region: from.region, View: "timeSeries", Stacked: stacked, Period: period,
			Metrics: metrics}
		if len(lines) > 0 {
			p.Annotations = map[string][]line{"horizontal": lines}
		}
		d.Widgets = append(d.Widgets, widget{"metric", n % perRow * widgetWidth, n / perRow * widgetHeight, widgetWidth,
			widgetHeight, p})
	}
	add("Tasks", 60, false, []series{
		queue(from.queue, queueVisible, options{Label: "waiting", Stat: "Maximum"}),
		queue(from.queue, queueInFlight, options{Label: "at work", Stat: "Maximum"}),
		queue(from.dlq, queueVisible, options{Label: "dead", Stat: "Maximum"}),
	})
	add("Age of the oldest task (s)", 60, false, []series{
		queue(from.queue, queueAge, options{Label: "waiting", Stat: "Maximum"}),
		queue(from.dlq, queueAge, options{Label: "dead", Stat: "Maximum"}),
	}, line{"tasks are lost", float64(c.QueueRetentionSeconds)})
	add("Samples per minute", 60, false, []series{
		worker(task.MetricSamples, options{Label: "samples", Stat: "Sum"}),
		worker(task.MetricTasks, options{Label: "tasks", Stat: "Sum", YAxis: "right"}),
	})
	add("Failed chunks by cause", 300, true, failures)
	add("Seconds of a task", 300, false, []series{
		worker(task.MetricDuration, options{Label: "average", Stat: "Average"}),
		worker(task.MetricDuration, options{Label: "longest", Stat: "Maximum"}),
	}, line{"timeout", float64(c.TimeoutSeconds)})
	add("Workers", 60, false, []series{
		function(lambdaConcurrent, options{Label: "at work", Stat: "Maximum"}),
		function(lambdaThrottles, options{Label: "throttled", Stat: "Sum", YAxis: "right"}),
		function(lambdaErrors, options{Label: "killed or failed", Stat: "Sum", YAxis: "right"}),
	}, line{"maxConcurrency", float64(c.MaxConcurrency)})
	add("Estimated cost of Lambda (USD)", 3600, false, []series{
		function(lambdaDuration, options{ID: "time", Stat: "Sum", Visible: hidden}),
		function(lambdaInvocations, options{ID: "calls", Stat: "Sum", Visible: hidden}),
		{options: options{ID: "cost", Expression: cost, Label: "per hour"}},
		{options: options{ID: "total", Expression: "RUNNING_SUM(cost)", Label: "in the time shown", YAxis: "right"}},
	})
	return d
}

// decimal writes a small number as metric math wants it, without an exponent.
func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
