package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inventory"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// doctor has what the checks of one stack need. Each check is independent of the
// others, so two may send the same request.
type doctor struct {
	flags  *target.Flags
	t      *target.Target
	tasks  *queue.Client
	store  *store.Store
	lambda *lambda.Client
	aws    aws.Config
}

func newDoctor(ctx context.Context, f *target.Flags, t *target.Target) (*doctor, error) {
	config, err := t.AWSConfig(ctx)
	if err != nil {
		return nil, err
	}
	d := &doctor{flags: f, t: t, lambda: lambda.NewFromConfig(config), aws: config}
	if d.tasks, err = t.Queue(ctx); err != nil {
		return nil, err
	}
	d.store, err = t.Store(ctx)
	return d, err
}

// Cloud checks a deployed stack. It writes an object to its bucket and deletes it again. If invoke is
// set it also asks the function, by an invocation, what only a worker can know.
func Cloud(ctx context.Context, o *ui.Output, f *target.Flags, invoke bool) ([]Finding, error) {
	t, err := target.Find(ctx, f, "")
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return []Finding{finding("outputs", "", err)}, nil
	}
	o.Changing(t) // an object is written, and deleted again
	d, err := newDoctor(ctx, f, t)
	if err != nil {
		return nil, err
	}
	first, err := examine(ctx, []check{{"outputs", d.outputs}, {"region", d.region}, {"credentials", d.credentials}})
	if err != nil {
		return nil, err
	}
	rest := []check{{"queue", d.queue}, {"dlq", d.dlq}, {"bucket", d.bucket}, {"function", d.function}, {"image", d.image},
		{"mapping", d.mapping}, {"concurrency", d.concurrency}, {"logs", d.logGroup}}
	if first[len(first)-1].State != "ok" { // the credentials
		for i := range rest {
			rest[i].run = func(context.Context) (string, error) {
				return "", skipped("needs credentials of the stack's account")
			}
		}
	}
	second, err := examine(ctx, append(rest, check{"generators", d.generators}))
	found := append(first, second...)
	switch {
	case err != nil:
	case !invoke:
		found = append(found, finding("worker", "", skipped(fmt.Sprintf(
			"it was not asked: ops%s doctor --worker invokes it once, for less than a cent, and shows which generators in "+
				"the image cannot run",
			d.t.Flags()))))
	case first[len(first)-1].State == "ok":
		found = append(found, d.worker(ctx)...)
	}
	return found, err
}

const refresh = "pulumi up --refresh"

// outputs checks the stack outputs beyond what all commands need.
func (d *doctor) outputs(ctx context.Context) (string, error) {
	var missing []string
	v := reflect.ValueOf(d.t.Outputs)
	for i, name := range stack.Names() {
		none := name == stack.OutFleetWorkers || name == stack.OutRetainData ||
			name == stack.OutEventSourceMappingID && d.t.WithoutLambda()
		if v.Field(i).IsZero() && !none {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return wrong("pulumi up", "the stack outputs lack %s", strings.Join(missing, ", "))
	}
	if d.flags.Outputs != "" {
		return "read from " + d.flags.Outputs + "; Pulumi is not asked", nil
	}
	version, err := target.Pulumi(ctx, d.flags, "version")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("stack %s, by Pulumi %s", d.t.Name, strings.TrimSpace(string(version))), nil
}

// registryPattern is the host of an ECR registry.
// https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html
var registryPattern = regexp.MustCompile(
	`^(\d{12})\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([^@:]+)`)

func (d *doctor) region(context.Context) (string, error) {
	for _, part := range []struct{ name, value string }{{"queueArn", d.t.QueueARN}, {"dlqArn", d.t.DLQARN},
		{"functionArn", d.t.FunctionARN}, {"imageUri", d.t.ImageURI}} {
		elsewhere := ""
		if fields := strings.Split(part.value, ":"); fields[0] == "arn" && len(fields) > 3 {
			elsewhere = fields[3]
		} else if m := registryPattern.FindStringSubmatch(part.value); m != nil {
			elsewhere = m[2]
		}
		if elsewhere != "" && elsewhere != d.t.Region {
			return wrong("pulumi config set aws:region "+elsewhere+", then pulumi up", "the stack's region is %s, but %s is %s",
				d.t.Region, part.name, part.value)
		}
	}
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if mine := os.Getenv(name); mine != "" && mine != d.t.Region {
			return fmt.Sprintf("%s (%s is %s; ops takes the stack's, other AWS tools do not)", d.t.Region, name, mine), nil
		}
	}
	return d.t.Region, nil
}

func (d *doctor) credentials(ctx context.Context) (string, error) {
	if _, err := d.aws.Credentials.Retrieve(ctx); err != nil {
		return wrong("aws configure, aws sso login, or AWS_PROFILE=NAME", "there are no AWS credentials: %w", err)
	}
	who, err := sts.NewFromConfig(d.aws).GetCallerIdentity(ctx, nil)
	if err != nil {
		return "", err
	}
	if account := aws.ToString(who.Account); d.t.AccountID != "" && account != d.t.AccountID {
		return wrong("AWS_PROFILE=NAME of account "+d.t.AccountID,
			"the credentials are of account %s (%s), the stack is in %s", account, aws.ToString(who.Arn), d.t.AccountID)
	}
	return aws.ToString(who.Arn), nil
}

func (d *doctor) queue(ctx context.Context) (string, error) {
	s, err := d.tasks.Settings(ctx)
	if err != nil {
		return "", err
	}
	switch {
	case s.ARN != d.t.QueueARN:
		return wrong(refresh, "%s is the queue %s, the stack's is %s", d.t.QueueURL, s.ARN, d.t.QueueARN)
	case s.DeadLetter == "":
		return wrong(refresh, "it has no redrive policy: a task whose worker is killed comes back for ever")
	case s.DeadLetter != d.t.DLQARN:
		return wrong(refresh, "its failed tasks go to %s, the stack's DLQ is %s", s.DeadLetter, d.t.DLQARN)
	}
	depth, err := d.tasks.Depth(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s waiting, %d with workers; hidden for %s, DLQ after %d deliveries",
		ui.Plural(depth.Waiting+depth.Delayed, "task"), depth.InFlight, ui.Span(s.Visibility), s.MaxReceives), nil
}

func (d *doctor) dlq(ctx context.Context) (string, error) {
	dead, err := d.tasks.DLQSettings(ctx)
	if err != nil {
		return "", err
	}
	switch {
	case dead.ARN != d.t.DLQARN:
		return wrong(refresh, "%s is the queue %s, the stack's DLQ is %s", d.t.DLQURL, dead.ARN, d.t.DLQARN)
	case !dead.Takes(d.t.QueueARN):
		return wrong(refresh, "its redrive allow policy does not name the task queue %s", d.t.QueueARN)
	}
	tasks, err := d.tasks.Settings(ctx)
	if err != nil {
		return "", err
	}
	// SQS counts a task's age from when it was first sent.
	if dead.Retention <= tasks.Retention && d.t.Name != stack.Local {
		return wrong(
			"a longer retention of the DLQ, or a shorter one of the queue, in the stack's configuration; then pulumi up",
			"it keeps a task for %s from when that was first sent, the queue for %s: a task may vanish on its way into it",
			ui.Span(dead.Retention), ui.Span(tasks.Retention))
	}
	depth, err := d.tasks.DLQDepth(ctx)
	if err != nil {
		return "", err
	}
	if depth.Total() > 0 {
		return fmt.Sprintf("%s: ops%s dlq list", ui.Plural(depth.Total(), "failed task"), d.t.Flags()), nil
	}
	return "empty", nil
}

func (d *doctor) bucket(ctx context.Context) (string, error) {
	if err := d.store.Probe(ctx, fmt.Sprint("doctor-", time.Now().UnixNano())); err != nil {
		return "", err
	}
	return d.t.BucketName + ": written, read and deleted", nil
}

const manifestRule = "Lambda takes one plain manifest and no index: push without provenance and attestations, " +
	"from a Docker daemon that does not use the containerd image store; then pulumi up"

// Manifests that Lambda takes. It refuses indexes of several.
// https://docs.aws.amazon.com/lambda/latest/dg/images-create.html
var manifests = []string{"application/vnd.docker.distribution.manifest.v2+json",
	"application/vnd.oci.image.manifest.v1+json"}

func (d *doctor) image(ctx context.Context) (string, error) {
	m := registryPattern.FindStringSubmatch(d.t.ImageURI)
	if m == nil {
		return "", skipped("its registry is not ECR")
	}
	digest := digest(d.t.ImageURI)
	out, err := ecr.NewFromConfig(d.aws).DescribeImages(ctx,
		&ecr.DescribeImagesInput{RegistryId: &m[1], RepositoryName: &m[3],
			ImageIds: []ecrtypes.ImageIdentifier{{ImageDigest: &digest}}})
	if err != nil {
		return "", err
	}
	if len(out.ImageDetails) != 1 {
		return wrong("pulumi up pushes it again", "%s has no image %s", m[3], digest)
	}
	image := out.ImageDetails[0]
	kind := aws.ToString(image.ImageManifestMediaType)
	if !slices.Contains(manifests, kind) {
		return wrong(manifestRule, "it was pushed as %s", kind)
	}
	return fmt.Sprintf("%s, one manifest (%s), %s", ui.Cut(digest, 20), kind,
		ui.Size(aws.ToInt64(image.ImageSizeInBytes))), nil
}

func (d *doctor) mapping(ctx context.Context) (string, error) {
	if d.t.WithoutLambda() {
		return "", d.otherWorkers()
	}
	m, err := d.t.Mapping(ctx, d.lambda)
	if err != nil {
		return "", err
	}
	switch state := aws.ToString(m.State); {
	case state == target.MappingDisabled:
		return wrong("ops"+d.t.Flags()+" resume", "the workers are paused")
	case state != target.MappingEnabled:
		return wrong("the same in a minute", "it is %s", state)
	case aws.ToString(m.EventSourceArn) != d.t.QueueARN:
		return wrong(refresh, "it reads %s, the stack's queue is %s", aws.ToString(m.EventSourceArn), d.t.QueueARN)
	case aws.ToString(m.FunctionArn) != d.t.FunctionARN:
		return wrong(refresh, "it starts %s, the stack's function is %s", aws.ToString(m.FunctionArn), d.t.FunctionARN)
	case aws.ToInt32(m.BatchSize) != 1:
		return wrong(refresh, "it hands over %d tasks at once: one that runs long would hold up the others",
			aws.ToInt32(m.BatchSize))
	case !slices.Contains(m.FunctionResponseTypes, types.FunctionResponseTypeReportBatchItemFailures):
		return wrong(refresh, "it does not ask for ReportBatchItemFailures: tasks that failed would be deleted")
	case strings.HasPrefix(aws.ToString(m.LastProcessingResult), "PROBLEM"):
		return wrong("ops"+d.t.Flags()+" logs --since 15m", "%s", aws.ToString(m.LastProcessingResult))
	}
	return target.MappingEnabled, nil
}

// otherWorkers says what takes tasks in place of the function, which is not checked.
func (d *doctor) otherWorkers() error {
	if d.t.FleetWorkers == 0 {
		return skipped("neither the function nor a fleet takes tasks: ops worker does, on other machines")
	}
	return skipped(fmt.Sprintf("a fleet of at most %s takes the tasks, which is not checked: aws ecs describe-services",
		ui.Plural(d.t.FleetWorkers, "worker")))
}

func (d *doctor) concurrency(ctx context.Context) (string, error) {
	if d.t.WithoutLambda() {
		return "", d.otherWorkers()
	}
	m, err := d.t.Mapping(ctx, d.lambda)
	if err != nil {
		return "", err
	}
	account, err := d.lambda.GetAccountSettings(ctx, nil)
	if err != nil {
		return "", err
	}
	reserved, err := d.lambda.GetFunctionConcurrency(ctx,
		&lambda.GetFunctionConcurrencyInput{FunctionName: &d.t.FunctionName})
	if err != nil {
		return "", err
	}
	if account.AccountLimit == nil {
		return "", errors.New("the answer does not say how many the account may run")
	}
	limit := account.AccountLimit.ConcurrentExecutions
	room, whose := int(aws.ToInt32(account.AccountLimit.UnreservedConcurrentExecutions)), "the account has room for"
	if r := reserved.ReservedConcurrentExecutions; r != nil {
		room, whose = int(*r), "the function has reserved"
	}
	way := fmt.Sprintf("pulumi config set maxConcurrency %d, then pulumi up", max(room, 2))
	const why = "deliveries that Lambda throttles count against tasks"
	if m.ScalingConfig == nil || m.ScalingConfig.MaximumConcurrency == nil {
		return wrong(way, "the event source mapping has no maximum, %s %d: %s", whose, room, why)
	}
	if most := int(*m.ScalingConfig.MaximumConcurrency); most > room {
		return wrong(way+"; or ask AWS for more (Service Quotas, Lambda, Concurrent executions)",
			"up to %d workers may start, %s %d (of %d): %s", most, whose, room, limit, why)
	}
	return fmt.Sprintf("up to %d workers; %s %d (of %d)", *m.ScalingConfig.MaximumConcurrency, whose, room, limit), nil
}

func (d *doctor) logGroup(ctx context.Context) (string, error) {
	out, err := cloudwatchlogs.NewFromConfig(d.aws).DescribeLogGroups(ctx,
		&cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: &d.t.LogGroupName})
	if err != nil {
		return "", err
	}
	for _, g := range out.LogGroups {
		if aws.ToString(g.LogGroupName) != d.t.LogGroupName {
			continue
		}
		if g.RetentionInDays == nil {
			return d.t.LogGroupName + ", kept for ever", nil
		}
		return fmt.Sprintf("%s, kept for %s", d.t.LogGroupName, ui.Plural(int(*g.RetentionInDays), "day")), nil
	}
	return wrong(refresh, "there is no log group %s", d.t.LogGroupName)
}

func (d *doctor) generators(context.Context) (string, error) {
	if len(d.t.Generators) == 0 {
		return "", skipped("the stack does not say what is in its image")
	}
	in := fmt.Sprintf("%d in the image", len(d.t.Generators))
	here, err := generator.Discover(d.flags.Generators)
	if errors.Is(err, fs.ErrNotExist) {
		return in + "; there is no " + d.flags.Generators + " to compare with", nil
	}
	if err != nil {
		return "", err
	}
	diff := inventory.Compare(here, d.t.Generators)
	var found []string
	for _, f := range []struct {
		what  string
		names []string
	}{{"not in the image: ", diff.Local}, {"only in the image: ", diff.Image},
		{"of another commit in the image: ", diff.Changed}} {
		if len(f.names) > 0 {
			found = append(found, f.what+ui.Some(f.names, 3))
		}
	}
	if len(found) > 0 {
		return wrong("pulumi up, which brings what is in "+d.flags.Generators+" into the image", "%s",
			strings.Join(found, "; "))
	}
	return in + ", the same as in " + d.flags.Generators, nil
}
