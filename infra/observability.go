package infra

import (
	"strconv"

	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/budgets"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/cloudwatch"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/sns"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// Observability is the dashboard and the alarms.
type Observability struct {
	pulumi.ResourceState

	DashboardURL pulumi.StringOutput
}

// NewObservability registers a dashboard, alarms, the topic that mails them if there
// is an address, and a budget if there is one.
func NewObservability(ctx *pulumi.Context, name string, q *Queue, f *Function, a account, c *Config,
	opts ...pulumi.ResourceOption) (_ *Observability, err error) {
	defer caught(&err)
	o := &Observability{}
	child := register(ctx, "Observability", name, o, opts)
	board := must(cloudwatch.NewDashboard(ctx, name, &cloudwatch.DashboardArgs{
		DashboardName: f.Name, // it has no generated name of its own
		DashboardBody: pulumi.All(q.Tasks.Name, q.DLQ.Name, f.Name).ApplyT(func(v []any) string {
			return marshal(newDashboard(source{region: a.region, queue: v[0].(string), dlq: v[1].(string),
				function: v[2].(string)}, c))
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

// newBudget registers a budget of what has the stack's tag, which mails when a month is
// going to exceed it and when it has spent most of it.
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
	return []alarm{
		{
			name: "dead", means: "Tasks are in the DLQ: ops --stack " + c.Stack + " dlq list says why.",
			namespace: sqsNamespace, metric: queueVisible, statistic: "Maximum",
			dimensions: pulumi.StringMap{queueName: q.DLQ.Name},
			above:      0, points: 1, of: 1,
		},
		{
			name: "age", means: "The oldest task has waited for half of the time that the queue keeps it: is the queue paused, or the run too large for maxConcurrency?",
			namespace: sqsNamespace, metric: queueAge, statistic: "Maximum",
			dimensions: pulumi.StringMap{queueName: q.Tasks.Name},
			above:      float64(c.QueueRetentionSeconds) / 2, points: 1, of: 1,
		},
		{
			name: "errors", means: "Workers end without an answer, by a timeout, by too little memory or before they begin: ops --stack " + c.Stack + " logs says why.",
			namespace: lambdaNamespace, metric: lambdaErrors, statistic: "Sum",
			dimensions: pulumi.StringMap{functionName: f.Name},
			above:      0, points: 1, of: 1, // a worker ends in time, and its failures are answers
		},
		{
			name: "throttles", means: "Lambda refuses invocations, and each refusal counts as a delivery of a task: lower maxConcurrency, or ask AWS for more concurrency.",
			namespace: lambdaNamespace, metric: lambdaThrottles, statistic: "Sum",
			dimensions: pulumi.StringMap{functionName: f.Name},
			above:      0, points: 2, of: 3, // a few are normal while Lambda scales up
		},
	}
}
