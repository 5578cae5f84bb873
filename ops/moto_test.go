package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// motoEndpoint is the moto server that these tests use as AWS; without one they
// are skipped. CI has one.
func motoEndpoint(t testing.TB) string {
	endpoint := os.Getenv("MOTO_ENDPOINT")
	if endpoint == "" {
		t.Skip("MOTO_ENDPOINT is not set: no moto server to be AWS")
	}
	return endpoint
}

const (
	motoAccount = "123456789012"
	motoRegion  = "us-east-2"
)

// motoCloud is a whole deployed stack in moto, as infra makes one, behind a
// proxy that can say what moto cannot.
type motoCloud struct {
	stack.Outputs
	testing.TB
	config  aws.Config
	url     string // of the proxy
	lambda  *lambda.Client
	sqs     *sqs.Client
	s3      *s3.Client
	ecr     *ecr.Client
	logs    *cloudwatchlogs.Client
	mu      sync.Mutex
	answers []answer
}

// answer changes what a request is answered. The first that fits is taken, once
// if it is so.
type answer struct {
	method, path string // of the request; the beginning of the path
	once         bool
	change       func(answer map[string]any) // of moto's
	instead      any                         // of moto's, with status 200
	status       int                         // of an error instead of moto's answer
	code         string                      // of that error
	failed       bool                        // an invocation's function has failed
}

func newMotoCloud(t testing.TB) *motoCloud {
	t.Helper()
	moto, err := url.Parse(motoEndpoint(t))
	if err != nil {
		t.Fatal(err)
	}
	c := &motoCloud{TB: t}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(moto); r.Out.Host = r.In.Host },
		ModifyResponse: c.modify}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := c.take(r, func(a answer) bool { return a.change == nil }); a != nil {
			w.Header().Set("Content-Type", "application/json")
			if a.failed {
				w.Header().Set("X-Amz-Function-Error", "Unhandled")
			}
			if a.status != 0 {
				w.Header().Set("X-Amzn-Errortype", a.code)
				w.WriteHeader(a.status)
				a.instead = map[string]string{"Message": "the test says so"}
			}
			_ = json.NewEncoder(w).Encode(a.instead)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	c.url = web.URL
	c.config = aws.Config{Region: motoRegion, BaseEndpoint: &c.url,
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""), HTTPClient: store.HTTPClient(nil)}
	c.lambda, c.sqs, c.ecr, c.logs = lambda.NewFromConfig(c.config), sqs.NewFromConfig(c.config),
		ecr.NewFromConfig(c.config), cloudwatchlogs.NewFromConfig(c.config)
	c.s3 = s3.NewFromConfig(c.config, store.ClientOptions)
	c.deploy(fmt.Sprintf("ops-%d", time.Now().UnixNano()))
	// moto does not know what an account may run.
	c.answer(answer{method: "GET", path: "/2016-08-19/account-settings",
		instead: map[string]any{"AccountLimit": map[string]any{"ConcurrentExecutions": 1000,
			"UnreservedConcurrentExecutions": 990}}})
	return c
}

// ok ends the test when a request failed: c.ok(client.Do(...)).
func (c *motoCloud) ok(_ any, err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// deploy makes what infra makes.
func (c *motoCloud) deploy(name string) {
	ctx := c.Context()
	c.Region, c.AccountID, c.Architecture, c.MemoryMB, c.DataPrefix, c.DashboardURL = motoRegion, motoAccount, "x86_64",
		10240, "data/v1/", "https://dashboard"
	c.BucketName, c.FunctionName, c.LogGroupName = name, name, "/aws/lambda/"+name
	queue := func(suffix string, attributes map[string]string) (address, arn string) {
		out, err := c.sqs.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(name + suffix),
			Attributes: attributes})
		c.ok(out, err)
		return *out.QueueUrl, "arn:aws:sqs:" + motoRegion + ":" + motoAccount + ":" + name + suffix
	}
	c.DLQURL, c.DLQARN = queue("-dlq", map[string]string{"MessageRetentionPeriod": "1209600"})
	c.QueueURL, c.QueueARN = queue("-tasks", map[string]string{"VisibilityTimeout": "960",
		"MessageRetentionPeriod": "604800",
		"RedrivePolicy":          fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":3}`, c.DLQARN)})
	c.setQueue(c.DLQURL, "RedriveAllowPolicy", fmt.Sprintf(`{"redrivePermission":"byQueue","sourceQueueArns":[%q]}`,
		c.QueueARN))
	c.ok(c.s3.CreateBucket(ctx,
		&s3.CreateBucketInput{Bucket: &name,
			CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: motoRegion}}))

	c.RepositoryURL = motoAccount + ".dkr.ecr." + motoRegion + ".amazonaws.com/" + name
	c.ok(c.ecr.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &name}))
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(c.RepositoryURL+":latest"))) // what moto takes for it
	c.ImageURI = c.RepositoryURL + "@" + digest
	c.pushImage(digest, "application/vnd.docker.distribution.manifest.v2+json")
	role, err := iam.NewFromConfig(c.config).CreateRole(ctx,
		&iam.CreateRoleInput{RoleName: &name,
			AssumeRolePolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[]}`)})
	c.ok(role, err)
	function, err := c.lambda.CreateFunction(ctx, &lambda.CreateFunctionInput{
		FunctionName: &name, PackageType: lambdatypes.PackageTypeImage,
		Code: &lambdatypes.FunctionCode{ImageUri: aws.String(c.RepositoryURL + ":latest")},
		Role: role.Role.Arn, Timeout: aws.Int32(900), MemorySize: aws.Int32(10240),
		Architectures: []lambdatypes.Architecture{lambdatypes.ArchitectureX8664},
		Environment: &lambdatypes.Environment{Variables: map[string]string{stack.EnvBucket: c.BucketName,
			stack.EnvQueueURL: c.QueueURL, stack.EnvDLQURL: c.DLQURL}},
	})
	c.ok(function, err)
	c.FunctionARN = *function.FunctionArn
	c.connect(10)
	c.ok(c.logs.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &c.LogGroupName}))
	c.ok(c.logs.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: &c.LogGroupName,
		RetentionInDays: aws.Int32(30)}))
	c.Generators, c.Locks = map[string]string{"maze-task": "c1", "chess-task": ""}, map[string]string{"maze-task": "l1"}
	c.RequiredFiles = []string{}
}

// connect makes an event source mapping and forgets the last one.
func (c *motoCloud) connect(most int32, change ...func(*lambda.CreateEventSourceMappingInput)) {
	in := &lambda.CreateEventSourceMappingInput{EventSourceArn: &c.QueueARN, FunctionName: &c.FunctionARN,
		BatchSize:             aws.Int32(1),
		FunctionResponseTypes: []lambdatypes.FunctionResponseType{lambdatypes.FunctionResponseTypeReportBatchItemFailures},
		ScalingConfig:         &lambdatypes.ScalingConfig{MaximumConcurrency: &most}}
	for _, f := range change {
		f(in)
	}
	made, err := c.lambda.CreateEventSourceMapping(c.Context(), in)
	c.ok(made, err)
	c.EventSourceMappingID = *made.UUID
}

func (c *motoCloud) pushImage(digest, mediaType string) {
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"c","size":7,"digest":"sha256:00"},"layers":[{"mediaType":"l","size":3,"digest":"sha256:11"}]}`, mediaType)
	c.ok(c.ecr.PutImage(c.Context(), &ecr.PutImageInput{RepositoryName: &c.BucketName, ImageManifest: &manifest,
		ImageManifestMediaType: &mediaType, ImageDigest: &digest}))
}

func (c *motoCloud) setQueue(address, attribute, value string) {
	c.ok(c.sqs.SetQueueAttributes(c.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &address,
		Attributes: map[string]string{attribute: value}}))
}

// put writes lines into the log group, as Lambda does for one worker.
func (c *motoCloud) put(ctx context.Context, stream string, at time.Time, lines ...string) error {
	// it may be there
	_, _ = c.logs.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &c.LogGroupName,
		LogStreamName: &stream})
	var events []logtypes.InputLogEvent
	for i, line := range lines {
		events = append(events, logtypes.InputLogEvent{Message: &line, Timestamp: aws.Int64(at.UnixMilli() + int64(i))})
	}
	_, err := c.logs.PutLogEvents(ctx, &cloudwatchlogs.PutLogEventsInput{LogGroupName: &c.LogGroupName,
		LogStreamName: &stream, LogEvents: events})
	return err
}

func (c *motoCloud) answer(a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = append([]answer{a}, c.answers...)
}

// take returns the answer for a request, or nil.
func (c *motoCloud) take(r *http.Request, fits func(answer) bool) *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, a := range c.answers {
		if r.Method == a.method && strings.HasPrefix(r.URL.Path, a.path) && fits(a) {
			if a.once {
				c.answers = append(c.answers[:i:i], c.answers[i+1:]...)
			}
			return &a
		}
	}
	return nil
}

func (c *motoCloud) modify(r *http.Response) error {
	a := c.take(r.Request, func(a answer) bool { return a.change != nil })
	if a == nil {
		return nil
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	var body map[string]any
	if json.Unmarshal(text, &body) == nil { // others speak XML
		a.change(body)
		text, _ = json.Marshal(body)
	}
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(string(text))), int64(len(text))
	r.Header.Set("Content-Length", fmt.Sprint(len(text)))
	return nil
}

// environment leads the SDK, and no tool of this machine, to the cloud.
func (c *motoCloud) environment() map[string]string {
	return map[string]string{"AWS_ENDPOINT_URL": c.url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
		"AWS_REGION": motoRegion, "AWS_DEFAULT_REGION": motoRegion,
		"AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull}
}

// save writes the stack outputs into a file.
func (c *motoCloud) save(dir string) (string, error) {
	text, err := json.Marshal(c.Outputs)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "outputs.json")
	return file, os.WriteFile(file, text, 0o644)
}

// TestCloudScripts plays the dialogues in testdata/moto; $OUT are the outputs of
// a stack there.
func TestCloudScripts(t *testing.T) {
	motoEndpoint(t)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "moto"), RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			c := newMotoCloud(e.T().(testing.TB))
			e.Values["moto"] = c
			for name, value := range c.environment() {
				e.Setenv(name, value)
			}
			c.Generators = map[string]string{"maze-task": "", "sudoku-task": "", "chess-task": ""}
			e.Setenv("BUCKET", c.BucketName)
			file, err := c.save(e.WorkDir)
			e.Setenv("OUT", file)
			return errors.Join(err, setUp(e, false))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "up": waitUp, "deploy": deployGenerators, "work": workOnTasks,
			// log STREAM AGE LINE...: $TIME in a line is that moment
			"log": func(ts *testscript.TestScript, neg bool, args []string) {
				age, err := time.ParseDuration(args[1])
				ts.Check(err)
				at := time.Now().Add(-age)
				var lines []string
				for _, line := range args[2:] {
					lines = append(lines, strings.ReplaceAll(line, "$TIME", at.UTC().Format(time.RFC3339Nano)))
				}
				ts.Check(ts.Value("moto").(*motoCloud).put(context.Background(), args[0], at, lines...))
			},
			// task BODY puts a message into the queue
			"task": func(ts *testscript.TestScript, neg bool, args []string) {
				c := ts.Value("moto").(*motoCloud)
				_, err := c.sqs.SendMessage(context.Background(), &sqs.SendMessageInput{QueueUrl: &c.QueueURL,
					MessageBody: &args[0]})
				ts.Check(err)
			},
		},
	})
}
