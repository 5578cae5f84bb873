package cloudtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logstypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	pulumicloudwatch "github.com/pulumi/pulumi-aws/sdk/v6/go/aws/cloudwatch"
	pulumisns "github.com/pulumi/pulumi-aws/sdk/v6/go/aws/sns"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

func watchTypes() map[tokens.Type]resourceType {
	return map[tokens.Type]resourceType{
		"aws:cloudwatch/logGroup:LogGroup": {
			schema: schema{
				args: argsOf[pulumicloudwatch.LogGroupArgs](), state: reflect.TypeFor[pulumicloudwatch.LogGroup](),
				rules: map[string]rule{
					"name": matches(`[a-zA-Z0-9._/#-]+`, 512),
					"retentionInDays": oneOf[float64](0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827,
						2192, 2557, 2922, 3288, 3653),
				},
			},
			name: "name", nameMax: 512, fixed: []string{"name"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				if _, err := c.logs.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: in.textPtr("name"),
					Tags: in.textMap("tags")}); err != nil {
					return "", err
				}
				return in.text("name"), setRetention(ctx, c, in.text("name"), in)
			},
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				g, err := logGroup(ctx, c, id)
				if err != nil {
					return props{}, err
				}
				arn := strings.TrimSuffix(aws.ToString(g.Arn), ":*")
				values := map[string]any{"name": id, "arn": arn, "retentionInDays": int(aws.ToInt32(g.RetentionInDays))}
				tags, err := c.logs.ListTagsForResource(ctx, &cloudwatchlogs.ListTagsForResourceInput{ResourceArn: &arn})
				if err != nil {
					return props{}, err
				}
				if len(tags.Tags) > 0 {
					values["tags"] = anyMap(tags.Tags)
				}
				return outputs(values), nil
			},
			update: func(ctx context.Context, c *Cloud, id string, _, in props) error {
				g, err := logGroup(ctx, c, id)
				if err != nil {
					return err
				}
				if tags := in.textMap("tags"); len(tags) > 0 {
					if _, err := c.logs.TagResource(ctx,
						&cloudwatchlogs.TagResourceInput{ResourceArn: aws.String(strings.TrimSuffix(*g.Arn, ":*")),
							Tags: tags}); err != nil {
						return err
					}
				}
				return setRetention(ctx, c, id, in)
			},
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				_, err := c.logs.DeleteLogGroup(ctx, &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: &id})
				if errors.As(err, new(*logstypes.ResourceNotFoundException)) {
					return errGone
				}
				return err
			},
		},
		"aws:cloudwatch/dashboard:Dashboard": {
			schema: schema{
				args: argsOf[pulumicloudwatch.DashboardArgs](), state: reflect.TypeFor[pulumicloudwatch.Dashboard](),
				rules: map[string]rule{"dashboardName": matches(`[A-Za-z0-9_-]+`, 255), "dashboardBody": isDashboard},
			},
			fixed: []string{"dashboardName"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				return in.text("dashboardName"), putDashboard(ctx, c, in)
			},
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				out, err := c.cloudwatch.GetDashboard(ctx, &cloudwatch.GetDashboardInput{DashboardName: &id})
				if errors.As(err, new(*types.DashboardNotFoundError)) || errors.As(err, new(*types.ResourceNotFound)) {
					return props{}, errGone
				}
				if err != nil {
					return props{}, err
				}
				return outputs(map[string]any{"dashboardName": id, "dashboardBody": *out.DashboardBody,
					"dashboardArn": aws.ToString(out.DashboardArn)}), nil
			},
			update: func(ctx context.Context, c *Cloud, _ string, _, in props) error { return putDashboard(ctx, c, in) },
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				_, err := c.cloudwatch.DeleteDashboards(ctx, &cloudwatch.DeleteDashboardsInput{DashboardNames: []string{id}})
				if errors.As(err, new(*types.DashboardNotFoundError)) || errors.As(err, new(*types.ResourceNotFound)) {
					return errGone
				}
				return err
			},
		},
		"aws:cloudwatch/metricAlarm:MetricAlarm": alarmType(),
		"aws:sns/topic:Topic": {
			schema: schema{
				args: argsOf[pulumisns.TopicArgs](), state: reflect.TypeFor[pulumisns.Topic](),
				rules: map[string]rule{"name": matches(`[A-Za-z0-9_-]+`, 256), "policy": isPolicy,
					"displayName": matches(`.*`, 100)},
				together: knows("topics", "name", "displayName", "kmsMasterKeyId", "policy", "tags"),
			},
			name: "name", nameMax: 256, fixed: []string{"name"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				var tags []snstypes.Tag
				for key, v := range in.textMap("tags") {
					tags = append(tags, snstypes.Tag{Key: aws.String(key), Value: aws.String(v)})
				}
				out, err := c.sns.CreateTopic(ctx, &sns.CreateTopicInput{Name: in.textPtr("name"), Tags: tags,
					Attributes: topicAttributes(in)})
				if err != nil {
					return "", err
				}
				return *out.TopicArn, nil
			},
			read: func(ctx context.Context, c *Cloud, id string, in props) (props, error) {
				out, err := c.sns.GetTopicAttributes(ctx, &sns.GetTopicAttributesInput{TopicArn: &id})
				if errors.As(err, new(*snstypes.NotFoundException)) {
					return props{}, errGone
				}
				if err != nil {
					return props{}, err
				}
				values := map[string]any{"arn": id, "name": id[strings.LastIndex(id, ":")+1:], "owner": c.Account}
				for input, attribute := range map[string]string{"displayName": "DisplayName", "kmsMasterKeyId": "KmsMasterKeyId",
					"policy": "Policy"} {
					if in.has(input) {
						values[input] = out.Attributes[attribute]
					}
				}
				return outputs(values), nil
			},
			update: func(ctx context.Context, c *Cloud, id string, _, in props) error {
				for name, v := range topicAttributes(in) {
					if _, err := c.sns.SetTopicAttributes(ctx, &sns.SetTopicAttributesInput{TopicArn: &id,
						AttributeName: aws.String(name), AttributeValue: aws.String(v)}); err != nil {
						return err
					}
				}
				return nil
			},
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				_, err := c.sns.DeleteTopic(ctx, &sns.DeleteTopicInput{TopicArn: &id})
				return err
			},
		},
		"aws:sns/topicSubscription:TopicSubscription": {
			schema: schema{
				args: argsOf[pulumisns.TopicSubscriptionArgs](), state: reflect.TypeFor[pulumisns.TopicSubscription](),
				required: []string{"topic"},
				rules: map[string]rule{"topic": arn("sns"), "protocol": oneOf("email"),
					"endpoint": matches(`[^@\s]+@[^@\s]+`, 320)},
			},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				out, err := c.sns.Subscribe(ctx, &sns.SubscribeInput{TopicArn: in.textPtr("topic"),
					Protocol: in.textPtr("protocol"), Endpoint: in.textPtr("endpoint"), ReturnSubscriptionArn: true})
				if err != nil {
					return "", err
				}
				return *out.SubscriptionArn, nil
			},
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				out, err := c.sns.GetSubscriptionAttributes(ctx, &sns.GetSubscriptionAttributesInput{SubscriptionArn: &id})
				if errors.As(err, new(*snstypes.NotFoundException)) {
					return props{}, errGone
				}
				if err != nil {
					return props{}, err
				}
				a := out.Attributes
				return outputs(map[string]any{"arn": id, "topic": a["TopicArn"], "protocol": a["Protocol"],
					"endpoint": a["Endpoint"], "ownerId": c.Account}), nil
			},
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				_, err := c.sns.Unsubscribe(ctx, &sns.UnsubscribeInput{SubscriptionArn: &id})
				return err
			},
		},
	}
}

func logGroup(ctx context.Context, c *Cloud, name string) (*logstypes.LogGroup, error) {
	out, err := c.logs.DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: &name})
	if err != nil {
		return nil, err
	}
	for _, g := range out.LogGroups {
		if aws.ToString(g.LogGroupName) == name {
			return &g, nil
		}
	}
	return nil, errGone
}

func setRetention(ctx context.Context, c *Cloud, name string, in props) error {
	if in.number("retentionInDays") == 0 {
		_, err := c.logs.DeleteRetentionPolicy(ctx, &cloudwatchlogs.DeleteRetentionPolicyInput{LogGroupName: &name})
		return err
	}
	_, err := c.logs.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: &name,
		RetentionInDays: in.numberPtr("retentionInDays")})
	return err
}

// isDashboard allows bodies whose widgets are of a known type, lie within the 24
// columns, and name a region where they show metrics.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
func isDashboard(v any) string {
	var body struct {
		Start          string `json:"start"`
		PeriodOverride string `json:"periodOverride"`
		Widgets        []struct {
			Type                string
			X, Y, Width, Height int
			Properties          map[string]any
		}
	}
	if err := strictJSON(v, &body); err != nil {
		return "is no dashboard: " + err.Error()
	}
	for i, w := range body.Widgets {
		switch {
		case !slices.Contains([]string{"metric", "text", "log", "alarm", "explorer"}, w.Type):
			return fmt.Sprintf("has widget %d of type %q", i, w.Type)
		case w.X < 0 || w.Width < 1 || w.X+w.Width > 24 || w.Y < 0 || w.Height < 1 || w.Height > 1000:
			return fmt.Sprintf("has widget %d outside the 24 columns", i)
		case (w.Type == "metric" || w.Type == "log") && w.Properties["region"] == nil:
			return fmt.Sprintf("has widget %d without a region", i)
		}
	}
	return ""
}

func putDashboard(ctx context.Context, c *Cloud, in props) error {
	_, err := c.cloudwatch.PutDashboard(ctx, &cloudwatch.PutDashboardInput{DashboardName: in.textPtr("dashboardName"),
		DashboardBody: in.textPtr("dashboardBody")})
	return err
}

func alarmType() resourceType {
	return resourceType{
		schema: schema{
			args: argsOf[pulumicloudwatch.MetricAlarmArgs](), state: reflect.TypeFor[pulumicloudwatch.MetricAlarm](),
			required: []string{"threshold"},
			rules: map[string]rule{
				"name": matches(`.+`, 255), "evaluationPeriods": between(1, 100), "datapointsToAlarm": between(1, 100),
				"period": between(10, 86400),
				"comparisonOperator": oneOf("GreaterThanOrEqualToThreshold", "GreaterThanThreshold", "LessThanThreshold",
					"LessThanOrEqualToThreshold"),
				"statistic":        oneOf("SampleCount", "Average", "Sum", "Minimum", "Maximum"),
				"treatMissingData": oneOf("missing", "ignore", "breaching", "notBreaching"),
				"alarmActions":     items(0, 5), "okActions": items(0, 5), "alarmActions[]": arn("(sns|autoscaling)"),
				"okActions[]":                      arn("(sns|autoscaling)"),
				"metricQueries":                    items(1, 20),
				"metricQueries[].metric.period":    between(1, 86400),
				"metricQueries[].metric.namespace": matches(`[^:].*`, 255),
				"metricQueries[].metric.stat":      oneOf("SampleCount", "Average", "Sum", "Minimum", "Maximum"),
			},
			together: func(in props) error {
				if in.has("metricQueries") {
					return checkQueries(in)
				}
				for _, name := range []string{"namespace", "metricName", "statistic", "period"} {
					if !in.has(name) {
						return fmt.Errorf("%s is required", name)
					}
				}
				if in.has("datapointsToAlarm") && in.number("datapointsToAlarm") > in.number("evaluationPeriods") {
					return fmt.Errorf("datapointsToAlarm %d is more than evaluationPeriods %d", in.number("datapointsToAlarm"),
						in.number("evaluationPeriods"))
				}
				if p := in.number("period"); p != 10 && p != 30 && p%60 != 0 {
					return fmt.Errorf("period %d is neither 10, 30 nor a multiple of 60", p)
				}
				if in.has("extendedStatistic") {
					return errors.New("cloudtest does not know alarms on percentiles")
				}
				return nil
			},
		},
		name: "name", nameMax: 255, fixed: []string{"name"},
		create: func(ctx context.Context, c *Cloud, in props) (string, error) {
			return in.text("name"), putAlarm(ctx, c, in)
		},
		read: func(ctx context.Context, c *Cloud, id string, in props) (props, error) {
			out, err := c.cloudwatch.DescribeAlarms(ctx, &cloudwatch.DescribeAlarmsInput{AlarmNames: []string{id}})
			if err != nil {
				return props{}, err
			}
			if len(out.MetricAlarms) == 0 {
				return props{}, errGone
			}
			a := out.MetricAlarms[0]
			values := map[string]any{
				"name": id, "arn": aws.ToString(a.AlarmArn), "threshold": aws.ToFloat64(a.Threshold),
				"evaluationPeriods": int(aws.ToInt32(a.EvaluationPeriods)), "comparisonOperator": string(a.ComparisonOperator),
			}
			if !in.has("metricQueries") {
				values["namespace"], values["metricName"] = aws.ToString(a.Namespace), aws.ToString(a.MetricName)
				values["statistic"], values["period"] = string(a.Statistic), int(aws.ToInt32(a.Period))
			}
			if in.has("treatMissingData") {
				values["treatMissingData"] = aws.ToString(a.TreatMissingData)
			}
			if in.has("dimensions") {
				dimensions := map[string]any{}
				for _, d := range a.Dimensions {
					dimensions[*d.Name] = *d.Value
				}
				values["dimensions"] = dimensions
			}
			return outputs(values), nil
		},
		update: func(ctx context.Context, c *Cloud, _ string, _, in props) error { return putAlarm(ctx, c, in) },
		remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
			_, err := c.cloudwatch.DeleteAlarms(ctx, &cloudwatch.DeleteAlarmsInput{AlarmNames: []string{id}})
			return err
		},
	}
}

func putAlarm(ctx context.Context, c *Cloud, in props) error {
	threshold, _ := in.get("threshold").(float64)
	_, err := c.cloudwatch.PutMetricAlarm(ctx, &cloudwatch.PutMetricAlarmInput{
		AlarmName: in.textPtr("name"), AlarmDescription: in.textPtr("alarmDescription"), Namespace: in.textPtr("namespace"),
		MetricName: in.textPtr("metricName"), Dimensions: dimensions(in), Metrics: metricQueries(in),
		Statistic: types.Statistic(in.text("statistic")), Period: in.numberPtr("period"),
		EvaluationPeriods: in.numberPtr("evaluationPeriods"), DatapointsToAlarm: in.numberPtr("datapointsToAlarm"),
		ComparisonOperator: types.ComparisonOperator(in.text("comparisonOperator")), Threshold: &threshold,
		TreatMissingData: in.textPtr("treatMissingData"),
		AlarmActions:     in.texts("alarmActions"), OKActions: in.texts("okActions"),
	})
	return err
}

func topicAttributes(in props) map[string]string {
	attributes := map[string]string{}
	for input, attribute := range map[string]string{"displayName": "DisplayName", "kmsMasterKeyId": "KmsMasterKeyId",
		"policy": "Policy"} {
		if in.has(input) {
			attributes[attribute] = in.text(input)
		}
	}
	return attributes
}
