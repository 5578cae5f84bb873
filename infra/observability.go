package infra

import (
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/cloudwatch"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/sns"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// Observability is the dashboard and the alarms.
type Observability struct {
	pulumi.ResourceState

	DashboardURL pulumi.StringOutput
}

// NewObservability registers a dashboard, alarms, and the topic that mails them
// if there is an address.
func NewObservability(ctx *pulumi.Context, name string, q *Queue, f *Function, region pulumi.StringOutput, c *Config,
	opts ...pulumi.ResourceOption) (*Observability, error) {
	o := &Observability{}
	if err := ctx.RegisterComponentResource("vm-dataset:infra:Observability", name, o, opts...); err != nil {
		return nil, err
	}
	child := pulumi.Parent(o)
	board, err := cloudwatch.NewDashboard(ctx, name, &cloudwatch.DashboardArgs{
		DashboardName: f.Name, // it has no generated name of its own
		DashboardBody: pulumi.All(region, q.Tasks.Name, q.DLQ.Name, f.Name).ApplyT(func(v []any) (string, error) {
			return marshal(newDashboard(source{region: v[0].(string), queue: v[1].(string), dlq: v[2].(string),
				function: v[3].(string)}, c))
		}).(pulumi.StringOutput),
	}, child)
	if err != nil {
		return nil, err
	}
	o.DashboardURL = pulumi.Sprintf("https://%s.console.aws.amazon.com/cloudwatch/home?region=%s#dashboards/dashboard/%s",
		region, region, board.DashboardName)

	var actions pulumi.Array
	if c.AlarmEmail != "" {
		// CloudWatch cannot publish to a topic that is encrypted with SNS's own
		// key, and a notice has nothing secret.
		topic, err := sns.NewTopic(ctx, name, &sns.TopicArgs{Tags: pulumi.ToStringMap(c.Tags)}, child)
		if err != nil {
			return nil, err
		}
		_, err = sns.NewTopicSubscription(ctx, name, &sns.TopicSubscriptionArgs{
			Topic: topic.Arn, Protocol: pulumi.String("email"), Endpoint: pulumi.String(c.AlarmEmail),
		}, child)
		if err != nil {
			return nil, err
		}
		actions = pulumi.Array{topic.Arn}
	}
	for _, a := range alarms(q, f, c) {
		_, err := cloudwatch.NewMetricAlarm(ctx, name+"-"+a.name, &cloudwatch.MetricAlarmArgs{
			AlarmDescription: pulumi.String(a.means),
			Namespace:        pulumi.String(a.namespace), MetricName: pulumi.String(a.metric), Dimensions: a.dimensions,
			Statistic: pulumi.String(a.statistic), Period: pulumi.Int(alarmPeriod),
			EvaluationPeriods: pulumi.Int(a.of), DatapointsToAlarm: pulumi.Int(a.points),
			ComparisonOperator: pulumi.String("GreaterThanThreshold"), Threshold: pulumi.Float64(a.above),
			TreatMissingData: pulumi.String("notBreaching"), // an unused queue sends no data
			AlarmActions:     actions, OkActions: actions, Tags: pulumi.ToStringMap(c.Tags),
		}, child)
		if err != nil {
			return nil, err
		}
	}
	return o, ctx.RegisterResourceOutputs(o, pulumi.Map{"dashboardUrl": o.DashboardURL})
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
			name: "throttles", means: "Lambda refuses invocations, and each refusal counts as a delivery of a task: lower maxConcurrency, or ask AWS for more concurrency.",
			namespace: lambdaNamespace, metric: lambdaThrottles, statistic: "Sum",
			dimensions: pulumi.StringMap{functionName: f.Name},
			above:      0, points: 2, of: 3, // a few are normal while Lambda scales up
		},
	}
}
