package cloudtest_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	"github.com/aws/aws-sdk-go-v2/service/budgets"
	budgettypes "github.com/aws/aws-sdk-go-v2/service/budgets/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/schemas"
	cloudwatchtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logstypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/cloudtest"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// account is the tests' own view of moto, apart from the providers'.
type account struct {
	id         string
	sqs        *sqs.Client
	s3         *s3.Client
	ecr        *ecr.Client
	iam        *iam.Client
	lambda     *lambda.Client
	logs       *cloudwatchlogs.Client
	cloudwatch *cloudwatch.Client
	sns        *sns.Client
	ecs        *ecs.Client
	scaling    *applicationautoscaling.Client
	budgets    *budgets.Client
}

func newAccount(c *cloudtest.Cloud) *account {
	config := awsConfig(c)
	return &account{
		id:  c.Account,
		sqs: sqs.NewFromConfig(config), s3: s3.NewFromConfig(config, store.ClientOptions), ecr: ecr.NewFromConfig(config),
		iam:    iam.NewFromConfig(config),
		lambda: lambda.NewFromConfig(config), logs: cloudwatchlogs.NewFromConfig(config), sns: sns.NewFromConfig(config),
		ecs: ecs.NewFromConfig(config), scaling: applicationautoscaling.NewFromConfig(config),
		budgets: budgets.NewFromConfig(config),
		cloudwatch: cloudwatch.NewFromConfig(config, func(o *cloudwatch.Options) {
			o.Protocol = awsjson.New10(schemas.GraniteServiceVersion20100801) // moto cannot read CBOR
		}),
	}
}

// kinds counts what moto has of a stack, by kind. Every name of a stack's
// resources begins with that of the project and the stack.
func (a *account) kinds(t *testing.T, prefix string) map[string]int {
	t.Helper()
	ctx := t.Context()
	count := map[string]int{}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	add := func(kind string, names []string) {
		for _, name := range names {
			if strings.HasPrefix(name, prefix) {
				count[kind]++
			}
		}
	}
	queues, err := a.sqs.ListQueues(ctx, &sqs.ListQueuesInput{QueueNamePrefix: &prefix})
	ok(err)
	add("queue", afterLast(queues.QueueUrls, "/"))
	buckets, err := a.s3.ListBuckets(ctx, &s3.ListBucketsInput{})
	ok(err)
	add("bucket", names(buckets.Buckets, func(b s3types.Bucket) *string { return b.Name }))
	// Other tests make many of these in the same account.
	for pages := ecr.NewDescribeRepositoriesPaginator(a.ecr, &ecr.DescribeRepositoriesInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		ok(err)
		add("repository", names(page.Repositories, func(r ecrtypes.Repository) *string { return r.RepositoryName }))
	}
	for pages := iam.NewListRolesPaginator(a.iam, &iam.ListRolesInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		ok(err)
		add("role", names(page.Roles, func(r iamtypes.Role) *string { return r.RoleName }))
	}
	for pages := lambda.NewListFunctionsPaginator(a.lambda, &lambda.ListFunctionsInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		ok(err)
		add("function", names(page.Functions, func(f lambdatypes.FunctionConfiguration) *string { return f.FunctionName }))
	}
	mappings, err := a.lambda.ListEventSourceMappings(ctx, &lambda.ListEventSourceMappingsInput{})
	ok(err)
	for _, m := range mappings.EventSourceMappings {
		add("mapping", strings.Split(*m.FunctionArn, ":")[6:7]) // the function's name; a version or alias follows
	}
	groups, err := a.logs.DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: &prefix})
	ok(err)
	add("log group", names(groups.LogGroups, func(g logstypes.LogGroup) *string { return g.LogGroupName }))
	alarms, err := a.cloudwatch.DescribeAlarms(ctx, &cloudwatch.DescribeAlarmsInput{AlarmNamePrefix: &prefix})
	ok(err)
	add("alarm", names(alarms.MetricAlarms, func(m cloudwatchtypes.MetricAlarm) *string { return m.AlarmName }))
	boards, err := a.cloudwatch.ListDashboards(ctx, &cloudwatch.ListDashboardsInput{DashboardNamePrefix: &prefix})
	ok(err)
	add("dashboard", names(boards.DashboardEntries,
		func(d cloudwatchtypes.DashboardEntry) *string { return d.DashboardName }))
	topics, err := a.sns.ListTopics(ctx, &sns.ListTopicsInput{})
	ok(err)
	add("topic", afterLast(names(topics.Topics, func(s snstypes.Topic) *string { return s.TopicArn }), ":"))
	all, err := a.budgets.DescribeBudgets(ctx, &budgets.DescribeBudgetsInput{AccountId: &a.id})
	ok(err)
	add("budget", names(all.Budgets, func(b budgettypes.Budget) *string { return b.BudgetName }))
	a.addFleets(t, add)
	return count
}

func names[T any](all []T, name func(T) *string) []string {
	var found []string
	for _, one := range all {
		found = append(found, aws.ToString(name(one)))
	}
	return found
}

func afterLast(texts []string, separator string) []string {
	var ends []string
	for _, s := range texts {
		ends = append(ends, s[strings.LastIndex(s, separator)+1:])
	}
	return ends
}

// manifestType is the media type of an image, as the registry itself says.
func manifestType(ctx context.Context, t *testing.T, uri string) string {
	t.Helper()
	_, path, _ := strings.Cut(uri, "/")
	name, digest, _ := strings.Cut(path, "@")
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+os.Getenv("REGISTRY")+"/v2/"+name+"/manifests/"+
		digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Whoever accepts an index is given it, should there be one.
	q.Header.Set("Accept", strings.Join([]string{
		"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json",
		cloudtest.MediaTypeOCI, cloudtest.MediaTypeDocker,
	}, ","))
	p, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Body.Close()
	var m struct {
		Manifests []any
		Layers    []any
	}
	if err := json.NewDecoder(p.Body).Decode(&m); err != nil || p.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", uri, p.Status, err)
	}
	if len(m.Manifests) > 0 || len(m.Layers) == 0 {
		t.Errorf("%s is an index of %d manifests, with %d layers", uri, len(m.Manifests), len(m.Layers))
	}
	return p.Header.Get("Content-Type")
}
