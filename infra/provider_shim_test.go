package infra_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/rights"
)

// shim stands between the provider and moto. It has what moto lacks, and keeps which actions were asked for.
type shim struct {
	url string

	mu      sync.Mutex
	actions map[string]bool
	kept    map[string]string // by queue, function or mapping
}

func startShim(t *testing.T, moto string) *shim {
	target, err := url.Parse(moto)
	if err != nil {
		t.Fatal(err)
	}
	s := &shim{actions: map[string]bool{}, kept: map[string]string{}}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host
			p.Out.Header.Del("Accept-Encoding")
		},
		ModifyResponse: s.complete,
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		q.Body = io.NopCloser(bytes.NewReader(body))
		action := actionOf(q, body)
		s.mu.Lock()
		s.actions[action] = true
		s.mu.Unlock()
		if !s.answers(rw, q, body) {
			proxy.ServeHTTP(rw, q)
		}
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

var recursionPath = regexp.MustCompile(`/functions/([^/]+)/recursion-config$`)

// answers answers what moto does not know.
func (s *shim) answers(rw http.ResponseWriter, q *http.Request, body []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := recursionPath.FindStringSubmatch(q.URL.Path); m != nil {
		key := "recursion " + m[1]
		var in struct{ RecursiveLoop string }
		if json.Unmarshal(body, &in) == nil && in.RecursiveLoop != "" {
			s.kept[key] = in.RecursiveLoop
		}
		_ = json.NewEncoder(rw).Encode(map[string]string{"RecursiveLoop": s.kept[key]})
		return true
	}
	var in struct {
		QueueUrl       string
		Attributes     map[string]string
		AttributeNames []string

		FunctionName  string
		LoggingConfig json.RawMessage

		Tags json.RawMessage

		CapacityProviderStrategy    json.RawMessage
		AvailabilityZoneRebalancing string

		Notification              struct{ NotificationType string }
		Subscribers, ResourceTags json.RawMessage
	}
	_ = json.Unmarshal(body, &in)
	switch target := q.Header.Get("X-Amz-Target"); {
	case target == "AWSBudgetServiceGateway.CreateBudget":
		s.kept["tags of the budget"] = string(in.ResourceTags)
	case target == "AWSBudgetServiceGateway.ListTagsForResource":
		_, _ = io.WriteString(rw, `{"ResourceTags":`+s.kept["tags of the budget"]+`}`)
		return true
	case target == "AWSBudgetServiceGateway.CreateNotification":
		s.kept["subscribers "+in.Notification.NotificationType] = string(in.Subscribers)
	case target == "AWSBudgetServiceGateway.DescribeSubscribersForNotification":
		_, _ = io.WriteString(rw, `{"Subscribers":`+s.kept["subscribers "+in.Notification.NotificationType]+`}`)
		return true
	case target == "AnyScaleFrontendService.RegisterScalableTarget":
		s.kept["tags of the fleet"] = string(in.Tags)
	case target == "AnyScaleFrontendService.ListTagsForResource":
		_, _ = io.WriteString(rw, `{"Tags":`+cmp.Or(s.kept["tags of the fleet"], "{}")+`}`)
		return true
	case strings.HasSuffix(target, ".CreateService"):
		s.kept["strategy of the fleet"] = string(in.CapacityProviderStrategy)
		s.kept["zones of the fleet"] = in.AvailabilityZoneRebalancing
	case target == "AmazonSQS.SetQueueAttributes":
		if v, ok := in.Attributes["RedriveAllowPolicy"]; ok {
			s.kept["allow "+in.QueueUrl] = v
			_, _ = io.WriteString(rw, "{}")
			return true
		}
	case target == "AmazonSQS.GetQueueAttributes" && slices.Equal(in.AttributeNames, []string{"RedriveAllowPolicy"}):
		attributes := map[string]string{}
		if v := s.kept["allow "+in.QueueUrl]; v != "" {
			attributes["RedriveAllowPolicy"] = v
		}
		_ = json.NewEncoder(rw).Encode(map[string]any{"Attributes": attributes})
		return true
	case target == "AmazonSQS.GetQueueAttributes":
		q.Header.Set("Kept-Queue", in.QueueUrl)
	case q.Method == http.MethodPost && strings.HasSuffix(q.URL.Path, "/functions") && in.LoggingConfig != nil:
		s.kept["logging "+in.FunctionName] = string(in.LoggingConfig)
	case q.Method == http.MethodPost && strings.Contains(q.URL.Path, "/event-source-mappings"):
		s.kept["mapping"] = in.FunctionName
	}
	return false
}

// complete adds to answers of moto what it does not keep, and an alias where it has resolved it.
func (s *shim) complete(p *http.Response) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := p.Request
	body, err := io.ReadAll(p.Body)
	p.Body.Close()
	if err != nil {
		return err
	}
	var answer map[string]any
	if json.Unmarshal(body, &answer) == nil {
		attributes, _ := answer["Attributes"].(map[string]any)
		if v := s.kept["allow "+q.Header.Get("Kept-Queue")]; v != "" && attributes != nil {
			attributes["RedriveAllowPolicy"] = v
		}
		if v, ok := attributes["RedrivePolicy"].(string); ok { // SQS writes no spaces
			var compact bytes.Buffer
			if err := json.Compact(&compact, []byte(v)); err != nil {
				return err
			}
			attributes["RedrivePolicy"] = compact.String()
		}
		for _, f := range []any{answer, answer["Configuration"]} {
			f, _ := f.(map[string]any)
			delete(f, "ImageConfigResponse") // there is none, which moto answers as an empty one
			name, _ := f["FunctionName"].(string)
			if v, ok := s.kept["logging "+name]; ok {
				f["LoggingConfig"] = json.RawMessage(v)
			}
		}
		if v, ok := s.kept["mapping"]; ok && answer["EventSourceArn"] != nil {
			answer["FunctionArn"] = v
		}
		services, _ := answer["services"].([]any)
		for _, f := range append(services, answer["service"]) {
			if f, _ := f.(map[string]any); f != nil { // moto has ECS services of a launch type only
				f["capacityProviderStrategy"] = json.RawMessage(s.kept["strategy of the fleet"])
				f["availabilityZoneRebalancing"] = s.kept["zones of the fleet"]
				delete(f, "launchType")
			}
		}
		if body, err = json.Marshal(answer); err != nil {
			return err
		}
	}
	p.Body, p.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	p.Header.Del("Content-Length")
	return nil
}

// services are the prefixes in IAM of those whose requests name their operation.
var services = map[string]string{
	"AmazonSQS": "sqs", "AmazonEC2ContainerRegistry_V20150921": "ecr", "Logs_20140328": "logs",
	"AWSBudgetServiceGateway": "budgets", "GraniteServiceVersion20100801": "cloudwatch",
	"AmazonEC2ContainerServiceV20141113": "ecs", "AnyScaleFrontendService": "application-autoscaling",
}

// queryServices are those by the version in their form.
var queryServices = map[string]string{"2010-05-08": "iam", "2011-06-15": "sts", "2010-03-31": "sns",
	"2010-08-01": "cloudwatch"}

// actionOf is the action of IAM that a request needs.
func actionOf(q *http.Request, body []byte) string {
	if service, operation, ok := strings.Cut(q.Header.Get("X-Amz-Target"), "."); ok {
		switch {
		case services[service] != "budgets" || strings.HasSuffix(operation, "Resource"): // tags
			return services[service] + ":" + operation
		case strings.HasPrefix(operation, "Describe"):
			return "budgets:ViewBudget"
		}
		return "budgets:ModifyBudget"
	}
	if form, err := url.ParseQuery(string(body)); err == nil && form.Get("Action") != "" {
		return queryServices[form.Get("Version")] + ":" + form.Get("Action")
	}
	path := q.URL.Path
	for _, r := range restActions {
		query := r.query == "" || q.URL.Query().Has(r.query)
		if q.Method == r.method && query && regexp.MustCompile("^"+r.path+"$").MatchString(path) {
			return r.action
		}
	}
	if strings.HasPrefix(path, "/service/GraniteServiceVersion20100801/operation/") {
		return "cloudwatch:" + path[strings.LastIndex(path, "/")+1:]
	}
	return "unknown: " + q.Method + " " + q.URL.String()
}

// restActions are those of Lambda and S3, whose requests name nothing.
var restActions = []struct{ method, path, query, action string }{
	{"POST", `/2015-03-31/functions/?`, "", "lambda:CreateFunction"},
	{"GET", `/2015-03-31/functions/[^/]+`, "", "lambda:GetFunction"},
	{"DELETE", `/2015-03-31/functions/[^/]+`, "", "lambda:DeleteFunction"},
	{"GET", `/2015-03-31/functions/[^/]+/configuration`, "", "lambda:GetFunctionConfiguration"},
	{"PUT", `/2015-03-31/functions/[^/]+/configuration`, "", "lambda:UpdateFunctionConfiguration"},
	{"PUT", `/2015-03-31/functions/[^/]+/code`, "", "lambda:UpdateFunctionCode"},
	{"GET", `/2015-03-31/functions/[^/]+/versions`, "", "lambda:ListVersionsByFunction"},
	{"POST", `/2015-03-31/functions/[^/]+/versions`, "", "lambda:PublishVersion"},
	{"POST", `/2015-03-31/functions/[^/]+/aliases`, "", "lambda:CreateAlias"},
	{"GET", `/2015-03-31/functions/[^/]+/aliases/[^/]+`, "", "lambda:GetAlias"},
	{"PUT", `/2015-03-31/functions/[^/]+/aliases/[^/]+`, "", "lambda:UpdateAlias"},
	{"DELETE", `/2015-03-31/functions/[^/]+/aliases/[^/]+`, "", "lambda:DeleteAlias"},
	{"PUT", `/2017-10-31/functions/[^/]+/concurrency`, "", "lambda:PutFunctionConcurrency"},
	{"DELETE", `/2017-10-31/functions/[^/]+/concurrency`, "", "lambda:DeleteFunctionConcurrency"},
	{"GET", `/2019-09-30/functions/[^/]+/concurrency`, "", "lambda:GetFunctionConcurrency"},
	{"GET", `/2020-06-30/functions/[^/]+/code-signing-config`, "", "lambda:GetFunctionCodeSigningConfig"},
	{"GET", `/2024-08-31/functions/[^/]+/recursion-config`, "", "lambda:GetFunctionRecursionConfig"},
	{"PUT", `/2024-08-31/functions/[^/]+/recursion-config`, "", "lambda:PutFunctionRecursionConfig"},
	{"POST", `/2015-03-31/event-source-mappings/?`, "", "lambda:CreateEventSourceMapping"},
	{"GET", `/2015-03-31/event-source-mappings/[^/]+`, "", "lambda:GetEventSourceMapping"},
	{"PUT", `/2015-03-31/event-source-mappings/[^/]+`, "", "lambda:UpdateEventSourceMapping"},
	{"DELETE", `/2015-03-31/event-source-mappings/[^/]+`, "", "lambda:DeleteEventSourceMapping"},
	{"GET", `/2017-03-31/tags/.+`, "", "lambda:ListTags"},
	{"POST", `/2017-03-31/tags/.+`, "", "lambda:TagResource"},
	{"GET", `/[^/]+/?`, "policy", "s3:GetBucketPolicy"}, {"PUT", `/[^/]+/?`, "policy", "s3:PutBucketPolicy"},
	{"DELETE", `/[^/]+/?`, "policy", "s3:DeleteBucketPolicy"},
	{"GET", `/[^/]+/?`, "publicAccessBlock", "s3:GetBucketPublicAccessBlock"},
	{"PUT", `/[^/]+/?`, "publicAccessBlock", "s3:PutBucketPublicAccessBlock"},
	{"DELETE", `/[^/]+/?`, "publicAccessBlock", "s3:PutBucketPublicAccessBlock"},
	{"GET", `/[^/]+/?`, "ownershipControls", "s3:GetBucketOwnershipControls"},
	{"PUT", `/[^/]+/?`, "ownershipControls", "s3:PutBucketOwnershipControls"},
	{"DELETE", `/[^/]+/?`, "ownershipControls", "s3:PutBucketOwnershipControls"},
	{"GET", `/[^/]+/?`, "encryption", "s3:GetEncryptionConfiguration"},
	{"PUT", `/[^/]+/?`, "encryption", "s3:PutEncryptionConfiguration"},
	{"DELETE", `/[^/]+/?`, "encryption", "s3:PutEncryptionConfiguration"},
	{"GET", `/[^/]+/?`, "lifecycle", "s3:GetLifecycleConfiguration"},
	{"PUT", `/[^/]+/?`, "lifecycle", "s3:PutLifecycleConfiguration"},
	{"DELETE", `/[^/]+/?`, "lifecycle", "s3:PutLifecycleConfiguration"},
	{"GET", `/[^/]+/?`, "tagging", "s3:GetBucketTagging"}, {"PUT", `/[^/]+/?`, "tagging", "s3:PutBucketTagging"},
	{"DELETE", `/[^/]+/?`, "tagging", "s3:PutBucketTagging"},
	{"GET", `/[^/]+/?`, "acl", "s3:GetBucketAcl"}, {"GET", `/[^/]+/?`, "cors", "s3:GetBucketCORS"},
	{"GET", `/[^/]+/?`, "website", "s3:GetBucketWebsite"}, {"GET", `/[^/]+/?`, "versioning", "s3:GetBucketVersioning"},
	{"GET", `/[^/]+/?`, "accelerate", "s3:GetAccelerateConfiguration"},
	{"GET", `/[^/]+/?`, "requestPayment", "s3:GetBucketRequestPayment"}, {"GET", `/[^/]+/?`, "logging", "s3:GetBucketLogging"},
	{"GET", `/[^/]+/?`, "replication", "s3:GetReplicationConfiguration"},
	{"GET", `/[^/]+/?`, "object-lock", "s3:GetBucketObjectLockConfiguration"},
	{"GET", `/[^/]+/?`, "location", "s3:GetBucketLocation"}, {"GET", `/[^/]+/?`, "versions", "s3:ListBucketVersions"},
	{"GET", `/[^/]+/?`, "", "s3:ListBucket"}, {"HEAD", `/[^/]+/?`, "", "s3:ListBucket"},
	{"PUT", `/[^/]+/?`, "", "s3:CreateBucket"}, {"DELETE", `/[^/]+/?`, "", "s3:DeleteBucket"},
	{"POST", `/[^/]+/?`, "delete", "s3:DeleteObject"},
}

// implied are actions that AWS checks for a request beside its own, and those of Docker's
// push, of which this test makes none. Each has its reason.
var implied = []string{
	"iam:PassRole",                                                      // lambda:CreateFunction gives the function its role
	"iam:TagRole", "sqs:TagQueue", "ecr:TagResource", "sns:TagResource", // what is created with tags
	"ecs:TagResource", "ecs:UntagResource", "application-autoscaling:TagResource", // a fleet's
	"logs:TagResource", "lambda:TagResource", "cloudwatch:TagResource", "budgets:TagResource",
	"ecr:GetAuthorizationToken", "ecr:BatchCheckLayerAvailability", "ecr:InitiateLayerUpload", // docker push
	"ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage", "ecr:BatchGetImage",
	"ecr:GetDownloadUrlForLayer",
	"lambda:UpdateFunctionCode", "lambda:UpdateFunctionConfiguration", "lambda:PublishVersion", // pulumi up, another time
	"lambda:UpdateAlias", "lambda:UpdateEventSourceMapping", "iam:UpdateRole", "iam:UpdateAssumeRolePolicy",
	"iam:PutRolePermissionsBoundary", "iam:DeleteRolePermissionsBoundary", "lambda:GetFunctionConfiguration",
	"ecr:PutImageScanningConfiguration", "ecr:PutImageTagMutability", "lambda:DeleteFunctionConcurrency",
	"lambda:UntagResource", "sqs:UntagQueue", "iam:UntagRole", "ecr:UntagResource", "logs:UntagResource",
	"sns:UntagResource", "cloudwatch:UntagResource", "budgets:UntagResource",
	"s3:DeleteObject", "s3:DeleteObjectVersion", "s3:ListBucketVersions", // retainData false
	"servicequotas:GetServiceQuota", "servicequotas:GetAWSDefaultServiceQuota", // the second where no quota was changed
}

// scopes are the resources that a service's actions are for, by the names of a stack's
// resources; services that are not here have no such names.
var scopes = map[string][]string{
	"sqs": {"arn:aws:sqs:*:*:vm-dataset-*"}, "s3": {"arn:aws:s3:::vm-dataset-*"},
	"ecr": {"arn:aws:ecr:*:*:repository/vm-dataset-*"}, "iam": {"arn:aws:iam::*:role/vm-dataset-*"},
	"sns": {"arn:aws:sns:*:*:vm-dataset-*"}, "budgets": {"arn:aws:budgets::*:budget/vm-dataset-*"},
	"ecs": {"arn:aws:ecs:*:*:cluster/vm-dataset-*", "arn:aws:ecs:*:*:service/vm-dataset-*",
		"arn:aws:ecs:*:*:task-definition/vm-dataset-*"},
	"application-autoscaling": {"arn:aws:application-autoscaling:*:*:scalable-target/*"},
	"lambda":                  {"arn:aws:lambda:*:*:function:vm-dataset-*"},
	"logs":                    {"arn:aws:logs:*:*:log-group:vm-dataset-*"},
	"cloudwatch":              {"arn:aws:cloudwatch:*:*:alarm:vm-dataset-*", "arn:aws:cloudwatch::*:dashboard/vm-dataset-*"},
}

// unscoped are actions that AWS grants on all resources only, and those of mappings, whose names AWS makes up.
var unscoped = regexp.MustCompile(`^(logs:DescribeLogGroups|ecr:GetAuthorizationToken|cloudwatch:(List|Describe).*|` +
	`ecs:(De)?[rR]egisterTaskDefinition|ecs:DescribeTaskDefinition|application-autoscaling:Describe.*|` +
	`sns:(Unsubscribe|GetSubscriptionAttributes)|servicequotas:.*|sts:.*|lambda:.*EventSourceMapping.*|lambda:.*Tag.*)$`)

// serviceRoles lets ECS and the scaling of its services make their roles, which an account's first fleet
// needs; both services make them by themselves, so the provider does not ask for it.
// https://docs.aws.amazon.com/autoscaling/application/userguide/application-auto-scaling-service-linked-roles.html
var serviceRoles = rights.Statement{Sid: "ServiceRoles", Effect: rights.Allow,
	Action: []string{"iam:CreateServiceLinkedRole"},
	Resource: []string{"arn:aws:iam::*:role/aws-service-role/ecs.amazonaws.com/*",
		"arn:aws:iam::*:role/aws-service-role/ecs.application-autoscaling.amazonaws.com/*"},
	Condition: map[string]map[string][]string{"StringEquals": {
		"iam:AWSServiceName": {"ecs.amazonaws.com", "ecs.application-autoscaling.amazonaws.com"}}}}

// checkPolicy compares the policy of deployers with the actions that were asked for.
func (s *shim) checkPolicy(t *testing.T) {
	t.Helper()
	for action := range s.actions {
		if strings.HasPrefix(action, "unknown") || strings.HasPrefix(action, ":") {
			t.Errorf("the provider asks for what this test has no name for: %s", action)
		}
	}
	want := deployerPolicy(t, append(slices.Collect(maps.Keys(s.actions)), implied...))
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(policyFile, want, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(policyFile); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the provider asked for (UPDATE=1 writes it): %v", policyFile, err)
	}
}

// The policy of deployers has what is implied, each action for the resources that it is for. What the
// provider asks for is checked where the provider runs.
func TestDeployerPolicy(t *testing.T) {
	got, err := os.ReadFile(policyFile)
	if err != nil {
		t.Fatal(err)
	}
	var policy rights.Policy
	if err := json.Unmarshal(got, &policy); err != nil {
		t.Fatal(err)
	}
	actions := slices.Clone(implied)
	for _, s := range policy.Statement {
		if s.Condition == nil {
			actions = append(actions, s.Action...)
		}
	}
	if want := deployerPolicy(t, actions); !bytes.Equal(got, want) {
		t.Errorf("%s should be\n%s", policyFile, want)
	}
	for operation, want := range map[string]string{"CreateBudget": "ModifyBudget", "DeleteBudget": "ModifyBudget",
		"CreateNotification": "ModifyBudget", "DescribeSubscribersForNotification": "ViewBudget",
		"DescribeBudget": "ViewBudget", "ListTagsForResource": "ListTagsForResource"} {
		q := httptest.NewRequest(http.MethodPost, "/", nil)
		q.Header.Set("X-Amz-Target", "AWSBudgetServiceGateway."+operation)
		if got := actionOf(q, nil); got != "budgets:"+want {
			t.Errorf("%s needs %s", operation, got)
		}
	}
}

var policyFile = filepath.Join("..", "deploy", "deployer-policy.json")

// deployerPolicy returns the policy that allows actions, as the file has it.
func deployerPolicy(t *testing.T, actions []string) []byte {
	t.Helper()
	byService := map[string][]string{}
	var everywhere []string
	for _, action := range actions {
		service, _, _ := strings.Cut(action, ":")
		if unscoped.MatchString(action) {
			everywhere = append(everywhere, action)
		} else {
			byService[service] = append(byService[service], action)
		}
	}
	sorted := func(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }
	statements := []rights.Statement{{Sid: "Everywhere", Effect: rights.Allow, Action: sorted(everywhere),
		Resource: []string{"*"}}}
	for _, service := range slices.Sorted(maps.Keys(byService)) {
		if scopes[service] == nil {
			t.Errorf("%s has no resources here: %v", service, byService[service])
		}
		sid := strings.ReplaceAll(service, "-", "") // letters and digits only
		statements = append(statements, rights.Statement{Sid: strings.ToUpper(sid[:1]) + sid[1:],
			Effect: rights.Allow, Action: sorted(byService[service]), Resource: scopes[service]})
	}
	text, err := json.MarshalIndent(rights.Document(append(statements, serviceRoles)...), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}
