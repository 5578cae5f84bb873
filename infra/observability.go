package infra

import (
	"fmt"
	"strconv"

	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/budgets"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/cloudwatch"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/sns"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/price"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Observability is the dashboard and the alarms.
type Observability struct {
	pulumi.ResourceState

	DashboardURL pulumi.StringOutput
}

// NewObservability registers a dashboard, alarms, and what mails them to an address and watches a budget, if there are.
func NewObservability(ctx *pulumi.Context, name string, q *Queue, f *Function, a account, c *Config,
	opts ...pulumi.ResourceOption) (_ *Observability, err error) {
	defer caught(&err)
	o := &Observability{}
	child := register(ctx, "Observability", name, o, opts)
	board := must(cloudwatch.NewDashboard(ctx, name, &cloudwatch.DashboardArgs{
		DashboardName: f.Name, // it has no generated name of its own
		DashboardBody: pulumi.All(q.Tasks.Name, q.DLQ.Name, f.Name).ApplyT(func(v []any) (string, error) {
			return marshal(newDashboard(a.region, v[0].(string), v[1].(string), v[2].(string), c))
		}).(pulumi.StringOutput),
	}, child))
	o.DashboardURL = pulumi.Sprintf("https://%s/cloudwatch/home?region=%s#dashboards/dashboard/%s", a.console(), a.region,
		board.DashboardName)

	var actions pulumi.Array
	if c.AlarmEmail != "" {
		// CloudWatch cannot publish to a topic that is encrypted with SNS's own key, and a notice has nothing secret.
		topic := must(sns.NewTopic(ctx, name, &sns.TopicArgs{Tags: pulumi.ToStringMap(c.Tags)}, child))
		must(sns.NewTopicSubscription(ctx, name, &sns.TopicSubscriptionArgs{
			Topic: topic.Arn, Protocol: pulumi.String("email"), Endpoint: pulumi.String(c.AlarmEmail),
		}, child))
		actions = pulumi.Array{topic.Arn}
	}
	if c.MonthlyBudgetUSD > 0 {
		newBudget(ctx, name, c, child)
	}
	for _, a := range alarms(q, f, c) {
		must(cloudwatch.NewMetricAlarm(ctx, name+"-"+a.name, &cloudwatch.MetricAlarmArgs{
			AlarmDescription: pulumi.String(a.means),
			Namespace:        pulumi.String(a.namespace), MetricName: pulumi.String(a.metric), Dimensions: a.dimensions,
			Statistic: pulumi.String(a.statistic), Period: pulumi.Int(alarmPeriod),
			EvaluationPeriods: pulumi.Int(a.of), DatapointsToAlarm: pulumi.Int(a.points),
			ComparisonOperator: pulumi.String("GreaterThanThreshold"), Threshold: pulumi.Float64(a.above),
			TreatMissingData: pulumi.String("notBreaching"), // an unused queue sends no data
			AlarmActions:     actions, OkActions: actions, Tags: pulumi.ToStringMap(c.Tags),
		}, child))
	}
	return o, ctx.RegisterResourceOutputs(o, pulumi.Map{"dashboardUrl": o.DashboardURL})
}

// newBudget registers a budget of what has the stack's tag: it mails when a month will exceed it or has spent most.
func newBudget(ctx *pulumi.Context, name string, c *Config, child pulumi.ResourceOption) {
	warn := func(kind string, percent float64) *budgets.BudgetNotificationArgs {
		return &budgets.BudgetNotificationArgs{
			NotificationType: pulumi.String(kind), ComparisonOperator: pulumi.String("GREATER_THAN"),
			Threshold: pulumi.Float64(percent), ThresholdType: pulumi.String("PERCENTAGE"),
			SubscriberEmailAddresses: pulumi.StringArray{pulumi.String(c.AlarmEmail)},
		}
	}
	must(budgets.NewBudget(ctx, name, &budgets.BudgetArgs{
		BudgetType: pulumi.String("COST"), TimeUnit: pulumi.String("MONTHLY"),
		LimitAmount: pulumi.String(strconv.Itoa(c.MonthlyBudgetUSD)), LimitUnit: pulumi.String("USD"),
		CostFilters: budgets.BudgetCostFilterArray{&budgets.BudgetCostFilterArgs{
			Name:   pulumi.String("TagKeyValue"),
			Values: pulumi.StringArray{pulumi.String("user:" + c.StackTag.Key + "$" + c.StackTag.Value)},
		}},
		Notifications: budgets.BudgetNotificationArray{warn("ACTUAL", 80), warn("FORECASTED", 100)},
		Tags:          pulumi.ToStringMap(c.Tags),
	}, child))
}

// alarmPeriod is in seconds: that of SQS's metrics of a quiet queue.
const alarmPeriod = 300

// alarm goes off when points of the last periods are above a value.
type alarm struct {
	name, means                  string
	namespace, metric, statistic string
	dimensions                   pulumi.StringMap
	above                        float64
	points, of                   int
}

func alarms(q *Queue, f *Function, c *Config) []alarm {
	queue, dlq := pulumi.StringMap{queueName: q.Tasks.Name}, pulumi.StringMap{queueName: q.DLQ.Name}
	function := pulumi.StringMap{functionName: f.Name}
	return []alarm{
		{"dead", "Tasks are in the DLQ: ops --stack " + c.Stack + " dlq list says why.",
			sqsNamespace, queueVisible, "Maximum", dlq, 0, 1, 1},
		{"age", "The oldest task has waited for half of the time that the queue keeps it: is the queue paused, or the run " +
			"too large for maxConcurrency?",
			sqsNamespace, queueAge, "Maximum", queue, float64(c.QueueRetentionSeconds) / 2, 1, 1},
		// a worker ends in time, and its failures are answers
		{"errors", "Workers end without an answer, by a timeout, by too little memory or before they begin: ops --stack " +
			c.Stack + " logs says why.",
			lambdaNamespace, lambdaErrors, "Sum", function, 0, 1, 1},
		// a few are normal while Lambda scales up
		{"throttles", "Lambda refuses invocations, and each refusal counts as a delivery of a task: lower maxConcurrency, " +
			"or ask AWS for more concurrency.",
			lambdaNamespace, lambdaThrottles, "Sum", function, 0, 2, 3},
	}
}

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

// Columns of a dashboard, and the size of our widgets in columns and rows.
const (
	dashboardColumns          = 24
	widgetWidth, widgetHeight = 8, 6
)

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

type line struct {
	Label string  `json:"label"`
	Value float64 `json:"value"`
}

// series is one line of a graph: namespace, name and dimensions of a metric, and options; or an expression in options.
type series []any

type options struct {
	ID         string `json:"id,omitempty"`
	Expression string `json:"expression,omitempty"`
	Label      string `json:"label,omitempty"`
	Stat       string `json:"stat,omitempty"`
	Visible    *bool  `json:"visible,omitempty"`
	YAxis      string `json:"yAxis,omitempty"`
}

// newDashboard returns the body of a CloudWatch dashboard.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
func newDashboard(region, tasks, dlq, worker string, c *Config) map[string][]widget {
	queue := func(name, metric string, o options) series { return series{sqsNamespace, metric, queueName, name, o} }
	function := func(metric string, o options) series { return series{lambdaNamespace, metric, functionName, worker, o} }
	work := func(metric string, o options) series {
		return series{task.MetricNamespace, metric, task.DimensionFunction, worker, o}
	}
	var failures []series
	for _, cause := range task.Causes() {
		if cause != task.Lost { // no worker is left to count it
			failures = append(failures, series{task.MetricNamespace, task.MetricFailures, task.DimensionFunction, worker,
				task.DimensionCause, cause, options{Label: string(cause), Stat: "Sum"}})
		}
	}
	hidden := new(bool)
	second := price.PerSecond(c.MemoryMB, c.EphemeralStorageMB, c.Architecture)
	cost := fmt.Sprintf("time / 1000 * %s + calls * %s", decimal(second), decimal(price.Invocation.Dollars))

	var widgets []widget
	add := func(title string, period int, stacked bool, metrics []series, lines ...line) {
		n := len(widgets)
		perRow := dashboardColumns / widgetWidth
		p := properties{Title: title, Region: region, View: "timeSeries", Stacked: stacked, Period: period,
			Metrics: metrics}
		if len(lines) > 0 {
			p.Annotations = map[string][]line{"horizontal": lines}
		}
		widgets = append(widgets, widget{"metric", n % perRow * widgetWidth, n / perRow * widgetHeight, widgetWidth,
			widgetHeight, p})
	}
	add("Tasks", 60, false, []series{
		queue(tasks, queueVisible, options{Label: "waiting", Stat: "Maximum"}),
		queue(tasks, queueInFlight, options{Label: "at work", Stat: "Maximum"}),
		queue(dlq, queueVisible, options{Label: "dead", Stat: "Maximum"}),
	})
	add("Age of the oldest task (s)", 60, false, []series{
		queue(tasks, queueAge, options{Label: "waiting", Stat: "Maximum"}),
		queue(dlq, queueAge, options{Label: "dead", Stat: "Maximum"}),
	}, line{"tasks are lost", float64(c.QueueRetentionSeconds)})
	add("Samples per minute", 60, false, []series{
		work(task.MetricSamples, options{Label: "samples", Stat: "Sum"}),
		work(task.MetricTasks, options{Label: "tasks", Stat: "Sum", YAxis: "right"}),
	})
	add("Failed chunks by cause", 300, true, failures)
	add("Seconds of a task", 300, false, []series{
		work(task.MetricDuration, options{Label: "average", Stat: "Average"}),
		work(task.MetricDuration, options{Label: "longest", Stat: "Maximum"}),
	}, line{"timeout", float64(c.TimeoutSeconds)})
	add("Workers", 60, false, []series{
		function(lambdaConcurrent, options{Label: "at work", Stat: "Maximum"}),
		function(lambdaThrottles, options{Label: "throttled", Stat: "Sum", YAxis: "right"}),
		function(lambdaErrors, options{Label: "killed or failed", Stat: "Sum", YAxis: "right"}),
	}, line{"maxConcurrency", float64(c.MaxConcurrency)})
	add("Estimated cost of Lambda (USD)", 3600, false, []series{
		function(lambdaDuration, options{ID: "time", Stat: "Sum", Visible: hidden}),
		function(lambdaInvocations, options{ID: "calls", Stat: "Sum", Visible: hidden}),
		{options{ID: "cost", Expression: cost, Label: "per hour"}},
		{options{ID: "total", Expression: "RUNNING_SUM(cost)", Label: "in the time shown", YAxis: "right"}},
	})
	return map[string][]widget{"widgets": widgets}
}

// decimal writes a small number as metric math wants it, without an exponent.
func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
