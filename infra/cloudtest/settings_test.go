package cloudtest_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/budgets"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sns"

	"github.com/vm-dataset/vm-dataset-pipeline/infra"
)

// What an organisation sets: reserved workers, a boundary of roles, the account, mail and a budget.
func TestEngineSettings(t *testing.T) {
	c := cloud(t)
	a := newAccount(c)
	name := unusedName()
	prefix := project + "-" + name
	mail := name + "@example.com"
	policy, err := a.iam.CreatePolicy(t.Context(), &iam.CreatePolicyInput{PolicyName: aws.String("boundary-" + name),
		PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`)})
	if err != nil {
		t.Fatal(err)
	}
	boundary := *policy.Policy.Arn
	s := newStack(t, c, name, infra.Program, map[string]string{"maxConcurrency": "10", "reservedConcurrency": "20",
		"permissionsBoundary": boundary, "allowedAccountIds": `["210987654321"]`, "alarmEmail": mail,
		"monthlyBudgetUSD": "50", "tags": `{"team":"video"}`, "retainData": "false"})

	// Another account is refused before there is anything.
	if _, err := s.Up(t.Context()); err == nil || !strings.Contains(err.Error(), project+
		":allowedAccountIds is 210987654321, but the credentials are of account "+c.Account+
		": use another profile, or add") {
		t.Errorf("another account: %v", err)
	}
	if found := a.kinds(t, prefix); len(found) > 0 {
		t.Errorf("another account has %v", found)
	}
	s.set("allowedAccountIds", `["210987654321", "`+c.Account+`"]`)
	r, _ := s.up()
	o := checkOutputs(t, r.Outputs)
	if got := a.reserved(t, o.FunctionName); got != 20 {
		t.Errorf("%d workers are reserved", got)
	}
	f, err := a.lambda.GetFunction(t.Context(), &lambda.GetFunctionInput{FunctionName: &o.FunctionName})
	if err != nil {
		t.Fatal(err)
	}
	if f.Tags["team"] != "video" || f.Tags["stack"] != name {
		t.Errorf("the function has the tags %v", f.Tags)
	}
	role := afterLast([]string{*f.Configuration.Role}, "/")[0]
	if got := a.boundary(t, role); got != boundary {
		t.Errorf("the role's boundary is %q", got)
	}
	a.mails(t, prefix, o.FunctionName, mail)
	a.warns(t, prefix, "user:stack$"+name, "50", mail)

	_, changes := s.up()
	same(t, "up without changes", changes)
	s.set("reservedConcurrency", "30")
	_, changes = s.up()
	same(t, "more reserved workers", changes, "update aws:lambda/function:Function "+prefix+"-worker")
	if got := a.reserved(t, o.FunctionName); got != 30 {
		t.Errorf("%d workers are reserved", got)
	}
	s.set("monthlyBudgetUSD", "80")
	_, changes = s.up()
	same(t, "a larger budget", changes, "update aws:budgets/budget:Budget "+prefix+"-watch")
	a.warns(t, prefix, "user:stack$"+name, "80", mail)
	for _, key := range []string{"reservedConcurrency", "permissionsBoundary"} {
		if err := s.RemoveConfig(t.Context(), project+":"+key); err != nil {
			t.Fatal(err)
		}
	}
	_, changes = s.up()
	same(t, "nothing reserved, no boundary", changes, "update aws:lambda/function:Function "+prefix+"-worker",
		"update aws:iam/role:Role "+prefix+"-worker")
	if n, b := a.reserved(t, o.FunctionName), a.boundary(t, role); n != 0 || b != "" {
		t.Errorf("%d workers are still reserved, the boundary is %q", n, b)
	}

	if _, err := s.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found := a.kinds(t, prefix); len(found) > 0 {
		t.Errorf("after destroy there is still %v", found)
	}
}

// reserved is how many workers are kept for a function; 0 for none.
func (a *account) reserved(t *testing.T, function string) int32 {
	t.Helper()
	out, err := a.lambda.GetFunctionConcurrency(t.Context(), &lambda.GetFunctionConcurrencyInput{FunctionName: &function})
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToInt32(out.ReservedConcurrentExecutions)
}

// boundary is the ARN of the policy that limits a role, or "".
func (a *account) boundary(t *testing.T, role string) string {
	t.Helper()
	out, err := a.iam.GetRole(t.Context(), &iam.GetRoleInput{RoleName: &role})
	if err != nil {
		t.Fatal(err)
	}
	if out.Role.PermissionsBoundary == nil {
		return ""
	}
	return aws.ToString(out.Role.PermissionsBoundary.PermissionsBoundaryArn)
}

// mails checks that the alarm on a function's errors goes to an address.
func (a *account) mails(t *testing.T, prefix, function, address string) {
	t.Helper()
	out, err := a.cloudwatch.DescribeAlarms(t.Context(),
		&cloudwatch.DescribeAlarmsInput{AlarmNamePrefix: aws.String(prefix + "-watch-errors-")})
	if err != nil || len(out.MetricAlarms) != 1 {
		t.Fatalf("alarms on errors: %v, %v", out, err)
	}
	m := out.MetricAlarms[0]
	if aws.ToString(m.Namespace) != "AWS/Lambda" || aws.ToString(m.MetricName) != "Errors" || len(m.Dimensions) != 1 ||
		*m.Dimensions[0].Value != function || aws.ToFloat64(m.Threshold) != 0 || len(m.AlarmActions) != 1 {
		t.Fatalf("the alarm on errors is %+v", m)
	}
	list, err := a.sns.ListSubscriptionsByTopic(t.Context(),
		&sns.ListSubscriptionsByTopicInput{TopicArn: &m.AlarmActions[0]})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Subscriptions) != 1 || aws.ToString(list.Subscriptions[0].Endpoint) != address ||
		aws.ToString(list.Subscriptions[0].Protocol) != "email" {
		t.Errorf("the alarms go to %+v", list.Subscriptions)
	}
}

// warns checks that a stack's one budget has a limit in USD, counts what has a tag, and tells an address
// of what was spent and of what is going to be.
func (a *account) warns(t *testing.T, prefix, tag, limit, address string) {
	t.Helper()
	all, err := a.budgets.DescribeBudgets(t.Context(), &budgets.DescribeBudgetsInput{AccountId: &a.id})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all.Budgets {
		if !strings.HasPrefix(*b.BudgetName, prefix) {
			continue
		}
		filters := b.CostFilters["TagKeyValue"] //nolint:staticcheck // the real provider sends these, which AWS calls old
		if *b.BudgetLimit.Amount != limit || *b.BudgetLimit.Unit != "USD" || !slices.Equal(filters, []string{tag}) {
			t.Errorf("the budget is %s %s of %v", *b.BudgetLimit.Amount, *b.BudgetLimit.Unit, filters)
		}
		list, err := a.budgets.DescribeNotificationsForBudget(t.Context(),
			&budgets.DescribeNotificationsForBudgetInput{AccountId: &a.id, BudgetName: b.BudgetName})
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, n := range list.Notifications {
			to, err := a.budgets.DescribeSubscribersForNotification(t.Context(),
				&budgets.DescribeSubscribersForNotificationInput{AccountId: &a.id, BudgetName: b.BudgetName, Notification: &n})
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range to.Subscribers {
				told = append(told, string(n.NotificationType)+" to "+*s.Address)
			}
		}
		if !slices.Equal(told, []string{"ACTUAL to " + address, "FORECASTED to " + address}) {
			t.Errorf("the budget tells %v", told)
		}
		return
	}
	t.Error("there is no budget")
}
