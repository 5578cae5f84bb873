package cloudtest

import (
	"fmt"
	"regexp"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
)

var (
	queryID = regexp.MustCompile(`^[a-z][a-zA-Z0-9_]*$`)
	// functions of expressions are in capitals
	variable = regexp.MustCompile(`\b[a-z][a-zA-Z0-9_]*\b`)
)

// checkQueries refuses what CloudWatch refuses of an alarm on an expression: a metric of the alarm's
// own, an expression that names no query, and any number but one of queries that the alarm looks at.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDataQuery.html
func checkQueries(in props) error {
	for _, name := range []string{"namespace", "metricName", "statistic", "extendedStatistic", "period", "dimensions",
		"unit", "datapointsToAlarm"} {
		if in.has(name) {
			return fmt.Errorf("cloudtest knows no alarm on an expression with %s", name)
		}
	}
	ids := map[string]bool{}
	looked := 0
	for _, q := range in.objects("metricQueries") {
		id := q.text("id")
		if !queryID.MatchString(id) || ids[id] {
			return fmt.Errorf("metricQueries has the id %q, which is none or is there twice", id)
		}
		ids[id] = true
		if q.has("metric") == q.has("expression") {
			return fmt.Errorf("the metric query %s must have either a metric or an expression", id)
		}
		if q.flag("returnData") {
			looked++
		}
	}
	if looked != 1 {
		return fmt.Errorf("%d metric queries return data; it must be one", looked)
	}
	for _, q := range in.objects("metricQueries") {
		for _, name := range variable.FindAllString(q.text("expression"), -1) {
			if !ids[name] {
				return fmt.Errorf("the expression %q names %s, which is no metric query", q.text("expression"), name)
			}
		}
	}
	return nil
}

func metricQueries(in props) []types.MetricDataQuery {
	var all []types.MetricDataQuery
	for _, q := range in.objects("metricQueries") {
		one := types.MetricDataQuery{Id: q.textPtr("id"), Label: q.textPtr("label"), Expression: q.textPtr("expression"),
			ReturnData: aws.Bool(q.flag("returnData"))}
		if m := q.object("metric"); q.has("metric") {
			one.MetricStat = &types.MetricStat{Period: m.numberPtr("period"), Stat: m.textPtr("stat"),
				Metric: &types.Metric{Namespace: m.textPtr("namespace"), MetricName: m.textPtr("metricName"),
					Dimensions: dimensions(m)}}
		}
		all = append(all, one)
	}
	return all
}

func dimensions(in props) []types.Dimension {
	var all []types.Dimension
	for name, v := range in.textMap("dimensions") {
		all = append(all, types.Dimension{Name: aws.String(name), Value: aws.String(v)})
	}
	return all
}
