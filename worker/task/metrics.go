package task

// MetricNamespace is where the worker's metrics are in CloudWatch.
const MetricNamespace = "VMDataset"

// The worker's metrics. Tasks, samples and duration are there per function, and per function and generator; failures
// per function, per function and cause, and per function, generator and cause.
const (
	MetricTasks    = "Tasks"    // count
	MetricSamples  = "Samples"  // count of samples committed
	MetricDuration = "Duration" // seconds of one task
	MetricFailures = "Failures" // count of chunks
)

// Dimensions of the worker's metrics.
const (
	DimensionFunction  = "function" // its name: it distinguishes the stacks of one account
	DimensionGenerator = "generator"
	DimensionCause     = "cause" // a Cause
)
