package worker

import (
	"encoding/json"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Namespace of the worker's CloudWatch metrics.
const Namespace = "VMDataset"

// metrics writes CloudWatch embedded-metric lines: JSON log lines that
// CloudWatch turns into metrics, at no request of ours. Format:
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
type metrics struct {
	mu sync.Mutex
	to io.Writer
}

type metric struct {
	Name string
	Unit string
}

// task measures one task: Tasks and Samples (counts) and Duration (seconds).
func (m *metrics) task(generator string, samples int, took time.Duration) {
	m.write([]metric{{"Tasks", "Count"}, {"Samples", "Count"}, {"Duration", "Seconds"}}, [][]string{{}, {"generator"}},
		map[string]any{"generator": generator, "Tasks": 1, "Samples": samples, "Duration": took.Seconds()})
}

// failure counts one failed chunk by its cause.
func (m *metrics) failure(generator string, cause task.Cause) {
	if generator == "" {
		generator = "none" // CloudWatch refuses empty dimensions
	}
	m.write([]metric{{"Failures", "Count"}}, [][]string{{}, {"cause"}, {"generator", "cause"}},
		map[string]any{"generator": generator, "cause": cause, "Failures": 1})
}

func (m *metrics) write(list []metric, dimensions [][]string, values map[string]any) {
	values["_aws"] = map[string]any{
		"Timestamp":         time.Now().UnixMilli(),
		"CloudWatchMetrics": []map[string]any{{"Namespace": Namespace, "Dimensions": dimensions, "Metrics": list}},
	}
	line, err := json.Marshal(values)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = m.to.Write(append(line, '\n')) // a metric is no reason to fail a task
}

// newLog returns the worker's logger: one JSON object a line.
func newLog(to io.Writer) *slog.Logger { return slog.New(slog.NewJSONHandler(to, nil)) }
