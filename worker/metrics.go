package worker

import (
	"cmp"
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// metrics writes JSON log lines that CloudWatch turns into metrics, at no request of ours. Their format:
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
type metrics struct {
	mu       sync.Mutex
	to       io.Writer
	function string
}

type metric struct{ Name, Unit string }

// task measures one task: Tasks and Samples (counts) and Duration (seconds).
func (m *metrics) task(generator string, samples int, took time.Duration) {
	m.write([]metric{{task.MetricTasks, "Count"}, {task.MetricSamples, "Count"}, {task.MetricDuration, "Seconds"}},
		[][]string{{task.DimensionFunction}, {task.DimensionFunction, task.DimensionGenerator}},
		map[string]any{task.DimensionGenerator: generator, task.MetricTasks: 1, task.MetricSamples: samples,
			task.MetricDuration: took.Seconds()})
}

// failure counts one failed chunk by its cause. CloudWatch refuses empty dimensions: what has no name is called none.
func (m *metrics) failure(generator string, cause task.Cause) {
	m.write([]metric{{task.MetricFailures, "Count"}},
		[][]string{{task.DimensionFunction}, {task.DimensionFunction, task.DimensionCause},
			{task.DimensionFunction, task.DimensionGenerator, task.DimensionCause}},
		map[string]any{task.DimensionGenerator: cmp.Or(generator, "none"), task.DimensionCause: cause,
			task.MetricFailures: 1})
}

func (m *metrics) write(list []metric, dimensions [][]string, values map[string]any) {
	values[task.DimensionFunction] = cmp.Or(m.function, "none")
	values["_aws"] = map[string]any{
		"Timestamp":         time.Now().UnixMilli(),
		"CloudWatchMetrics": []map[string]any{{"Namespace": task.MetricNamespace, "Dimensions": dimensions, "Metrics": list}},
	}
	line, err := json.Marshal(values)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = m.to.Write(append(line, '\n')) // a metric is no reason to fail a task
}
