// Package infra describes a stack in AWS with Pulumi: bucket, queue, image, the function, and what watches them.
package infra

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/mail"
	"regexp"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/price"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Config is the configuration of one stack, from the stack's settings file; docs/AWS.md has the table of its keys.
type Config struct {
	Stack string
	Name  string // beginning of the names of all resources: project and stack

	Size string // Starter or Full: the defaults of MemoryMB and MaxConcurrency

	MemoryMB            int
	TimeoutSeconds      int // of one invocation
	EphemeralStorageMB  int
	MaxConcurrency      int    // invocations at once
	ReservedConcurrency int    // 0 reserves none
	Architecture        string // X86 or ARM

	VisibilityTimeoutSeconds int
	MaxReceiveCount          int // deliveries until a task goes to the DLQ
	QueueRetentionSeconds    int
	DLQRetentionSeconds      int

	BucketName    string   // "" has one generated
	AdoptBucket   string   // a bucket that an earlier stack has left; "" makes a new one
	RetainData    bool     // the bucket and the images survive the stack
	RequiredFiles []string // files that every sample must have beyond those of the contract

	BuilderImage string // "" takes the Dockerfile's
	BaseImage    string // "" takes the Dockerfile's

	LogRetentionDays int
	AlarmEmail       string // "" sends none
	MonthlyBudgetUSD int    // 0 has no budget
	Tags             map[string]string
	StackTag         Tag // of Tags, or of the provider's, by which costs are told apart

	PermissionsBoundary string   // ARN of an IAM policy, of the function's role; "" has none
	AllowedAccountIDs   []string // empty allows every account

	Lambda          bool     // the function takes tasks
	FleetMaxWorkers int      // containers of the fleet at once; 0 has none
	FleetSubnets    []string // where they run
}

// Sizes of a stack. Starter is what a new account takes, Full what one of usual
// limits does, with some room for other functions.
const (
	Starter = "starter"
	Full    = "full"

	newAccountMemoryMB, newAccountConcurrency = 3008, 10
)

var sizes = map[string]struct{ memoryMB, maxConcurrency int }{
	Starter: {newAccountMemoryMB, newAccountConcurrency},
	Full:    {maxMemoryMB, 900},
}

// Instruction sets of the function, as Lambda names them.
const (
	X86 = price.X86
	ARM = price.ARM
)

// Limits of AWS.
// Lambda: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
// event source mapping: https://docs.aws.amazon.com/lambda/latest/api/API_ScalingConfig.html
// SQS: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
const (
	minMemoryMB, maxMemoryMB                           = 128, 10240
	maxTimeoutSeconds                                  = 900
	minEphemeralMB, maxEphemeralMB                     = 512, 10240
	minMappingConcurrency, maxMappingConcurrency       = 2, 1000
	maxVisibilitySeconds                               = 12 * 60 * 60
	maxReceives                                        = 1000
	minQueueRetentionSeconds, maxQueueRetentionSeconds = 60, 14 * day
	maxTags                                            = 50
	unreservedConcurrency                              = 100 // that Lambda leaves to other functions
	maxBudgetUSD                                       = 1_000_000

	day = 24 * 60 * 60 // seconds
)

// logRetentions are the days that CloudWatch Logs can keep a log group's events.
// https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
var logRetentions = []int{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
	3288, 3653}

// LoadConfig reads the configuration of the stack that is being deployed and fills in the defaults. It registers no
// resource. The error names every wrong key with its value and what is allowed, a line each.
func LoadConfig(ctx *pulumi.Context) (*Config, error) {
	c := &Config{
		Stack: ctx.Stack(), Name: ctx.Project() + "-" + ctx.Stack(),
		Size: Full, TimeoutSeconds: maxTimeoutSeconds, EphemeralStorageMB: 2048, Architecture: X86,
		// A minute more than an invocation may take: a task must not be delivered again while a worker has it.
		VisibilityTimeoutSeconds: 960,
		MaxReceiveCount:          3,
		// A DLQ keeps the time at which a message was first sent. So it must keep
		// messages longer than the queue, or the last ones to fail are gone at once.
		QueueRetentionSeconds: 7 * day, DLQRetentionSeconds: 14 * day,
		Lambda: true, RetainData: true, LogRetentionDays: 30, Tags: map[string]string{},
	}
	r := reader{ctx: ctx, prefix: ctx.Project() + ":"}
	r.text("size", &c.Size)
	size, known := sizes[c.Size]
	if !known {
		r.refuse("size", c.Size, "it must be %s or %s", Starter, Full)
	}
	c.MemoryMB, c.MaxConcurrency = size.memoryMB, size.maxConcurrency
	r.integer("memoryMB", &c.MemoryMB, minMemoryMB, maxMemoryMB)
	r.integer("timeoutSeconds", &c.TimeoutSeconds, 1, maxTimeoutSeconds)
	r.integer("ephemeralStorageMB", &c.EphemeralStorageMB, minEphemeralMB, maxEphemeralMB)
	r.integer("maxConcurrency", &c.MaxConcurrency, minMappingConcurrency, maxMappingConcurrency)
	r.integer("reservedConcurrency", &c.ReservedConcurrency, 0, maxMappingConcurrency)
	r.text("architecture", &c.Architecture)
	r.integer("visibilityTimeoutSeconds", &c.VisibilityTimeoutSeconds, 1, maxVisibilitySeconds)
	r.integer("maxReceiveCount", &c.MaxReceiveCount, 1, maxReceives)
	r.integer("queueRetentionSeconds", &c.QueueRetentionSeconds, minQueueRetentionSeconds, maxQueueRetentionSeconds)
	r.integer("dlqRetentionSeconds", &c.DLQRetentionSeconds, minQueueRetentionSeconds, maxQueueRetentionSeconds)
	r.text("bucketName", &c.BucketName)
	r.text("adoptBucket", &c.AdoptBucket)
	r.boolean("retainData", &c.RetainData)
	r.list("requiredFiles", &c.RequiredFiles)
	r.text("builderImage", &c.BuilderImage)
	r.text("baseImage", &c.BaseImage)
	r.integer("logRetentionDays", &c.LogRetentionDays, logRetentions[0], logRetentions[len(logRetentions)-1])
	r.text("alarmEmail", &c.AlarmEmail)
	r.integer("monthlyBudgetUSD", &c.MonthlyBudgetUSD, 0, maxBudgetUSD)
	r.text("permissionsBoundary", &c.PermissionsBoundary)
	r.list("allowedAccountIds", &c.AllowedAccountIDs)
	r.boolean("lambda", &c.Lambda)
	r.integer("fleetMaxWorkers", &c.FleetMaxWorkers, 0, maxFleet)
	r.list("fleetSubnets", &c.FleetSubnets)
	c.readTags(&r)
	r.unknown()
	if len(r.errs) == 0 {
		c.check(&r)
	}
	return c, errors.Join(r.errs...)
}

var (
	// What every kind of resource takes in a name, with room for what is added
	// to it: "-data-" and seven random digits must fit into a bucket's 63.
	stackNamePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,38}[a-z0-9]$`)
	// https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
	// Without dots, which S3 allows: TLS does not know the bucket's address then.
	bucketPattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`)
	imagePattern    = regexp.MustCompile(`^[a-zA-Z0-9][\w.:/@-]*$`)
	boundaryPattern = regexp.MustCompile(`^arn:aws[a-z-]*:iam::(aws|\d{12}):policy/.+$`)
	accountPattern  = regexp.MustCompile(`^\d{12}$`)
	// https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html
	tagPattern = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+@-]*$`)
)

func (c *Config) check(r *reader) {
	// The names of ECR's repositories have no two hyphens in a row.
	if !stackNamePattern.MatchString(c.Name) || strings.Contains(c.Name, "--") {
		r.errs = append(r.errs, fmt.Errorf(
			"the project and the stack make the name %q, it must have at most 40 lower-case letters, digits and "+
				"single hyphens and begin with a letter: pulumi stack rename", c.Name))
	}
	if c.ReservedConcurrency != 0 && c.ReservedConcurrency < c.MaxConcurrency {
		r.refuse("reservedConcurrency", c.ReservedConcurrency,
			"it must be at least maxConcurrency, which is %d: deliveries that Lambda throttles count against tasks",
			c.MaxConcurrency)
	}
	if c.Architecture != X86 && c.Architecture != ARM {
		r.refuse("architecture", c.Architecture, "it must be %s or %s", X86, ARM)
	}
	for _, p := range []struct {
		key         string
		value       int
		above       string
		least       int
		consequence string
	}{
		{"visibilityTimeoutSeconds", c.VisibilityTimeoutSeconds, "timeoutSeconds", c.TimeoutSeconds,
			"a task would be delivered again while it is at work"},
		{"queueRetentionSeconds", c.QueueRetentionSeconds, "visibilityTimeoutSeconds", c.VisibilityTimeoutSeconds,
			"a task would be gone before it is delivered again"},
		{"dlqRetentionSeconds", c.DLQRetentionSeconds, "queueRetentionSeconds", c.QueueRetentionSeconds,
			"a dead task keeps the time at which it was first sent"},
	} {
		if p.value <= p.least {
			r.refuse(p.key, p.value, "it must be greater than %s, which is %d: %s", p.above, p.least, p.consequence)
		}
	}
	for key, b := range map[string]string{"bucketName": c.BucketName, "adoptBucket": c.AdoptBucket} {
		if b != "" && (!bucketPattern.MatchString(b) || reserved(b)) {
			r.refuse(key, b,
				"it must have 3 to 63 lower-case letters, digits and hyphens, begin and end with a letter or digit, and "+
					"not be of a form that S3 reserves")
		}
	}
	if c.AdoptBucket != "" && c.BucketName != "" && c.BucketName != c.AdoptBucket {
		r.refuse("adoptBucket", c.AdoptBucket, "but bucketName is %q, and a stack has one bucket: pulumi config rm "+
			"bucketName", c.BucketName)
	}
	if c.AdoptBucket != "" && !c.RetainData {
		r.refuse("retainData", c.RetainData,
			"it must be true with adoptBucket, whose samples the stack did not make: aws s3 rb --force deletes them")
	}
	for _, file := range c.RequiredFiles {
		if err := task.CheckFile(file); err != nil {
			r.refuse("requiredFiles", c.RequiredFiles, "%v", err)
		}
	}
	for key, image := range map[string]string{"builderImage": c.BuilderImage, "baseImage": c.BaseImage} {
		if image != "" && !imagePattern.MatchString(image) {
			r.refuse(key, image, "it must be a reference such as registry/name:tag or name@sha256:digest")
		}
	}
	if !slices.Contains(logRetentions, c.LogRetentionDays) {
		r.refuse("logRetentionDays", c.LogRetentionDays, "it must be one of those that CloudWatch takes: %s",
			strings.Trim(strings.ReplaceAll(fmt.Sprint(logRetentions), " ", ", "), "[]"))
	}
	if a, err := mail.ParseAddress(c.AlarmEmail); c.AlarmEmail != "" && (err != nil || a.Address != c.AlarmEmail) {
		r.refuse("alarmEmail", c.AlarmEmail, "it must be an address such as team@example.com")
	}
	if c.MonthlyBudgetUSD > 0 && c.AlarmEmail == "" {
		r.refuse("monthlyBudgetUSD", c.MonthlyBudgetUSD, "it needs alarmEmail, the address to warn")
	}
	if b := c.PermissionsBoundary; b != "" && !boundaryPattern.MatchString(b) {
		r.refuse("permissionsBoundary", b, "it must be the ARN of a policy such as arn:aws:iam::123456789012:policy/boundary")
	}
	for _, id := range c.AllowedAccountIDs {
		if !accountPattern.MatchString(id) {
			r.refuse("allowedAccountIds", id, "each must be an account's 12 digits")
		}
	}
	c.checkFleet(r)
	if len(c.Tags) > maxTags {
		r.refuse("tags", len(c.Tags), "at most %d are allowed, project and stack among them", maxTags)
	}
	for _, key := range slices.Sorted(maps.Keys(c.Tags)) {
		value := c.Tags[key]
		if key == "" || len(key) > 128 || len(value) > 256 || strings.HasPrefix(strings.ToLower(key), "aws:") ||
			!tagPattern.MatchString(key) || !tagPattern.MatchString(value) {
			r.refuse("tags."+key, value,
				"a key has 1 to 128 and a value up to 256 letters, digits, spaces and _ . : / = + - @, and no key begins with aws:")
		}
	}
}

// reserved says whether S3 keeps a bucket name for its own use.
func reserved(name string) bool {
	starts := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	ends := func(suffix string) bool { return strings.HasSuffix(name, suffix) }
	return slices.ContainsFunc([]string{"xn--", "sthree-", "amzn-s3-demo-"}, starts) ||
		slices.ContainsFunc([]string{"-s3alias", "--ols-s3", "--x-s3", "--table-s3", "-an"}, ends)
}

func (c *Config) platform() string {
	if c.Architecture == ARM {
		return "linux/arm64"
	}
	return "linux/amd64"
}

// Keys of the tags that every resource has.
const (
	tagProject = "project"
	tagStack   = "stack"
)

// Tag is a tag of a resource.
type Tag struct{ Key, Value string }

// readTags merges the tags of every resource: project and stack, those of the provider's own aws:defaultTags, and the
// stack's, which win. IAM takes keys that differ in case only for one key and refuses the second: one of them is left.
func (c *Config) readTags(r *reader) {
	var provider struct{ Tags map[string]json.RawMessage }
	if v, ok := r.ctx.GetConfig("aws:defaultTags"); ok {
		_ = json.Unmarshal([]byte(v), &provider) // the provider itself refuses what it cannot read
	}
	own := map[string]string{}
	r.table("tags", own)
	given := slices.Concat(slices.Sorted(maps.Keys(own)), slices.Sorted(maps.Keys(provider.Tags)))
	for key, value := range map[string]string{tagProject: r.ctx.Project(), tagStack: c.Stack} {
		if _, ok := likeKey(given, key); !ok {
			c.Tags[key] = value
		}
	}
	for i, key := range given[:len(own)] {
		if twin, ok := likeKey(given[:i], key); ok {
			r.refuse("tags."+key, own[key], "but tags.%s differs from it in case only, which AWS takes for one key: remove one",
				twin)
		}
		if twin, ok := likeKey(given[len(own):], key); ok {
			c.Tags[twin] = own[key]
		} else {
			c.Tags[key] = own[key]
		}
	}
	c.StackTag = Tag{tagStack, c.Stack}
	if key, ok := likeKey(given, tagStack); ok {
		value, mine := c.Tags[key]
		if !mine {
			value, _ = scalar(provider.Tags[key])
		}
		c.StackTag = Tag{key, value}
	}
}

func likeKey(list []string, key string) (string, bool) {
	i := slices.IndexFunc(list, func(k string) bool { return strings.EqualFold(k, key) })
	if i < 0 {
		return "", false
	}
	return list[i], true
}
