package cloudtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/budgets"
	"github.com/aws/aws-sdk-go-v2/service/budgets/types"
	pulumibudgets "github.com/pulumi/pulumi-aws/sdk/v6/go/aws/budgets"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

// https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_budgets_CreateBudget.html
func budgetTypes() map[tokens.Type]resourceType {
	return map[tokens.Type]resourceType{
		"aws:budgets/budget:Budget": {
			schema: schema{
				args: argsOf[pulumibudgets.BudgetArgs](), state: reflect.TypeFor[pulumibudgets.Budget](),
				required: []string{"limitAmount", "limitUnit"},
				rules: map[string]rule{
					"name": matches(`[^:\\/]+`, 100), "budgetType": oneOf("COST"), "limitUnit": oneOf("USD"),
					"limitAmount": matches(`[0-9]+(\.[0-9]+)?`, 20), "timeUnit": oneOf("DAILY", "MONTHLY", "QUARTERLY", "ANNUALLY"),
					// moto takes any filter; this is the form of one by a tag
					"costFilters[].name": oneOf("TagKeyValue"), "costFilters[].values[]": matches(`(user|aws):[^$]+\$.+`, 1024),
					"notifications": items(0, 10), "notifications[].threshold": between(0.1, 1e9),
					"notifications[].notificationType":           oneOf("ACTUAL", "FORECASTED"),
					"notifications[].comparisonOperator":         oneOf("GREATER_THAN", "LESS_THAN", "EQUAL_TO"),
					"notifications[].thresholdType":              oneOf("PERCENTAGE", "ABSOLUTE_VALUE"),
					"notifications[].subscriberEmailAddresses":   items(1, 10),
					"notifications[].subscriberEmailAddresses[]": matches(`[^@\s]+@[^@\s]+`, 320),
				},
				together: func(in props) error {
					for _, n := range in.objects("notifications") {
						if !n.has("subscriberEmailAddresses") || n.has("subscriberSnsTopicArns") {
							return errors.New("cloudtest knows notifications by mail only, and this one has no address or a topic")
						}
					}
					return knows("budgets", "name", "budgetType", "limitAmount", "limitUnit", "timeUnit", "costFilters",
						"notifications", "tags")(in)
				},
			},
			name: "name", nameMax: 100, fixed: []string{"name"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				return c.Account + ":" + in.text("name"), putBudget(ctx, c, in)
			},
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				_, name, _ := strings.Cut(id, ":")
				out, err := c.budgets.DescribeBudget(ctx, &budgets.DescribeBudgetInput{AccountId: &c.Account, BudgetName: &name})
				if err != nil {
					return props{}, budgetGone(err)
				}
				b := out.Budget
				return outputs(map[string]any{"name": name, "accountId": c.Account, "budgetType": string(b.BudgetType),
					"arn":         fmt.Sprintf("arn:aws:budgets::%s:budget/%s", c.Account, name),
					"limitAmount": *b.BudgetLimit.Amount, "limitUnit": *b.BudgetLimit.Unit, "timeUnit": string(b.TimeUnit)}), nil
			},
			update: func(ctx context.Context, c *Cloud, id string, _, in props) error {
				// moto cannot update one
				if err := removeBudget(ctx, c, id); err != nil && !errors.Is(err, errGone) {
					return err
				}
				return putBudget(ctx, c, in)
			},
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error { return removeBudget(ctx, c, id) },
		},
	}
}

func budgetGone(err error) error {
	if errors.As(err, new(*types.NotFoundException)) {
		return errGone
	}
	return err
}

// putBudget makes a budget with the filters that the real provider sends, which AWS calls old.
func putBudget(ctx context.Context, c *Cloud, in props) error {
	filters := map[string][]string{}
	for _, f := range in.objects("costFilters") {
		filters[f.text("name")] = f.texts("values")
	}
	var warn []types.NotificationWithSubscribers
	for _, n := range in.objects("notifications") {
		threshold, _ := n.get("threshold").(float64)
		one := types.NotificationWithSubscribers{Notification: &types.Notification{Threshold: threshold,
			NotificationType:   types.NotificationType(n.text("notificationType")),
			ComparisonOperator: types.ComparisonOperator(n.text("comparisonOperator")),
			ThresholdType:      types.ThresholdType(n.text("thresholdType"))}}
		for _, address := range n.texts("subscriberEmailAddresses") {
			one.Subscribers = append(one.Subscribers, types.Subscriber{Address: aws.String(address),
				SubscriptionType: types.SubscriptionTypeEmail})
		}
		warn = append(warn, one)
	}
	var tags []types.ResourceTag
	for key, v := range in.textMap("tags") {
		tags = append(tags, types.ResourceTag{Key: aws.String(key), Value: aws.String(v)})
	}
	_, err := c.budgets.CreateBudget(ctx, &budgets.CreateBudgetInput{AccountId: &c.Account, ResourceTags: tags,
		NotificationsWithSubscribers: warn, Budget: &types.Budget{BudgetName: in.textPtr("name"),
			BudgetType: types.BudgetType(in.text("budgetType")), TimeUnit: types.TimeUnit(in.text("timeUnit")),
			BudgetLimit: &types.Spend{Amount: in.textPtr("limitAmount"), Unit: in.textPtr("limitUnit")},
			CostFilters: filters}})
	if err == nil {
		c.kept.Store(warningsOf(in.text("name")), warn)
	}
	return err
}

// warningsOf is where a budget's notifications are kept with their subscribers: moto tells nobody of these.
func warningsOf(budget string) string { return "warnings of " + budget }

const subscribersTarget = "AWSBudgetServiceGateway.DescribeSubscribersForNotification"

// tellSubscribers answers DescribeSubscribersForNotification, which moto does not know.
func (c *Cloud) tellSubscribers(rw http.ResponseWriter, q *http.Request) {
	var in budgets.DescribeSubscribersForNotificationInput
	var subscribers []types.Subscriber
	if err := json.NewDecoder(q.Body).Decode(&in); err != nil || in.Notification == nil {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	kept, _ := c.kept.Load(warningsOf(aws.ToString(in.BudgetName)))
	warn, _ := kept.([]types.NotificationWithSubscribers)
	for _, w := range warn {
		if w.Notification.NotificationType == in.Notification.NotificationType {
			subscribers = w.Subscribers
		}
	}
	_ = json.NewEncoder(rw).Encode(map[string]any{"Subscribers": subscribers})
}

func removeBudget(ctx context.Context, c *Cloud, id string) error {
	_, name, _ := strings.Cut(id, ":")
	c.kept.Delete(warningsOf(name))
	_, err := c.budgets.DeleteBudget(ctx, &budgets.DeleteBudgetInput{AccountId: &c.Account, BudgetName: &name})
	return budgetGone(err)
}
